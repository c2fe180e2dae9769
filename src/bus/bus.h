/* bus: routes port and MMIO accesses of vCPUs to devices. No lock is held while a
 * device runs, and look-ups take none. Mapping may happen while vCPUs run (a guest moves
 * a BAR); an access that began before bus_unmap may still be inside the region after it,
 * so a region's memory lives until the vCPUs stand still.
 *
 * A region states the widths it takes (min_size..max_size, powers of two up to 8);
 * the bus splits or widens other accesses, so devices need no width code. A wide or
 * misaligned access arrives as several, lowest address first. A narrower one reads the
 * word around it; a narrower write reads that word, changes its bytes, and writes it.
 * Unclaimed reads return all ones, unclaimed writes vanish, byte for byte. Region
 * callbacks run on whichever thread made the access, several at once: a device locks
 * for itself. */
#pragma once

#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

enum bus_space { BUS_PIO, BUS_MMIO, BUS_SPACES };

/* A write at that offset of a region does nothing but add 1 to an eventfd. An engine may have
 * the kernel do so, past the bus (KVM's ioeventfd). */
struct bus_event {
	uint64_t offset;
	int fd;
};

struct bus_region {
	const char *name;
	uint8_t min_size, max_size; /* bytes; 0 means 1 and 8 */
	/* offset is from the region's base and a multiple of size; size is within
	 * min_size..max_size. read may return rubbish above size. NULL: reads as ones,
	 * writes vanish. */
	uint64_t (*read)(struct bus_region *r, uint64_t offset, unsigned size);
	void (*write)(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size);
	const struct bus_event *events; /* [event_count], fixed while it is mapped */
	unsigned event_count;
};

struct bus;

WARN_UNUSED int bus_new(struct bus **out, struct err *e);
void bus_free(struct bus *b); /* accepts NULL; regions belong to their devices */

/* -EEXIST when [base, base + len) overlaps another region of the space; -EINVAL for a
 * range that is empty, wraps, or is no multiple of min_size; -ENOSPC after 1024 of them. */
WARN_UNUSED int bus_map(struct bus *b, enum bus_space s, uint64_t base, uint64_t len,
			struct bus_region *r, struct err *e);
void bus_unmap(struct bus *b, struct bus_region *r); /* all its places */

/* size: 1, 2, 4 or 8 bytes, any alignment. */
uint64_t bus_read(struct bus *b, enum bus_space s, uint64_t addr, unsigned size);
void bus_write(struct bus *b, enum bus_space s, uint64_t addr, uint64_t value, unsigned size);

/* Is told where regions with events come and go, with the bus's lock held: it maps and unmaps
 * nothing. */
struct bus_watcher {
	void (*mapped)(struct bus_watcher *w, enum bus_space s, uint64_t base,
		       const struct bus_region *r);
	void (*unmapped)(struct bus_watcher *w, enum bus_space s, uint64_t base,
			 const struct bus_region *r);
};
/* One at a time; what is mapped already is told at once. NULL: nobody watches; when it returns
 * the watcher before is not called any longer. */
void bus_watch(struct bus *b, struct bus_watcher *w);
