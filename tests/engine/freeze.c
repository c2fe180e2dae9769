/* freeze: a guest whose time stood still finds its TSC where it was. */
#include <stdio.h>
#include <stdlib.h>

#include "longmode.h"

#define STILL UINT64_C(100000000) /* TSC ticks that the guest must not see */

static uint64_t guest_tsc(struct vm *vm)
{
	static struct x86_state s;
	struct err e;

	if (vm->engine->store(vm->vcpu, &s, &e) < 0) {
		printf("store: %s\n", e.text);
		exit(1);
	}
	return s.tsc;
}

static void spin(void)
{
	uint64_t end = __builtin_ia32_rdtsc() + STILL;

	while (__builtin_ia32_rdtsc() < end)
		__builtin_ia32_pause();
}

/* Where a guest's TSC can only be the host's (PVM), loading another value shows it. */
static bool can_set_tsc(struct vm *vm, struct x86_state *s)
{
	struct err e;

	s->tsc = UINT64_C(1000000000000);
	return vm->engine->load(vm->vcpu, s, &e) == 0 && guest_tsc(vm) - s->tsc < 100 * STILL;
}

int main(int argc, char **argv)
{
	const struct engine *engine = vm_engine_of(argc, argv, VM_HOST_ODD);
	uint64_t host, guest;
	struct longmode lm;
	struct err e = {0};
	struct vm vm;

	if (vm_init(&vm, engine, MIB(8), &e) < 0) {
		printf("%s\n", e.text);
		return 1;
	}
	longmode_init(&lm, &vm);
	if (!can_set_tsc(&vm, &lm.base)) {
		printf("this host gives guests its own TSC\n");
		return 77;
	}
	host = __builtin_ia32_rdtsc();
	guest = guest_tsc(&vm);
	engine->freeze(vm.vcpu, true);
	spin();
	engine->freeze(vm.vcpu, false);
	guest = guest_tsc(&vm) - guest;
	host = __builtin_ia32_rdtsc() - host;
	vm_done(&vm);
	if (guest && guest + STILL <= host)
		return 0;
	printf("FAIL: %lu ticks passed in the guest, %lu on the host, %lu of them frozen\n", guest,
	       host, STILL);
	return 1;
}
