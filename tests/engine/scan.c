/* scan: translates every instruction form that Zydis knows, alone and in random streams, in each
 * mode and at all offsets, and reads the host code back (cpu/jit/scan_slow.h). Nothing runs.
 * usage: scan [--streams N] [--seed N] */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../fuzz/small_guest.h"
#include "cpu/jit/scan_slow.h"
#include "cpu/jit/window.h"
#include "make.h"

static struct small_guest guest;
static struct rng rng;
static uint64_t blocks, insns;

static void fail(const char *what, const struct user_case *c, const struct err *e)
{
	fprintf(stderr, "scan: %s: %s\n", what, e->text);
	for (unsigned n = 0; c && n < c->len; n++)
		fprintf(stderr, "%02x ", c->bytes[n]);
	fprintf(stderr, "\n");
	exit(1);
}

static int translate(uint64_t at, bool step, struct scan *found, struct err *e)
{
	struct jit_cpu *c = to_jit(guest.vcpu);
	int r = jit_scan_at(c, at, step, found, e);

	if (r != -EFAULT)
		return r;
	jit_cache_flush(&c->vm->cache); /* full: all these addresses lie in RAM */
	return jit_scan_at(c, at, step, found, e);
}

static void try(const struct user_case *c, enum guest_mode m)
{
	unsigned off = rng_odds(&rng, 2) ? 4096 - rng_below(&rng, 16) : rng_below(&rng, 4096);
	uint64_t at = GUEST_CODE + off;
	struct scan found;
	struct err e;

	memcpy(guest.ram + at, c->bytes, c->len);
	for (unsigned step = 0; step < 2; step++) {
		if (translate(at, step, &found, &e) < 0) {
			fprintf(stderr, "mode %u, %s\n", m, step ? "single step" : "block");
			fail("found", c, &e);
		}
		blocks++;
		insns += found.insns;
	}
	if (rng_odds(&rng, 16) && jit_scan_copies(to_jit(guest.vcpu), at, &e) < 0) {
		fprintf(stderr, "mode %u, a copy\n", m);
		fail("found", c, &e);
	}
}

static void load(enum guest_mode m, unsigned variant)
{
	static struct x86_state s;
	struct err e;

	small_guest_fill(&guest, NEXT_THERE);
	small_guest_state(&s, m);
	s.cr4 |= CR4_OSXSAVE | CR4_SMAP | CR4_FSGSBASE;
	s.xcr0 = guest.cpuid.xcr0_mask & 0xe7;
	if (variant == 1) { /* segments to be checked, another stack width */
		s.seg[X86_DS].base = 16;
		s.seg[X86_SS].attr ^= SEG_DB;
		s.rflags |= RFLAGS_AC;
	} else if (variant == 2) {
		s.cr0 |= CR0_TS;
		s.cr4 &= ~(uint64_t)CR4_OSXSAVE;
	}
	to_jit(guest.vcpu)->p->win->at_once = variant == 3; /* 64-bit user code: through a window */
	if (engine_jit.load(guest.vcpu, &s, &e) < 0)
		fail("load", NULL, &e);
}

static void all_forms(const struct forms *fs, enum guest_mode m)
{
	static struct user_case c;

	for (uint32_t f = 0; f < fs->n; f++)
		if (make_case(&c, fs, &f, 1, CODE_BASE, &rng))
			try(&c, m);
}

static void streams(const struct forms *fs, enum guest_mode m, unsigned count)
{
	static struct user_case c;
	uint32_t form[8];

	while (count--) {
		unsigned n = 1 + rng_below(&rng, 8);

		for (unsigned i = 0; i < n; i++)
			form[i] = rng_below(&rng, fs->n);
		if (make_case(&c, fs, form, n, CODE_BASE, &rng))
			try(&c, m);
	}
}

int main(int argc, char **argv)
{
	unsigned count = 1000;
	struct forms fs[2];
	struct err e;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--streams"))
			count = (unsigned)strtoul(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seed"))
			rng.x = strtoull(argv[i + 1], NULL, 0);
	}
	if (small_guest_init(&guest, &e) < 0)
		fail("set-up", NULL, &e);
	if (!forms_find(&fs[0], false) || !forms_find(&fs[1], true))
		return 1;
	for (enum guest_mode m = 0; m < GUEST_MODES; m++) {
		const struct forms *f = &fs[m > GUEST_64_USER];

		for (unsigned variant = 0; variant < (m == GUEST_64_USER ? 4 : 3); variant++) {
			load(m, variant);
			all_forms(f, m);
			streams(f, m, count);
		}
	}
	printf("%u + %u forms; %llu blocks of %llu host instructions; %llu copies\n", fs[0].n,
	       fs[1].n, (unsigned long long)blocks, (unsigned long long)insns,
	       (unsigned long long)to_jit(guest.vcpu)->vm->cache.templates.copied);
	if (!to_jit(guest.vcpu)->vm->cache.templates.copied)
		fail("no block was copied", NULL, &(struct err){0});
	forms_done(&fs[0]);
	forms_done(&fs[1]);
	engine_jit.vcpu_free(guest.vcpu);
	engine_jit.vm_free(guest.vm);
	bus_free(guest.bus);
	mem_free(guest.mem);
	return 0;
}
