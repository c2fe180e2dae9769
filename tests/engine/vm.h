/* vm: a small machine directly on the engine's interface, for tests: RAM, a bus that
 * records, no chipset. A guest ends its run by a byte written to a port.
 *
 * Single-threaded; the engine may have threads of its own. */
#pragma once

#include "base/fake_clock.h"
#include "cpu/engine.h"

#define VM_STOP_PORT   0xf0 /* any write ends the run */
#define VM_EXIT_PORT   0xf4 /* likewise: the debug exit of tests/guest */
#define VM_SERIAL_PORT 0x3f8
#define VM_RECORD_PORT 0x500       /* 0x100 ports that record their traffic */
#define VM_RECORD_MMIO 0xd0000000u /* a page likewise */

struct vm_access {
	uint8_t space, write, size;
	uint64_t addr, value;
};

#define VM_LOG_MAX 64

struct vm {
	const struct engine *engine;
	struct guest_mem *mem;
	struct bus *bus;
	struct fake_clock clock;
	struct cpuid_table cpuid;
	uint64_t rom_bytes; /* set before vm_init: a ROM below 4 GiB */
	bool windows; /* JIT: set before vm_init, user code has a window from its first entry */
	struct engine_env env;
	struct engine_vm *engine_vm;
	struct vcpu *vcpu;
	struct lapic_port lapic;

	struct bus_region stop, exit, serial, ports, mmio;
	struct vm_access log[VM_LOG_MAX];
	unsigned logged;
	bool stopped;
	uint32_t exit_value; /* what was written to a stop port */
	char text[16384];    /* the serial port's output */
	unsigned text_len;
};

/* Why a run ended. */
enum vm_end { VM_STOPPED, VM_HALTED, VM_SHUTDOWN, VM_TIMEOUT, VM_FAILED };

/* vm is zeroed memory; vm_done takes half-built ones. */
WARN_UNUSED int vm_init(struct vm *vm, const struct engine *engine, uint64_t ram_bytes,
			struct err *e);
void vm_done(struct vm *vm);

/* Host address of guest RAM; the span must be RAM. */
void *vm_ram(struct vm *vm, gpa_t gpa, uint64_t len);

/* Loads start, runs to the end, stores the state then. Forgets earlier traffic.
 * timeout_s 0: for ever. */
enum vm_end vm_run(struct vm *vm, const struct x86_state *start, struct x86_state *end,
		   unsigned timeout_s, struct err *e);

/* The engine of a name that this build and host have, or NULL. */
const struct engine *vm_engine(const char *name);

/* What the probe says of this host for an engine, whose line it prints unless it is fit; slow is
 * fit. ODD: KVM opens and runs guests, but emulates their ring 0: what differs there must be
 * named (oddity.h). HOLON_FORCE=1 in the environment makes every host fit. */
enum vm_host { VM_HOST_FIT, VM_HOST_ODD, VM_HOST_UNFIT };
enum vm_host vm_host(const struct engine *engine);
/* For a test's main: the engine that its only argument names. Ends the test as skipped if there is
 * none, or if the host is worse than least for it. */
const struct engine *vm_engine_of(int argc, char **argv, enum vm_host least);
