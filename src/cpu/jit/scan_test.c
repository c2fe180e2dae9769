#include "base/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cpu/jit/core.h"
#include "cpu/jit/scan_slow.h"
#include "cpu/jit/window.h"

/* A cache with one block made by hand: code, then a jump to a thunk. */
static struct guest_mem *mem;
static struct jit_cache cache;
static struct jit_block block;
static struct scan found;
static struct err err;

static int setup(void **state)
{
	memset(&cache, 0, sizeof cache);
	assert_int_equal(mem_new(&mem, MIB(1), &err), 0);
	return jit_cache_init(&cache, mem, JIT_CACHE_MIN, &err);
}

static int teardown(void **state)
{
	jit_cache_done(&cache);
	mem_free(mem);
	return 0;
}

static uint8_t *thunk(const void *rx)
{
	return (uint8_t *)rx - (cache.rx - cache.rw);
}

static void put(struct emit *e, const char *hex)
{
	unsigned v;
	int n;

	for (; sscanf(hex, "%2x%n", &v, &n) == 1; hex += n) {
		e8(e, (uint8_t)v);
		hex += hex[n] == ' ';
	}
}

/* What the check of an access leaves: r14 is a host address. */
static void put_check(struct emit *e)
{
	e_op_base(e, true, true, 0x03, R_14, R_13, 16);
}

static void begin(struct emit *e)
{
	*e = (struct emit){cache.hot_start};
}

static int end(struct emit *e)
{
	struct emit cold = {cache.cold_start};

	e_jmp_to(e, thunk(cache.exit_lookup));
	for (unsigned i = 0; i < SAVE_FLAGS_BYTES; i++)
		e8(&cold, 0x90);
	e_jmp_to(&cold, thunk(cache.exit_lookup));
	block = (struct jit_block){.start = cache.hot_start,
				   .stub = (uint32_t)(cache.cold_start - cache.rw),
				   .hot_len = (uint16_t)(e->p - cache.hot_start),
				   .valid = true};
	return jit_scan_block(&cache, &block, true, &found, &err);
}

static int verdict(const char *hex, bool checked)
{
	struct emit e;

	begin(&e);
	if (checked)
		put_check(&e);
	put(&e, hex);
	return end(&e);
}

static void what_translated_code_may_do(void **state)
{
	static const char *const good[] = {
		"90",             /* nop */
		"01 c8",          /* add eax, ecx */
		"9f 0f 90 c0 9e", /* lahf; seto al; sahf */
		"41 89 06",       /* mov [r14], eax */
		"f0 41 0f b1 0e", /* lock cmpxchg [r14], ecx */
		"c4 c1 7e 6f 06", /* vmovdqu ymm0, [r14] */
		"4c 89 f6 88 26", /* mov rsi, r14; mov [rsi], ah */
		"d9 e8",          /* fld1 */
		"41 0f ae 16",    /* ldmxcsr [r14] */
	};
	struct emit e;

	for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
		if (verdict(good[i], true) < 0)
			fail_msg("%s: %s", good[i], err.text);
	begin(&e);
	put_check(&e);
	put(&e, "0f 31 48 c1 e2 20 48 09 d0");
	e_op_gs(&e, true, 0x03, R_AX, (uint32_t)offsetof(struct jit_cpu, tsc_offset));
	assert_int_equal(end(&e), 0);
	begin(&e);
	put_check(&e);
	put(&e, "0f 31 48 c1 e2 20 48 09 d0");
	e_op_gs(&e, true, 0x03, R_AX, (uint32_t)offsetof(struct jit_cpu, frozen_tsc));
	assert_int_equal(end(&e), -EBADMSG);
}

/* An access off RBX as direct_slow.c makes it: compared with one lane, the delta loaded of another;
 * then `between`, then the access. */
static int direct(int compared, unsigned loaded, const char *between, const char *access)
{
	struct emit e;
	uint8_t *over;

	begin(&e);
	put(&e, "49 89 dd 49 c1 ed 2a"); /* mov r13, rbx; shr r13, 42 */
	if (compared >= 0)
		e_alu_imm(&e, false, 7, R_13, compared);
	over = e_jcc(&e, CC_NE);
	e_load(&e, R_13, (uint32_t)offsetof(struct jit_cpu, delta) + 8 * loaded);
	put(&e, between);
	put(&e, access);
	e_patch(over, e.p);
	return end(&e);
}

static void an_access_through_the_window(void **state)
{
	static const char access[] = "4a 8b 44 2b 10"; /* mov rax, [rbx + r13 + 16] */

	if (direct(31, 31, "90", access) < 0 ||
	    direct(31, 31, "48 83 c3 08", access) < 0) /* add rbx, 8 */
		fail_msg("%s", err.text);
	assert_int_equal(direct(-1, 31, "90", access), -EBADMSG);
	assert_int_equal(direct(31, 30, "90", access), -EBADMSG);
	assert_int_equal(direct(31, 31, "48 01 cb", access), -EBADMSG); /* add rbx, rcx */
	assert_int_equal(direct(31, 31, "49 ff c5", access), -EBADMSG); /* inc r13 */
	assert_int_equal(direct(31, 31, "48 81 c3 00 00 00 40", access), -EBADMSG);
	assert_int_equal(direct(31, 31, "90", "4a 8b 44 29 10"), -EBADMSG); /* off RCX */
	assert_int_equal(direct(31, 31, "90", "4a 8b 44 6b 10"), -EBADMSG); /* 2 * r13 */
	assert_int_equal(direct(31, 31, "90", "f3 a4"), -EBADMSG);          /* rep movsb */
}

/* [rbx + 8 * rcx]: its lane compared, the delta loaded and RBX added in r14; then `rest`, which is done
 * over and over if it is a loop. */
static int summed(const char *rest, bool loop)
{
	struct emit e;
	uint8_t *other, *top;

	begin(&e);
	put(&e, "4c 8d 34 cb 49 c1 ee 2a"); /* lea r14, [rbx + 8 * rcx]; shr r14, 42 */
	e_alu_imm(&e, false, 7, R_14, 31);
	other = e_jcc(&e, CC_NE);
	e_load(&e, R_14, (uint32_t)offsetof(struct jit_cpu, delta[31]));
	put(&e, "49 01 de"); /* add r14, rbx */
	top = e.p;
	put(&e, rest);
	if (loop)
		e_jcc_to(&e, CC_NE, top);
	e_patch(other, e.p);
	return end(&e);
}

#define SUM_READ "49 8b 44 ce 10 " /* mov rax, [r14 + 8 * rcx + 16] */
#define RCX_ADD  "48 83 c1 08 "    /* add rcx, 8 */
/* mov gs:[held], r14; r14 = 0; mov r14, gs:[held] */
static const char *kept(const char *between)
{
	static char hex[128];
	uint32_t at = offsetof(struct jit_cpu, held);
	char field[16];

	snprintf(field, sizeof field, "%02x %02x %02x %02x ", at & 0xff, at >> 8 & 0xff,
		 at >> 16 & 0xff, at >> 24);
	snprintf(hex, sizeof hex, "65 4c 89 34 25 %s45 31 f6 %s65 4c 8b 34 25 %s" SUM_READ, field,
		 between, field);
	return hex;
}

static void an_access_with_an_index(void **state)
{
	static const char *const good[] = {
		SUM_READ, (RCX_ADD SUM_READ),
		("48 89 f3 " SUM_READ), /* mov rbx, rsi: it was added */
	};
	static const char *const bad[] = {
		"48 89 f1 " SUM_READ,             /* mov rcx, rsi */
		"48 81 c1 00 00 00 40 " SUM_READ, /* add rcx, 1 GiB */
		"49 8b 44 8e 10",                 /* 4 * rcx */
		"49 8b 44 d6 10",                 /* 8 * rdx */
		"49 8b 46 10",                    /* r14 alone */
		"49 01 de " SUM_READ,             /* RBX again */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
		if (summed(good[i], false) < 0)
			fail_msg("%s: %s", good[i], err.text);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		if (summed(bad[i], false) != -EBADMSG)
			fail_msg("%s was not refused", bad[i]);
}

static void what_a_loop_holds(void **state)
{
	if (summed(SUM_READ RCX_ADD, true) < 0 || summed(RCX_ADD SUM_READ, true) < 0 ||
	    summed("49 89 04 ce " RCX_ADD, true) < 0) /* mov [r14 + 8 * rcx], rax */
		fail_msg("%s", err.text);
	/* nothing shows where it is by now: no access, or none for certain */
	assert_int_equal(summed(RCX_ADD "48 83 f9 00 75 05 " SUM_READ, true), -EBADMSG);
	assert_int_equal(summed("41 0f 18 0c ce " RCX_ADD "48 83 f9 00 75 05 " SUM_READ, true),
			 -EBADMSG); /* prefetcht0 */
	assert_int_equal(summed(SUM_READ "48 83 f9 01 48 89 f1 ", true), -EBADMSG);
}

static void what_slots_keep(void **state)
{
	if (summed(kept(""), false) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(summed(kept("48 89 f1 "), false), -EBADMSG); /* mov rcx, rsi */
	/* a call of C */
	struct emit e;

	begin(&e);
	e_load(&e, R_14, (uint32_t)offsetof(struct jit_cpu, held));
	put(&e, SUM_READ);
	assert_int_equal(end(&e), -EBADMSG);
}

/* The delta of lane 0, `before`, then an access off it with an index. */
static int narrow(const char *before, const char *access)
{
	struct emit e;

	begin(&e);
	e_load(&e, R_13, (uint32_t)offsetof(struct jit_cpu, delta[0]));
	put(&e, before);
	put(&e, access);
	return end(&e);
}

static void a_narrow_index_needs_no_check(void **state)
{
	static const char access[] = "49 8b 84 cd 00 00 40 00"; /* mov rax, [r13 + 8 * rcx + n] */
	static const char *const good[] = {
		"0f b6 c8",       /* movzx ecx, al */
		"89 c1",          /* mov ecx, eax */
		"48 63 c8",       /* movsxd rcx, eax */
		"48 83 e1 0f",    /* and rcx, 15 */
		"48 c1 e9 20",    /* shr rcx, 32 */
		"8d 4c 18 01",    /* lea ecx, [rax + rbx + 1] */
		"31 c9 48 89 d8", /* xor ecx, ecx; mov rax, rbx */
	};
	static const char *const bad[] = {
		"90",
		"89 c1 48 ff c1",          /* mov ecx, eax; inc rcx */
		"66 89 c1",                /* mov cx, ax */
		"48 83 e1 f0",             /* and rcx, -16 */
		"48 c1 e9 1f",             /* shr rcx, 31 */
		"0f bc c8",                /* bsf ecx, eax */
		"89 c1 48 87 ca",          /* mov ecx, eax; xchg rdx, rcx */
		"48 83 f8 00 75 02 89 c1", /* on one of two ways: mov ecx, eax */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
		if (narrow(good[i], access) < 0)
			fail_msg("%s: %s", good[i], err.text);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		if (narrow(bad[i], access) != -EBADMSG)
			fail_msg("%s was not refused", bad[i]);
	assert_int_equal(narrow("89 c1", "4a 8b 04 e9"), -EBADMSG); /* [rcx + 8 * r13] */
	/* once an index is in it, nothing else may be */
	assert_int_equal(narrow("89 c1 4d 8d 74 cd 08", "49 8b 06"), 0);
	assert_int_equal(narrow("89 c1 4d 8d 74 cd 08", "49 8b 46 08"), -EBADMSG);
}

/* Scans what was put, with a return behind it, as a block of that mode. */
static int returns(struct emit *e, uint32_t mode)
{
	struct jit_page *page = jit_page_get(&cache, 0x1000, 0x1000, mode, (struct jit_cs){0});

	assert_non_null(page);
	e8(e, 0xc3);
	(void)end(e);
	block.page = jit_ref_to(&cache, page);
	return jit_scan_block(&cache, &block, true, &found, &err);
}

/* '*' in hex: the offset of stack_delta. */
static int stack(const char *hex, uint32_t mode)
{
	const char *star;
	struct emit e;

	begin(&e);
	for (; (star = strchr(hex, '*')) != NULL; hex = star + 1) {
		put(&e, hex);
		e32(&e, (uint32_t)offsetof(struct jit_cpu, stack_delta));
	}
	put(&e, hex);
	return returns(&e, mode);
}

/* RSP moves far, then the lane of host register r is compared and its delta taken for RSP's. */
static int compared(unsigned r)
{
	struct emit e;

	begin(&e);
	e_alu_imm(&e, true, 5, R_15, STACK_SLACK + 8);
	e_mov(&e, R_14, r);
	put(&e, "49 c1 ee 2a"); /* shr r14, 42 */
	e_alu_imm(&e, false, 7, R_14, 31);
	e_jcc_to(&e, CC_NE, thunk(cache.exit_step));
	e_load(&e, R_14, (uint32_t)offsetof(struct jit_cpu, delta[31]));
	e_store(&e, (uint32_t)offsetof(struct jit_cpu, stack_delta), R_14);
	return returns(&e, MODE_DIRECT);
}

#define LOAD_R14 "65 4c 8b 34 25 * "     /* mov r14, gs:[stack_delta] */
#define PUSH_RBP "4b 89 6c 37 f8 "       /* mov [r15 + r14 - 8], rbp */
#define FAR_MOVE "49 81 ef 00 00 04 00 " /* sub r15, 256 KiB */

static void the_stack_of_a_window(void **state)
{
	static const char *const good[] = {
		"90", LOAD_R14 PUSH_RBP "4d 8d 7f f8", /* lea r15, [r15 - 8] */
		LOAD_R14 FAR_MOVE PUSH_RBP,
		LOAD_R14 PUSH_RBP "49 81 ef 00 00 01 00", /* sub r15, 64 KiB */
	};
	static const char *const bad[] = {
		FAR_MOVE,
		LOAD_R14 FAR_MOVE "43 0f 18 0c 37", /* prefetcht0 [r15 + r14] */
		LOAD_R14 FAR_MOVE "4a 89 6c 33 f8", /* mov [rbx + r14 - 8], rbp */
		"49 89 ef",                         /* mov r15, rbp */
		"49 89 ef " LOAD_R14 PUSH_RBP,
		LOAD_R14 "49 89 ef " PUSH_RBP,
		"49 81 ef 00 00 00 40 " LOAD_R14 PUSH_RBP, /* sub r15, 1 GiB */
		"65 4c 89 2c 25 *",                        /* mov gs:[stack_delta], r13 */
		LOAD_R14 "49 ff c6 65 4c 89 34 25 *",      /* inc r14 */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
		if (stack(good[i], MODE_DIRECT) < 0)
			fail_msg("%s: %s", good[i], err.text);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		if (stack(bad[i], MODE_DIRECT) != -EBADMSG)
			fail_msg("%s was not refused", bad[i]);
	assert_int_equal(stack(LOAD_R14 PUSH_RBP, 0), -EBADMSG); /* no window */
	if (compared(R_15) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(compared(R_BX), -EBADMSG);
}

static void what_it_may_not(void **state)
{
	static const char *const bad[] = {
		"0f 05",                      /* syscall */
		"0f 34",                      /* sysenter */
		"cd 80",                      /* int 0x80 */
		"cc",                         /* int3 */
		"0f 0b",                      /* ud2 */
		"f4",                         /* hlt */
		"fa",                         /* cli */
		"fd",                         /* std */
		"9d",                         /* popf */
		"9c",                         /* pushf */
		"50",                         /* push rax */
		"c2 08 00",                   /* ret 8 */
		"f3 c3",                      /* rep ret */
		"8e e8",                      /* mov gs, eax */
		"8c e8",                      /* mov eax, gs */
		"f3 48 0f ae d8",             /* wrgsbase rax */
		"f3 48 0f ae c0",             /* rdfsbase rax */
		"0f 01 ef",                   /* wrpkru */
		"41 0f ae 2e",                /* xrstor [r14] */
		"41 0f ae 0e",                /* fxrstor [r14] */
		"0f 01 d0",                   /* xgetbv */
		"0f a2",                      /* cpuid */
		"0f 31",                      /* rdtsc */
		"0f 20 c0",                   /* mov rax, cr0 */
		"e4 60",                      /* in al, 0x60 */
		"a4",                         /* movsb */
		"48 89 e0",                   /* mov rax, rsp */
		"48 83 ec 08",                /* sub rsp, 8 */
		"8b 07",                      /* mov eax, [rdi] */
		"41 8b 46 08",                /* mov eax, [r14 + 8] */
		"41 8b 04 0e",                /* mov eax, [r14 + rcx] */
		"8b 05 00 00 00 00",          /* mov eax, [rip] */
		"64 8b 04 25 28 00 00 00",    /* mov eax, fs:0x28 */
		"65 48 89 04 25 00 00 00 00", /* mov gs:[the TLB], rax */
		"65 48 8b 04 25 ff ff ff 7f", /* mov rax, gs:[beyond] */
		"65 41 89 45 00",             /* mov gs:[r13], eax */
		"65 8b 00",                   /* mov eax, gs:[rax] */
		"41 ff e6",                   /* jmp r14 */
		"41 ff d6",                   /* call r14 */
		"e8 00 00 00 00",             /* call the next instruction */
		"4c 89 f6 90 88 26",          /* the copy of r14 is not used at once */
		"49 83 c6 04 41 8b 06",       /* add r14, 4; mov eax, [r14] */
		"48 cf",                      /* iretq */
		"06",                         /* no instruction */
		"c4 e2 79 90 04 08",          /* a gather */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		if (verdict(bad[i], true) != -EBADMSG)
			fail_msg("%s was not refused", bad[i]);
}

static void an_access_needs_its_check_on_every_path(void **state)
{
	struct emit e;
	uint8_t *over;

	assert_int_equal(verdict("41 8b 06", false), -EBADMSG);
	assert_non_null(strstr(err.text, "not checked"));

	begin(&e); /* jump over the check */
	over = e_jcc(&e, CC_E);
	put_check(&e);
	e_patch(over, e.p);
	put(&e, "41 8b 06");
	assert_int_equal(end(&e), -EBADMSG);

	begin(&e); /* a slow path checks as well */
	e_call_to(&e, thunk(cache.miss));
	put(&e, "41 8b 06");
	assert_int_equal(end(&e), 0);

	begin(&e); /* another thunk does not */
	e_call_to(&e, thunk(cache.seg_addr));
	put(&e, "41 8b 06");
	assert_int_equal(end(&e), -EBADMSG);
}

static void jumps_stay_within(void **state)
{
	struct emit e;

	begin(&e); /* into the middle of an instruction */
	put(&e, "eb 01 b8 90 90 90 90");
	assert_int_equal(end(&e), -EBADMSG);

	begin(&e); /* somewhere else in hot code */
	e_jmp_to(&e, cache.hot_start + 4096);
	assert_int_equal(end(&e), -EBADMSG);

	begin(&e); /* what cannot be reached is read all the same */
	e_jmp_to(&e, thunk(cache.exit_lookup));
	put(&e, "0f 05");
	assert_int_equal(end(&e), -EBADMSG);

	begin(&e);
	e_op_base(&e, true, false, 0xff, 4, R_13,
		  offsetof(struct jit_cpu, jump) + offsetof(struct jit_jump, code));
	assert_int_equal(end(&e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_access_through_the_window, setup, teardown),
		cmocka_unit_test_setup_teardown(an_access_with_an_index, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_loop_holds, setup, teardown),
		cmocka_unit_test_setup_teardown(what_slots_keep, setup, teardown),
		cmocka_unit_test_setup_teardown(a_narrow_index_needs_no_check, setup, teardown),
		cmocka_unit_test_setup_teardown(the_stack_of_a_window, setup, teardown),
		cmocka_unit_test_setup_teardown(what_translated_code_may_do, setup, teardown),
		cmocka_unit_test_setup_teardown(what_it_may_not, setup, teardown),
		cmocka_unit_test_setup_teardown(an_access_needs_its_check_on_every_path, setup,
						teardown),
		cmocka_unit_test_setup_teardown(jumps_stay_within, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
