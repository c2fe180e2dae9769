/* mem: guest RAM. One memfd, mapped once; guest-physical space has it in up to two
 * regions: [0, min(size, 3 GiB)) and, for the rest, [4 GiB, ...). Between 3 and 4 GiB
 * lie PCI MMIO, ECAM, IOAPIC and LAPIC.
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

#define MEM_LOW_MAX   GIB(3)
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
void mem_free(struct guest_mem *m); /* accepts NULL */

uint64_t mem_size(const struct guest_mem *m);
int mem_fd(const struct guest_mem *m);
unsigned mem_regions(const struct guest_mem *m, const struct mem_region **out);

/* The whole span [gpa, gpa + len) as host memory, or NULL if any byte of it is not RAM.
 * len may be 0 (any gpa in RAM). */
void *mem_span(const struct guest_mem *m, gpa_t gpa, uint64_t len);

/* -EFAULT when any byte of the span is not RAM: then nothing was copied. */
WARN_UNUSED int mem_read(const struct guest_mem *m, gpa_t gpa, void *to, uint64_t len);
WARN_UNUSED int mem_write(const struct guest_mem *m, gpa_t gpa, const void *from, uint64_t len);
