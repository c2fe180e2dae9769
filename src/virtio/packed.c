/* packed: the packed virtqueue (virtio 1.2, 2.8): one ring of descriptors that driver and device
 * both write, each marking by two flag bits, compared with a counter that turns over with the
 * ring, what is whose. The device answers chains in any order, each in the next free place of
 * the ring, and leaves out as many places as the chain took. */
#include <errno.h>

#include "virtio/queue_priv.h"

#define FLAG_AVAIL (1u << 7)
#define FLAG_USED  (1u << 15)

/* Event suppression (2.8.10): off_wrap, then flags, 16 bits each */
#define EVENT_ENABLE  0u
#define EVENT_DISABLE 1u
#define EVENT_DESC    2u /* at the place in off_wrap */
#define EVENT_FLAGS   3u
#define EVENT_WRAP    0x8000u

struct packed_desc {
	_Atomic uint64_t gpa;
	_Atomic uint32_t len;
	_Atomic uint16_t id, flags;
};

static struct packed_desc *ring_of(struct virtq *q)
{
	return q->desc;
}

bool packed_start(struct virtq *q)
{
	const struct virtq_setup *s = &q->setup;

	q->desc = virtq_area(q, s->desc, (uint64_t)DESC_LEN * s->size, 16);
	q->driver = virtq_area(q, s->driver, 4, 4);
	q->device = virtq_area(q, s->device, 4, 4);
	/* Positions may come from a file. */
	return q->desc && q->driver && q->device && q->avail < q->size && q->used < q->size;
}

static void advance(const struct virtq *q, uint16_t *at, bool *wrap, unsigned entries)
{
	unsigned next = *at + entries;

	if (next >= q->size) {
		next -= q->size;
		*wrap = !*wrap;
	}
	*at = next;
}

bool packed_more(struct virtq *q)
{
	/* Acquire pairs with the driver's barrier between writing a chain and the flags of its
	 * first descriptor (2.8.21.1). */
	unsigned flags = atomic_load_explicit(&ring_of(q)[q->avail].flags, memory_order_acquire);

	return !!(flags & FLAG_AVAIL) == q->avail_wrap && !!(flags & FLAG_USED) != q->avail_wrap;
}

static struct desc load(const void *table, unsigned i)
{
	uint64_t word[2];

	virtq_load_words(table, i, word);
	return (struct desc){
		.gpa = word[0], .len = word[1], .id = word[1] >> 32, .flags = word[1] >> 48};
}

static int walk_indirect(struct virtq *q, struct virtq_chain *c, const struct desc *d)
{
	void *table;
	int n = virtq_indirect(q, d, &table), r = n;

	for (int i = 0; i < n && r >= 0; i++) {
		struct desc inner =
			load(table, i); /* only its WRITE flag means something (2.8.7) */

		r = virtq_add_piece(q, c, &inner);
	}
	return r;
}

/* The chain that begins at avail, which is at most room entries long. */
static int walk(struct virtq *q, struct virtq_chain *c, unsigned room)
{
	unsigned at = q->avail;

	for (c->entries = 1; c->entries <= room; c->entries++) {
		struct desc d = load(q->desc, at);
		int r;

		c->id = d.id; /* the last one's counts (2.8.6) */
		if (d.flags & DESC_INDIRECT) {
			if (c->entries > 1 || (d.flags & DESC_NEXT))
				return -EBADMSG;
			return walk_indirect(q, c, &d);
		}
		r = virtq_add_piece(q, c, &d);
		if (r < 0 || !(d.flags & DESC_NEXT))
			return r;
		at = at + 1 == q->size ? 0 : at + 1;
	}
	return -EBADMSG;
}

int packed_pop(struct virtq *q, struct virtq_chain *c)
{
	int r;

	if (!packed_more(q))
		return 0;
	r = walk(q, c, q->size - q->in_flight);
	if (r < 0)
		return r;
	advance(q, &q->avail, &q->avail_wrap, c->entries);
	q->in_flight += c->entries;
	return 1;
}

void packed_unpop(struct virtq *q, uint16_t entries)
{
	if (q->avail < entries) {
		q->avail += q->size;
		q->avail_wrap = !q->avail_wrap;
	}
	q->avail -= entries;
}

static void set_flags(struct virtq *q, unsigned at, unsigned flags)
{
	/* The id and length, then the flags: pairs with the driver's barrier between the flags
	 * and the rest (2.8.22). */
	atomic_store_explicit(&ring_of(q)[at].flags, flags, memory_order_release);
}

/* The driver takes used entries in order: as long as it does not see the first, it looks at none
 * behind it. So the others may be written at once. */
void packed_push(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	struct packed_desc *d = &ring_of(q)[q->used];
	unsigned flags = q->used_wrap ? FLAG_AVAIL | FLAG_USED : 0;

	if (written)
		flags |= DESC_WRITE;
	atomic_store_explicit(&d->len, written, memory_order_relaxed);
	atomic_store_explicit(&d->id, c->id, memory_order_relaxed);
	if (q->unpublished) {
		set_flags(q, q->used, flags);
	} else {
		q->first_at = q->used;
		q->first_flags = flags;
	}
	q->unpublished += c->entries;
	advance(q, &q->used, &q->used_wrap, c->entries);
}

bool packed_publish(struct virtq *q)
{
	uint16_t old = q->used - q->unpublished, event;
	uint32_t wish;

	q->unpublished = 0;
	set_flags(q, q->first_at, q->first_flags);
	/* The entries, then the driver's wish: pairs with the driver's barrier between changing
	 * its wish and looking at the ring once more. One of the two sees the other. */
	atomic_thread_fence(memory_order_seq_cst);
	wish = atomic_load_explicit((_Atomic uint32_t *)q->driver, memory_order_relaxed);
	if (!q->event_idx || (wish >> 16 & EVENT_FLAGS) != EVENT_DESC)
		return (wish >> 16 & EVENT_FLAGS) != EVENT_DISABLE;
	event = wish & (EVENT_WRAP - 1);
	if (!!(wish & EVENT_WRAP) != q->used_wrap)
		event -= q->size; /* a place of the turn before */
	return virtq_passed(event, q->used, old);
}

void packed_kicks(struct virtq *q, bool on)
{
	uint32_t wish = EVENT_DISABLE << 16;

	if (on && q->event_idx)
		wish = EVENT_DESC << 16 | q->avail | (q->avail_wrap ? EVENT_WRAP : 0);
	else if (on)
		wish = EVENT_ENABLE << 16;
	atomic_store_explicit((_Atomic uint32_t *)q->device, wish, memory_order_relaxed);
}
