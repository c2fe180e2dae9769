/* pkru: PKRU as a component of XSAVE's area (SDM volume 1, 13.5.7), what it allows included. */
#include "pkeys.h"

#define CR4_OSXSAVE 0x40000ull
#define PKRU        9

static uint8_t area[4096] __attribute__((aligned(64)));

static void write_(uint64_t gva)
{
	write64(gva, 1);
}

enum xsave { XSAVE, XSAVEOPT, XSAVEC, XSAVES };

static void xsave(enum xsave form)
{
	uint32_t lo = 1u << PKRU | 1, hi = 0;

	for (unsigned i = 0; i < sizeof area; i++)
		area[i] = 0;
	switch (form) {
	case XSAVE: __asm__ volatile("xsave64 %0" : "+m"(area) : "a"(lo), "d"(hi)); break;
	case XSAVEOPT: __asm__ volatile("xsaveopt64 %0" : "+m"(area) : "a"(lo), "d"(hi)); break;
	case XSAVEC: __asm__ volatile("xsavec64 %0" : "+m"(area) : "a"(lo), "d"(hi)); break;
	case XSAVES: __asm__ volatile("xsaves64 %0" : "+m"(area) : "a"(lo), "d"(hi)); break;
	}
}

static void xrstor(bool supervisor)
{
	uint32_t lo = 1u << PKRU, hi = 0;

	if (supervisor)
		__asm__ volatile("xrstors64 %0" ::"m"(area), "a"(lo), "d"(hi) : "memory");
	else
		__asm__ volatile("xrstor64 %0" ::"m"(area), "a"(lo), "d"(hi) : "memory");
}

static uint64_t in_use(void)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(1));
	return lo;
}

static void state(void)
{
	static const char *const name[] = {"XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES"};
	uint64_t *bv = (uint64_t *)(area + 512), gva = map(0, 0, P | W | U | KEY(1));
	uint32_t r[4], standard;

	begin("CPUID leaf 0xd");
	wr_cr4(rd_cr4() | CR4_OSXSAVE);
	cpuid(0xd, PKRU, r);
	standard = r[1];
	check_eq("size", r[0], 8);
	check_eq("user state", r[2] & 1, 0);
	__asm__ volatile("xsetbv" ::"a"(1u << PKRU | 3), "c"(0), "d"(0));
	cpuid(0xd, 0, r);
	check_eq("size with it", r[1], standard + 8);
	for (enum xsave form = XSAVE; form <= XSAVES; form++) {
		uint32_t at = form >= XSAVEC ? 576 : standard;

		begin(name[form]);
		wrpkru(AD(1) | AD(15));
		check_eq("in use", in_use() >> PKRU & 1, 1);
		xsave(form);
		check_eq("XSTATE_BV", bv[0] >> PKRU & 1, 1);
		check_eq("value", *(uint64_t *)(area + at), AD(1) | AD(15));
		wrpkru(0);
		check_eq("open", attempt(write_, gva), 0);
		xrstor(form == XSAVES);
		check_eq("PKRU", rdpkru(), AD(1) | AD(15));
		check_trap("closed by XRSTOR", attempt(write_, gva), PF, PF_P | PF_W | PF_PK);
		bv[0] &= ~(1ull << PKRU);
		xrstor(form == XSAVES);
		check_eq("initial PKRU", rdpkru(), 0);
		check_eq("in use", in_use() >> PKRU & 1, 0);
		check_eq("open again", attempt(write_, gva), 0);
		xsave(form);
		check_eq("initial XSTATE_BV", bv[0] >> PKRU & 1, 0);
	}
}

void run_checks(void)
{
	uint32_t r[4], forms[4];

	cpuid(7, 0, r);
	cpuid(0xd, 1, forms);
	if (!(r[2] >> 3 & 1) || (forms[0] & 0xf) != 0xf) {
		print("no protection keys, or not all forms of XSAVE, here\n");
		return;
	}
	wr_cr4(rd_cr4() | CR4_PKE);
	state();
}
