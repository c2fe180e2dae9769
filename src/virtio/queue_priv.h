/* queue_priv: what queue.c and the two ring formats (split.c, packed.c) share.
 *
 * The rings' host addresses are looked up once, when the queue starts, and stay valid (mem.h).
 * What lies there is read with relaxed or acquiring atomic loads, each value once, so that
 * neither the compiler nor the guest can change it after it was checked. */
#pragma once

#include <stdatomic.h>

#include "virtio/queue.h"

#define DESC_NEXT     1u
#define DESC_WRITE    2u
#define DESC_INDIRECT 4u
#define DESC_LEN      16u /* bytes, in both formats */

struct desc { /* a descriptor as copied out */
	gpa_t gpa;
	uint32_t len;
	uint16_t flags, next, id; /* next: split; id: packed */
};

struct virtq {
	struct guest_mem *mem;
	unsigned index;
	uint16_t size_max;
	void (*irq)(void *ctx, unsigned index);
	void *irq_ctx;

	struct virtq_setup setup;
	/* From start to stop: */
	bool running, packed, event_idx, indirect;
	uint16_t size;
	void *desc, *driver, *device; /* host addresses of the three areas */
	bool kicks_off;
	uint16_t in_flight; /* chains (split) or entries (packed) popped and not pushed */

	/* Positions, which a pause keeps. avail: the next to pop; used: the next to fill. Split:
	 * running freely; packed: places in the ring, and the wrap counters (2.8.1). */
	uint16_t avail, used;
	bool avail_wrap, used_wrap;

	uint16_t avail_seen;  /* split: the driver's index when we last looked */
	uint16_t unpublished; /* chains (split) or entries (packed) pushed since the publish */
	/* packed: the first of them is shown at last, with these flags. */
	uint16_t first_at, first_flags;
};

/* A ring area of len bytes at gpa, or NULL when it is not all in RAM, or not aligned. */
void *virtq_area(const struct virtq *q, gpa_t gpa, uint64_t len, uint64_t align);
/* The two words of descriptor i, each read once; an indirect table may be at any address. */
static inline void virtq_load_words(const void *table, unsigned i, uint64_t word[2])
{
	const volatile struct {
		uint64_t word[2];
	} __attribute__((packed)) *from = table;

	word[0] = from[i].word[0];
	word[1] = from[i].word[1];
}
/* Adds what d describes to c. -EBADMSG: not in RAM, too many pieces, or out of order. */
WARN_UNUSED int virtq_add_piece(struct virtq *q, struct virtq_chain *c, const struct desc *d);
/* The indirect table that d points to: its host address and number of entries; -EBADMSG. */
WARN_UNUSED int virtq_indirect(struct virtq *q, const struct desc *d, void **table);
/* The index passed from old to now: did it pass event? (2.7.7.2) */
static inline bool virtq_passed(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

/* The formats. start: takes up the rings; false when one is misplaced. more: something is there
 * to pop. publish: returns whether the driver wants an interrupt for it. */
WARN_UNUSED bool split_start(struct virtq *q);
WARN_UNUSED int split_pop(struct virtq *q, struct virtq_chain *c);
void split_push(struct virtq *q, const struct virtq_chain *c, uint32_t written);
bool split_publish(struct virtq *q);
void split_kicks(struct virtq *q, bool on);
bool split_more(struct virtq *q);

WARN_UNUSED bool packed_start(struct virtq *q);
WARN_UNUSED int packed_pop(struct virtq *q, struct virtq_chain *c);
void packed_unpop(struct virtq *q, uint16_t entries);
void packed_push(struct virtq *q, const struct virtq_chain *c, uint32_t written);
bool packed_publish(struct virtq *q);
void packed_kicks(struct virtq *q, bool on);
bool packed_more(struct virtq *q);
