/* gs: the GS base, by which translated code reaches its vCPU. The C library leaves it alone. */
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/jit/gs.h"

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE 2
#endif
#define SET_GS 0x1001 /* ARCH_SET_GS, ARCH_GET_GS of arch_prctl(2) */
#define GET_GS 0x1004

uint64_t jit_gs_get(void)
{
	uint64_t v = 0;

	if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)
		__asm__ volatile("rdgsbase %0" : "=r"(v));
	else
		syscall(SYS_arch_prctl, GET_GS, &v);
	return v;
}

void jit_gs_set(uint64_t v)
{
	if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)
		__asm__ volatile("wrgsbase %0" ::"r"(v));
	else
		syscall(SYS_arch_prctl, SET_GS, v);
}
