/* split: the split virtqueue (virtio 1.2, 2.7): a descriptor table, the driver's ring of heads
 * that are available, the device's ring of heads that are used. */
#include <errno.h>

#include "virtio/queue_priv.h"

#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY     1u

struct split_avail {
	_Atomic uint16_t flags, idx, ring[]; /* behind it: used_event */
};

struct split_used {
	_Atomic uint16_t flags, idx;
	struct {
		_Atomic uint32_t id, len;
	} ring[]; /* behind it: avail_event, 16 bits */
};

static struct split_avail *avail_of(struct virtq *q)
{
	return q->driver;
}

static struct split_used *used_of(struct virtq *q)
{
	return q->device;
}

static uint16_t load16(const _Atomic uint16_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

bool split_start(struct virtq *q)
{
	const struct virtq_setup *s = &q->setup;
	unsigned n = s->size;

	if (n & (n - 1))
		return false;
	q->desc = virtq_area(q, s->desc, DESC_LEN * n, 16);
	q->driver = virtq_area(q, s->driver, 6 + 2 * n, 2);
	q->device = virtq_area(q, s->device, 6 + 8 * n, 4);
	q->avail_seen = q->avail;
	return q->desc && q->driver && q->device;
}

bool split_more(struct virtq *q)
{
	if (q->avail_seen == q->avail)
		/* Acquire pairs with the driver's barrier between filling the ring and moving
		 * its index (2.7.13.3). */
		q->avail_seen = atomic_load_explicit(&avail_of(q)->idx, memory_order_acquire);
	return q->avail_seen != q->avail;
}

static struct desc load(const void *table, unsigned i)
{
	uint64_t word[2];

	virtq_load_words(table, i, word);
	return (struct desc){
		.gpa = word[0], .len = word[1], .flags = word[1] >> 32, .next = word[1] >> 48};
}

/* Follows the chain from entry i of a table of n. Every step costs an entry, so that it ends. */
static int walk(struct virtq *q, struct virtq_chain *c, const void *table, unsigned n, unsigned i,
		bool indirect)
{
	for (unsigned steps = 0; steps < n && i < n; steps++) {
		struct desc d = load(table, i);
		int r;

		if (d.flags & DESC_INDIRECT) {
			void *inner;

			if (indirect || (d.flags & DESC_NEXT))
				return -EBADMSG;
			r = virtq_indirect(q, &d, &inner);
			return r < 0 ? r : walk(q, c, inner, r, 0, true);
		}
		r = virtq_add_piece(q, c, &d);
		if (r < 0 || !(d.flags & DESC_NEXT))
			return r;
		i = d.next;
	}
	return -EBADMSG;
}

int split_pop(struct virtq *q, struct virtq_chain *c)
{
	int r;

	if (!split_more(q))
		return 0;
	if ((uint16_t)(q->avail_seen - q->avail) > q->size || q->in_flight >= q->size)
		return -EBADMSG;
	c->entries = 1;
	c->id = load16(&avail_of(q)->ring[q->avail & (q->size - 1)]);
	r = walk(q, c, q->desc, q->size, c->id, false);
	if (r < 0)
		return r;
	q->avail++;
	q->in_flight++;
	return 1;
}

void split_push(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	unsigned slot = q->used++ & (q->size - 1);

	atomic_store_explicit(&used_of(q)->ring[slot].id, c->id, memory_order_relaxed);
	atomic_store_explicit(&used_of(q)->ring[slot].len, written, memory_order_relaxed);
	q->unpublished++;
}

bool split_publish(struct virtq *q)
{
	uint16_t old = q->used - q->unpublished;

	q->unpublished = 0;
	/* The entries, then the index: pairs with the driver's read barrier between the index
	 * and the ring (2.7.14). */
	atomic_store_explicit(&used_of(q)->idx, q->used, memory_order_release);
	/* The index, then the driver's wish: pairs with the driver's barrier between changing
	 * its wish and looking at the index once more. One of the two sees the other. */
	atomic_thread_fence(memory_order_seq_cst);
	if (q->event_idx)
		return virtq_passed(load16(&avail_of(q)->ring[q->size]), q->used, old);
	return !(load16(&avail_of(q)->flags) & AVAIL_NO_INTERRUPT);
}

/* With event index the driver kicks when it passes avail_event: off is to leave that behind. */
void split_kicks(struct virtq *q, bool on)
{
	struct split_used *u = used_of(q);

	if (!q->event_idx)
		atomic_store_explicit(&u->flags, on ? 0 : USED_NO_NOTIFY, memory_order_relaxed);
	else if (on)
		atomic_store_explicit((_Atomic uint16_t *)&u->ring[q->size], q->avail,
				      memory_order_relaxed);
}
