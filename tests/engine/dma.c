/* dma: a device writes over code that the guest has run, and the guest runs what stands there
 * now: on the vCPU's thread, on another one, across a page boundary, and by giving the page back.
 *
 * The guest's program: EBX = 0; loop: call F; EAX must be EBX; EBX++; tell the device EBX and
 * wait until it has made F return that. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "longmode.h"

#define MAIN     0x100000u
#define FUNCTION 0x101000u /* a page, or the end of one and the start of the next */
#define MAILBOX  0x104000u /* [0] what the guest wants F to return, [4] what F returns */
#define ROUNDS   2000u
#define KICK     0x600  /* port: the guest wants something */
#define LAST     0x1ffu /* in the discarded page's neighbour: what F returns then */

struct dma {
	struct vm vm;
	struct bus_region kick;
	uint32_t offset; /* of F in its page */
	void (*rewrite)(struct dma *d, uint32_t value);
	atomic_bool done;
};

static void put32(uint8_t *at, uint32_t v)
{
	memcpy(at, &v, 4);
}

/* mov $value, %eax; ret */
static void write_function(struct dma *d, uint32_t value)
{
	uint8_t code[6] = {0xb8, 0, 0, 0, 0, 0xc3};

	put32(code + 1, value);
	if (mem_write(d->vm.mem, FUNCTION + d->offset, code, sizeof code) < 0)
		abort();
}

/* Only the bytes on the second page. */
static void write_second_page(struct dma *d, uint32_t value)
{
	uint8_t bytes[4];

	put32(bytes, value);
	if (mem_write(d->vm.mem, FUNCTION + d->offset + 1, bytes, 4) < 0)
		abort();
}

/* Zeros (add %al, (%rax)) up to the next page, where MOV and RET stand. */
static void discard(struct dma *d, uint32_t value)
{
	if (value == LAST) {
		if (mem_discard(d->vm.mem, FUNCTION, 4096) < 0)
			abort();
	} else {
		write_function(d, value);
	}
}

static void kicked(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct dma *d = container_of(r, struct dma, kick);

	d->rewrite(d, (uint32_t)value);
	put32((uint8_t *)vm_ram(&d->vm, MAILBOX, 8) + 4, (uint32_t)value);
}

static uint64_t no_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return 0;
}

static void *device_thread(void *arg)
{
	struct dma *d = arg;
	_Atomic uint32_t *box = vm_ram(&d->vm, MAILBOX, 8);
	uint32_t seen = 0;

	while (!atomic_load(&d->done)) {
		uint32_t want = atomic_load(&box[0]);

		if (want == seen)
			continue;
		seen = want;
		d->rewrite(d, want);
		atomic_store(&box[1], want);
	}
	return NULL;
}

static void put_program(struct dma *d, bool port, uint32_t rounds)
{
	static const uint8_t code[] = {
		0x31, 0xdb, /*    xor %ebx, %ebx */
		0xb8, 0,
		0x40, 0x10,
		0x80,       /*    mov $MAILBOX, %eax: readable */
		0x48, 0x98, /*    cltq */
		0xe8, 0,
		0,    0,
		0,          /* 9: call F */
		0x39, 0xd8, /*    cmp %ebx, %eax */
		0x75, 0x26, /*    jne bad */
		0xff, 0xc3, /*    inc %ebx */
		0x89, 0xd8, /*    mov %ebx, %eax */
		0x48, 0xc7,
		0xc1, 0,
		0x40, 0x10, /*    mov $MAILBOX, %rcx */
		0x80, 0x89,
		0x01, /*    mov %eax, (%rcx) */
		0x90, 0x90,
		0x90, 0x90,
		0x90, /*31: mov $KICK, %dx; out, in the port's case */
		0x3b, 0x41,
		0x04,       /*36: cmp 4(%rcx), %eax */
		0xf3, 0x90, /*    pause */
		0x75, 0xf9, /*    jne 36 */
		0x48, 0x89,
		0xc8, /*    mov %rcx, %rax: F may write there */
		0x81, 0xfb,
		0,    0,
		0,    0,            /*46: cmp $rounds, %ebx */
		0x75, 0xd3,         /*    jne 9 */
		0x31, 0xc0,         /*    xor %eax, %eax */
		0xe6, VM_STOP_PORT, /*bad: out %al, $stop */
	};
	uint8_t *at = vm_ram(&d->vm, MAIN, sizeof code);

	memcpy(at, code, sizeof code);
	put32(at + 10, FUNCTION + d->offset - (MAIN + 14));
	put32(at + 48, rounds);
	if (port)
		memcpy(at + 31, "\x66\xba\x00\x06\xef", 5);
}

static bool run(const struct engine *engine, const char *name, bool thread, uint32_t offset,
		void (*rewrite)(struct dma *d, uint32_t value), uint32_t rounds)
{
	struct dma *d = calloc(1, sizeof *d);
	static struct x86_state start, stop;
	struct longmode lm;
	struct err e = {0};
	enum vm_end how = VM_FAILED;
	pthread_t device;
	bool ok;

	if (!d || vm_init(&d->vm, engine, MIB(8), &e) < 0)
		return false;
	d->kick = (struct bus_region){"kick", 1, 4, no_read, kicked};
	d->offset = offset;
	d->rewrite = rewrite;
	longmode_init(&lm, &d->vm);
	put_program(d, !thread, rounds);
	write_function(d, 0);
	memcpy(vm_ram(&d->vm, FUNCTION + 4096, 8), "\xb8\xff\x01\x00\x00\xc3", 6);
	if (offset > 4090)
		write_function(d, 0);
	start = lm.base;
	start.rip = LM_KERNEL + MAIN;
	if (bus_map(d->vm.bus, BUS_PIO, KICK, 4, &d->kick, &e) == 0 &&
	    (!thread || pthread_create(&device, NULL, device_thread, d) == 0))
		how = vm_run(&d->vm, &start, &stop, 20, &e);
	atomic_store(&d->done, true);
	if (thread)
		pthread_join(device, NULL);
	ok = how == VM_STOPPED && d->vm.exit_value == 0 && stop.gpr[X86_RBX] == rounds;
	if (!ok)
		printf("FAIL %s: end %d, round %lu, F returned %lu %s\n", name, how,
		       stop.gpr[X86_RBX], stop.gpr[X86_RAX], e.text);
	vm_done(&d->vm);
	free(d);
	return ok;
}

int main(int argc, char **argv)
{
	const struct engine *engine = vm_engine_of(argc, argv, VM_HOST_ODD);
	bool ok = true;

	ok &= run(engine, "written on the vCPU's thread", false, 0, write_function, ROUNDS);
	ok &= run(engine, "written by another thread", true, 0, write_function, ROUNDS);
	ok &= run(engine, "an instruction across pages", false, 4095, write_second_page, ROUNDS);
	ok &= run(engine, "the same by another thread", true, 4095, write_second_page, ROUNDS);
	ok &= run(engine, "the page is given back", false, 0, discard, LAST + 1);
	return ok ? 0 : 1;
}
