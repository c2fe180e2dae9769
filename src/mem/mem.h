/* mem: guest RAM, and the ROM that firmware is in. One memfd, mapped once; guest-physical space
 * has RAM in up to two regions: [0, min(size, 2816 MiB)) and, for the rest, [4 GiB, ...). Between
 * 2816 MiB and 4 GiB lie ECAM, PCI MMIO, IOAPIC and LAPIC (chipset/layout.h), and a ROM, if there
 * is one, ends at 4 GiB.
 *
 * Guest-physical addresses (gpa) come from guests: every access is checked here, and
 * nothing outside RAM is ever touched. Host virtual addresses (hva) of RAM stay valid
 * until mem_free. The layout is fixed after mem_new. Any thread may read and write;
 * racing guest accesses are the guest's business. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

typedef uint64_t gpa_t;

#define MEM_LOW_MAX   MIB(2816) /* where firmware for a Q35 puts ECAM */
#define MEM_HIGH_BASE GIB(4)

struct mem_region {
	gpa_t gpa;
	uint64_t size;      /* bytes, a multiple of 4096 */
	uint8_t *hva;       /* host mapping of gpa */
	uint64_t fd_offset; /* of gpa in the memfd */
};

struct guest_mem;

/* ram_bytes: rounded up to 4096; at least 1 MiB. */
WARN_UNUSED int mem_new(struct guest_mem **out, uint64_t ram_bytes, struct err *e);
/* Likewise, with a ROM of that many bytes below 4 GiB: a multiple of 4096, at most MEM_ROM_MAX. */
#define MEM_ROM_MAX MIB(16)
WARN_UNUSED int mem_new_with_rom(struct guest_mem **out, uint64_t ram_bytes, uint64_t rom_bytes,
				 struct err *e);
void mem_free(struct guest_mem *m); /* accepts NULL */

uint64_t mem_size(const struct guest_mem *m);
int mem_fd(const struct guest_mem *m);
unsigned mem_regions(const struct guest_mem *m, const struct mem_region **out);

/* The whole span [gpa, gpa + len) as host memory, or NULL if any byte of it is neither RAM nor ROM.
 * len may be 0 (any gpa in them). */
void *mem_span(const struct guest_mem *m, gpa_t gpa, uint64_t len);

/* Likewise, but of RAM alone: for a vCPU's writes. */
void *mem_ram(const struct guest_mem *m, gpa_t gpa, uint64_t len);

/* The ROM, which mem_regions does not have; NULL: there is none. Whoever makes the machine fills it
 * through hva at each start: what a device is told to write there it writes. */
const struct mem_region *mem_rom(const struct guest_mem *m);

gpa_t mem_gpa(const struct guest_mem *m, const void *hva); /* of what mem_span gave */

/* -EFAULT when any byte of the span is not RAM: then nothing was copied. mem_write tells the
 * watch. */
WARN_UNUSED int mem_read(const struct guest_mem *m, gpa_t gpa, void *to, uint64_t len);
WARN_UNUSED int mem_write(struct guest_mem *m, gpa_t gpa, const void *from, uint64_t len);

/* Gives the pages within [gpa, gpa + len) back to the host: they read as zeros from now on.
 * Parts of pages at either end are left alone. -EFAULT as above; another negative errno when the
 * host refuses. Tells the watch. */
WARN_UNUSED int mem_discard(struct guest_mem *m, gpa_t gpa, uint64_t len);

/* For a buffer that large transfers go through: has the host keep it in huge pages, so that it is
 * one piece to the host's disk, not one per 4 KiB. A part that is mostly unused is left alone, and
 * what the host cannot do is not asked for for ever. hva: within one region. Any thread; cheap
 * where it is done. */
void mem_want_huge(struct guest_mem *m, const void *hva, uint64_t len);

/* Makes one huge page of the 2 MiB around gpa, gaps included, which read as zeros: what is about to
 * be used costs the host a tenth of what 512 pages do. false: it cannot (an edge of RAM, an old
 * kernel, no huge page free); when that goes on, it is asked no more. Any thread. */
bool mem_make_huge(struct guest_mem *m, gpa_t gpa);

/* --- who derives something from the bytes of RAM (translated code) --- */

/* Whoever changes RAM other than by running guest instructions, a device by DMA above all, calls
 * this after the bytes are there and before the guest is told of them. hva: within one region.
 * Cheap: a look at one bit per page. */
void mem_written(struct guest_mem *m, const void *hva, uint64_t len);

/* written: someone changed bytes of the page at gpa, which was marked and is no longer. Any
 * thread, with mem's lock held: it only takes note. */
struct mem_watch {
	void (*written)(struct mem_watch *w, gpa_t gpa);
};
/* One watch per memory; NULL: nobody watches. After it returns the old one is not called. */
void mem_watch(struct guest_mem *m, struct mem_watch *w);
/* The next write to the page at gpa, which is RAM or ROM, is told. Mark before reading its bytes:
 * then they are new, or written comes. */
void mem_mark(struct guest_mem *m, gpa_t gpa);
void mem_unmark(struct guest_mem *m, gpa_t gpa);
