#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "cpu/jit/fake_jit.h"

#define AREA      0x60000
#define XMM(n)    (160 + 16 * (n))
#define COMPACTED BIT(63)

static struct fake_jit *f;
static struct x86_state *st;

static int setup(void **state)
{
	const struct cpuid_opts o = {.cpus = 1, .jit = true, .tsc_hz = 1000000000};
	struct err e;

	f = fake_jit_new();
	st = &f->c->st;
	f->c->ea_seg = X86_DS;
	f->c->ea = AREA;
	st->cr4 |= CR4_OSXSAVE | CR4_OSFXSR;
	if (cpuid_host(&f->cpuid, &o, &e) < 0)
		return -1;
	st->xcr0 = f->cpuid.xcr0_mask;
	return 0;
}

static int teardown(void **state)
{
	fake_jit_free(f);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static uint64_t *in_use(void)
{
	return (uint64_t *)(st->xsave + 512);
}

static uint32_t offset_of(unsigned component)
{
	uint32_t out[4];

	cpuid_query(&f->cpuid, st, 0, 0xd, component, out);
	return out[1];
}

static void fill_state(void)
{
	for (unsigned i = 0; i < 256; i++)
		st->xsave[XMM(0) + i] = (uint8_t)(i + 1);
	memset(st->xsave + offset_of(2), 0xa5, 256);
	*in_use() = XCR0_X87 | XCR0_SSE | XCR0_AVX;
	store_le(st->xsave + 24, 0x1f80, 4);
}

static unsigned run_mask(jit_helper *h, unsigned kind, uint64_t mask)
{
	st->gpr[X86_RAX] = mask;
	st->gpr[X86_RDX] = mask >> 32;
	return fake_run(f, h, ARG(4, 8, 0, ARG_MEM, kind));
}

static void fxsave_and_fxrstor_are_inverse(void **state)
{
	uint8_t before[256];

	fill_state();
	st->xsave[4] = 0x81; /* two registers in use */
	memset(f->ram + AREA, 0x77, 512);
	assert_int_equal(fake_run(f, h_fxsave, ARG(4, 8, 0, ARG_MEM, 0)), FAKE_NONE);
	assert_int_equal(f->ram[AREA + 416], 0x77);
	memcpy(before, st->xsave + XMM(0), sizeof before);
	memset(st->xsave, 0, 416);
	*in_use() = 0;
	assert_int_equal(fake_run(f, h_fxrstor, ARG(4, 8, 0, ARG_MEM, 0)), FAKE_NONE);
	assert_memory_equal(st->xsave + XMM(0), before, sizeof before);
	assert_int_equal(st->xsave[4], 0x81);
	assert_int_equal(*in_use() & 3, 3);
}

static void images_must_be_aligned_and_sound(void **state)
{
	f->c->ea = AREA + 8;
	assert_int_equal(fake_run(f, h_fxsave, ARG(4, 8, 0, ARG_MEM, 0)), X86_GP);
	assert_int_equal(run_mask(h_xsave, 0, 7), X86_GP);
	f->c->ea = AREA;
	fake_put(f, AREA + 24, 0x80000000, 4); /* reserved MXCSR bit */
	assert_int_equal(fake_run(f, h_fxrstor, ARG(4, 8, 0, ARG_MEM, 0)), X86_GP);
	st->cr0 |= CR0_TS;
	assert_int_equal(fake_run(f, h_fxsave, ARG(4, 8, 0, ARG_MEM, 0)), X86_NM);
	st->cr4 &= ~(uint64_t)CR4_OSXSAVE;
	assert_int_equal(run_mask(h_xsave, 0, 7), X86_UD);
}

/* As AMD's processors do it: by the alignment of doublewords, and not for XSAVE. */
static void fxsave_under_an_alignment_check(void **state)
{
	f->c->mode |= MODE_ALIGN;
	f->c->mmu = MMU_USER;
	for (unsigned off = 1; off < 16; off++) {
		f->c->ea = AREA + off;
		assert_int_equal(fake_run(f, h_fxsave, ARG(4, 8, 0, ARG_MEM, 0)),
				 off % 4 ? X86_AC : X86_GP);
		assert_int_equal(fake_run(f, h_fxrstor, ARG(4, 8, 0, ARG_MEM, 0)),
				 off % 4 ? X86_AC : X86_GP);
		assert_int_equal(run_mask(h_xsave, 0, 7), X86_GP);
	}
}

static void xsave_of_initial_components(void **state)
{
	fill_state();
	*in_use() = XCR0_X87 | XCR0_SSE; /* AVX initial, whatever its bytes */
	memset(f->ram + AREA, 0x77, 2048);
	fake_put(f, AREA + 512, 0xff00, 8);
	assert_int_equal(run_mask(h_xsave, 0, 6), FAKE_NONE);
	assert_int_equal(fake_get(f, AREA + 512, 8), 0xff00 | XCR0_SSE);
	assert_int_equal(fake_get(f, AREA, 8), 0x7777777777777777); /* x87 not asked for */
	assert_int_equal(fake_get(f, AREA + offset_of(2), 8), 0);
	assert_int_equal(*in_use(), XCR0_X87 | XCR0_SSE);
	memset(f->ram + AREA + offset_of(2), 0x77, 256);
	assert_int_equal(run_mask(h_xsave, 1, 6), FAKE_NONE); /* XSAVEOPT skips it */
	assert_int_equal(fake_get(f, AREA + offset_of(2), 8), 0x7777777777777777);
}

static void xsavec_packs_and_xrstor_unpacks(void **state)
{
	uint64_t k1 = 0x1234567890abcdef;

	if (!(st->xcr0 & XCR0_AVX512))
		skip();
	fill_state();
	*in_use() |= 0x20;
	memcpy(st->xsave + offset_of(5) + 8, &k1, 8);
	assert_int_equal(run_mask(h_xsave, 2, 0x22), FAKE_NONE);
	assert_int_equal(fake_get(f, AREA + 520, 8), COMPACTED | 0x22);
	assert_int_equal(fake_get(f, AREA + 512, 8), 0x22);
	assert_int_equal(fake_get(f, AREA + 576 + 8, 8), k1);
	memset(st->xsave, 0, 2048);
	assert_int_equal(run_mask(h_xrstor, 0, ~UINT64_C(0)), FAKE_NONE);
	assert_memory_equal(st->xsave + offset_of(5) + 8, &k1, 8);
	assert_int_equal(*in_use(), 0x22);
	assert_int_equal(load_le(st->xsave + 24, 4), 0x1f80);
}

static void xrstor_refuses_bad_headers(void **state)
{
	fake_put(f, AREA + 24, 0x1f80, 4);
	fake_put(f, AREA + 512, BIT(62), 8);
	assert_int_equal(run_mask(h_xrstor, 0, 7), X86_GP);
	fake_put(f, AREA + 512, 0, 8);
	assert_int_equal(run_mask(h_xrstor, 0, 7), FAKE_NONE);
	assert_int_equal(run_mask(h_xrstor, 1, 7), X86_GP); /* XRSTORS: compacted only */
	fake_put(f, AREA + 520, 1, 8);
	assert_int_equal(run_mask(h_xrstor, 0, 7), X86_GP);
	fake_put(f, AREA + 520, COMPACTED | 2, 8);
	fake_put(f, AREA + 512, 4, 8); /* a component outside the layout */
	assert_int_equal(run_mask(h_xrstor, 0, 7), X86_GP);
	fake_put(f, AREA + 512, 0, 8);
	fake_put(f, AREA + 568, 1, 8);
	assert_int_equal(run_mask(h_xrstor, 0, 7), X86_GP);
	fake_user(f, true);
	fake_put(f, AREA + 568, 0, 8);
	assert_int_equal(run_mask(h_xrstor, 1, 7), X86_GP);
}

static void xrstor_without_its_bit_initialises(void **state)
{
	fill_state();
	fake_put(f, AREA + 24, 0x9fc0, 4);
	assert_int_equal(run_mask(h_xrstor, 0, XCR0_SSE), FAKE_NONE);
	assert_int_equal(*in_use(), XCR0_X87 | XCR0_AVX);
	assert_int_equal(load_le(st->xsave + 24, 4), 0x9fc0);
}

static void environment_has_full_tags(void **state)
{
	fill_state();
	store_le(st->xsave, 0x37f, 2);
	store_le(st->xsave + 2, 6 << 11, 2); /* TOP 6: ST0 is register 6 */
	st->xsave[4] = 0xc0;
	memset(st->xsave + 32, 0, 32);
	store_le(st->xsave + 32 + 16 + 8, 0x7fff, 2); /* ST0 zero, ST1 special */
	assert_int_equal(fake_run(f, h_fnstenv, ARG(3, 4, 0, ARG_MEM, 0)), FAKE_NONE);
	assert_int_equal(fake_get(f, AREA, 4), 0xffff037f);
	assert_int_equal(fake_get(f, AREA + 4, 4), 0xffff3000);
	assert_int_equal(fake_get(f, AREA + 8, 4), 0xffff9fff);
	st->xsave[4] = 0;
	assert_int_equal(fake_run(f, h_fldenv, ARG(3, 4, 0, ARG_MEM, 0)), FAKE_NONE);
	assert_int_equal(st->xsave[4], 0xc0);
}

static void pending_x87_exception_is_summed_up_on_load(void **state)
{
	fill_state();
	fake_put(f, AREA, 0x37e, 4); /* invalid operation unmasked */
	fake_put(f, AREA + 4, 1, 4);
	fake_put(f, AREA + 8, 0xffff, 4);
	assert_int_equal(fake_run(f, h_fldenv, ARG(3, 4, 0, ARG_MEM, 0)), FAKE_NONE);
	assert_int_equal(load_le(st->xsave + 2, 2), 0x8081);
}

/* --- vsib_slow.c --- */
static void put_dwords(uint32_t at, const uint32_t *v, unsigned n)
{
	memcpy(st->xsave + at, v, 4 * n);
}

static void gather_that_faults_keeps_what_it_has(void **state)
{
	/* vpgatherdd xmm0, [rbx + xmm1*4], xmm2 */
	static const uint8_t code[] = {0xc4, 0xe2, 0x69, 0x90, 0x04, 0x8b};
	const uint32_t index[4] = {0, 1, 0x400, (uint32_t)-1};
	const uint32_t mask[4] = {0x80000000, 0, 0x80000000, 0x80000000};
	const uint32_t none[4] = {0};

	if (!(st->xcr0 & XCR0_AVX))
		skip();
	memcpy(f->ram + st->rip, code, sizeof code);
	fill_state();
	st->gpr[X86_RBX] = 0x50010;
	put_dwords(XMM(1), index, 4);
	put_dwords(XMM(2), mask, 4);
	put_dwords(XMM(0), none, 4);
	fake_put(f, 0x50010, 0x11111111, 4);
	fake_put(f, 0x51010, 0x33333333, 4);
	fake_put(f, 0x5000c, 0x44444444, 4);
	f->absent[0x51] = true;
	assert_int_equal(fake_run(f, h_gather, ARG(6, 16, 0, ARG_MEM, 0)), X86_PF);
	assert_int_equal(load_le(st->xsave + XMM(0), 4), 0x11111111);
	assert_int_equal(load_le(st->xsave + XMM(2), 4), 0);
	assert_int_equal(load_le(st->xsave + XMM(2) + 8, 4), 0x80000000);
	f->absent[0x51] = false;
	assert_int_equal(fake_run(f, h_gather, ARG(6, 16, 0, ARG_MEM, 0)), FAKE_NONE);
	assert_int_equal(load_le(st->xsave + XMM(0) + 4, 4), 0);
	assert_int_equal(load_le(st->xsave + XMM(0) + 8, 4), 0x33333333);
	assert_int_equal(load_le(st->xsave + XMM(0) + 12, 4), 0x44444444);
	assert_memory_equal(st->xsave + XMM(2), none, 16);
	assert_int_equal(st->xsave[offset_of(2)], 0); /* upper half of ymm0 */
}

static void scatter_takes_elements_of_its_mask(void **state)
{
	/* vpscatterdq [rbx + xmm1*8]{k1}, ymm0 */
	static const uint8_t code[] = {0x62, 0xf2, 0xfd, 0x29, 0xa0, 0x04, 0xcb};
	const uint32_t index[4] = {3, 2, 1, 0};
	uint64_t k1 = 0x5;

	if (!(st->xcr0 & XCR0_AVX512))
		skip();
	memcpy(f->ram + st->rip, code, sizeof code);
	fill_state();
	*in_use() |= 0x20;
	memcpy(st->xsave + offset_of(5) + 8, &k1, 8);
	st->gpr[X86_RBX] = 0x50000;
	memset(f->ram + 0x50000, 0, 32);
	put_dwords(XMM(1), index, 4);
	assert_int_equal(fake_run(f, h_gather, ARG(7, 32, 0, ARG_MEM, 0)), FAKE_NONE);
	assert_int_equal(fake_get(f, 0x50018, 8), 0x0807060504030201);
	assert_int_equal(fake_get(f, 0x50010, 8), 0);
	assert_int_equal(fake_get(f, 0x50008, 8), 0xa5a5a5a5a5a5a5a5);
	assert_int_equal(load_le(st->xsave + offset_of(5) + 8, 8), 0);
}

static void maskmov_writes_chosen_bytes_only(void **state)
{
	static const uint8_t code[] = {0x66, 0x0f, 0xf7, 0xc1}; /* maskmovdqu xmm0, xmm1 */

	memcpy(f->ram + st->rip, code, sizeof code);
	fill_state();
	memset(st->xsave + XMM(1), 0, 16);
	st->xsave[XMM(1) + 3] = 0x80;
	st->xsave[XMM(1) + 4] = 0x7f;
	st->gpr[X86_RDI] = AREA;
	assert_int_equal(fake_run(f, h_maskmov, ARG(4, 16, 0, ARG_MEM, 0)), FAKE_NONE);
	assert_int_equal(fake_get(f, AREA, 8), 4u << 24);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(fxsave_and_fxrstor_are_inverse),
		TEST(images_must_be_aligned_and_sound),
		TEST(fxsave_under_an_alignment_check),
		TEST(xsave_of_initial_components),
		TEST(xsavec_packs_and_xrstor_unpacks),
		TEST(xrstor_refuses_bad_headers),
		TEST(xrstor_without_its_bit_initialises),
		TEST(environment_has_full_tags),
		TEST(pending_x87_exception_is_summed_up_on_load),
		TEST(gather_that_faults_keeps_what_it_has),
		TEST(scatter_takes_elements_of_its_mask),
		TEST(maskmov_writes_chosen_bytes_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
