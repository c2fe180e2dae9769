/* small_guest: a VM of 1 MiB on the JIT, with no devices, that can be put into any mode: page
 * tables for each kind of paging, descriptors, and handlers for every exception. An access beside
 * RAM crashes the process (mem.c has guards). The vCPU runs on the caller's thread. */
#pragma once

#include "base/fake_clock.h"
#include "cpu/jit/core.h"

enum guest_mode {
	GUEST_64,
	GUEST_64_USER,
	GUEST_COMPAT, /* 32-bit code under 64-bit mode, ring 3 */
	GUEST_32,     /* no paging */
	GUEST_32_PAGED,
	GUEST_PAE,
	GUEST_32_USER, /* PAE */
	GUEST_16,      /* protected mode, no paging */
	GUEST_REAL,
	GUEST_MODES
};

#define GUEST_RAM  MIB(1)
#define GUEST_CODE 0x40000u /* the page of code; the page behind it: enum guest_next */
#define GUEST_DATA 0x80000u
#define GUEST_AWAY 0x60000u /* where the second page of code may lie instead */

/* Where the page after GUEST_CODE leads, under paging. */
enum guest_next { NEXT_THERE, NEXT_ABSENT, NEXT_ELSEWHERE, NEXT_NO_RAM };

struct small_guest {
	struct guest_mem *mem;
	struct bus *bus;
	struct fake_clock clock;
	struct cpuid_table cpuid;
	struct engine_env env;
	struct engine_vm *vm;
	struct vcpu *vcpu;
	uint8_t *ram;
};

WARN_UNUSED int small_guest_init(struct small_guest *g, struct err *e);
/* RAM as it is at the start: tables, handlers, zeros elsewhere. */
void small_guest_fill(struct small_guest *g, enum guest_next next);
/* A start state at GUEST_CODE with zeroed registers. */
void small_guest_state(struct x86_state *s, enum guest_mode m);
