#include "virtio/queue.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "virtio/queue_priv.h"
#include "virtio/virtio.h"

int virtq_new(struct virtq **out, struct guest_mem *mem, unsigned index, uint16_t size_max,
	      void (*irq)(void *ctx, unsigned index), void *ctx, struct err *e)
{
	struct virtq *q = calloc(1, sizeof *q);

	if (!q)
		return err_set(e, ENOMEM, "virtqueue %u", index);
	q->mem = mem;
	q->index = index;
	q->size_max = size_max;
	q->irq = irq;
	q->irq_ctx = ctx;
	virtq_reset(q);
	*out = q;
	return 0;
}

void virtq_free(struct virtq *q)
{
	free(q);
}

struct virtq_setup *virtq_setup(struct virtq *q)
{
	return &q->setup;
}

uint16_t virtq_size_max(const struct virtq *q)
{
	return q->size_max;
}

bool virtq_running(const struct virtq *q)
{
	return q->running;
}

void virtq_reset(struct virtq *q)
{
	q->setup = (struct virtq_setup){.size = q->size_max};
	q->running = false;
	q->avail = q->used = 0;
	q->avail_wrap = q->used_wrap = true;
	q->in_flight = q->unpublished = 0;
}

void *virtq_area(const struct virtq *q, gpa_t gpa, uint64_t len, uint64_t align)
{
	return gpa % align ? NULL : mem_span(q->mem, gpa, len);
}

static void set_kicks(struct virtq *q, bool on)
{
	if (q->packed)
		packed_kicks(q, on);
	else
		split_kicks(q, on);
	q->kicks_off = !on;
}

int virtq_start(struct virtq *q, uint64_t features)
{
	const struct virtq_setup *s = &q->setup;

	if (!s->enabled || !s->size || s->size > q->size_max)
		return -EBADMSG;
	q->size = s->size;
	q->packed = features & VIRTIO_F_RING_PACKED;
	q->event_idx = features & VIRTIO_F_EVENT_IDX;
	q->indirect = features & VIRTIO_F_INDIRECT_DESC;
	q->in_flight = q->unpublished = 0;
	if (!(q->packed ? packed_start(q) : split_start(q)))
		return -EBADMSG;
	q->running = true;
	set_kicks(q, true);
	return 0;
}

void virtq_stop(struct virtq *q)
{
	virtq_publish(q);
	q->running = false;
}

/* --- descriptors --- */

int virtq_add_piece(struct virtq *q, struct virtq_chain *c, const struct desc *d)
{
	unsigned n = c->out + c->in;
	void *hva;

	if (d->flags & DESC_WRITE)
		c->in_len += d->len;
	else if (c->in)
		return -EBADMSG; /* what the device reads comes first (2.7.4.2) */
	else
		c->out_len += d->len;
	if (!d->len)
		return 0; /* nobody needs to know */
	hva = n < c->iov_max ? mem_span(q->mem, d->gpa, d->len) : NULL;
	if (!hva)
		return -EBADMSG;
	c->iov[n] = (struct iovec){hva, d->len};
	if (d->flags & DESC_WRITE)
		c->in++;
	else
		c->out++;
	return 0;
}

int virtq_indirect(struct virtq *q, const struct desc *d, void **table)
{
	unsigned n = d->len / DESC_LEN;

	if (!q->indirect || !n || d->len % DESC_LEN || n > VIRTQ_IOV_MAX)
		return -EBADMSG;
	*table = virtq_area(q, d->gpa, d->len, 1);
	return *table ? (int)n : -EBADMSG;
}

/* --- for devices --- */

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
	if (!q->running)
		return 0;
	c->out = c->in = 0;
	c->out_len = c->in_len = 0;
	return q->packed ? packed_pop(q, c) : split_pop(q, c);
}

void virtq_unpop(struct virtq *q, const struct virtq_chain *c)
{
	if (!q->running)
		return;
	q->in_flight -= c->entries;
	if (q->packed)
		packed_unpop(q, c->entries);
	else
		q->avail--;
}

/* The first written bytes of what the device may write. */
static void tell_written(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	for (unsigned i = c->out; i < c->out + c->in && written; i++) {
		uint32_t n = min_u64(c->iov[i].iov_len, written);

		mem_written(q->mem, c->iov[i].iov_base, n);
		written -= n;
	}
}

void virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	if (!q->running)
		return;
	tell_written(q, c, written);
	q->in_flight -= c->entries;
	if (q->packed)
		packed_push(q, c, written);
	else
		split_push(q, c, written);
}

void virtq_publish(struct virtq *q)
{
	if (!q->running || !q->unpublished)
		return;
	if (q->packed ? packed_publish(q) : split_publish(q))
		q->irq(q->irq_ctx, q->index);
}

void virtq_kicks_off(struct virtq *q)
{
	if (q->running && !q->kicks_off)
		set_kicks(q, false);
}

bool virtq_kicks_on(struct virtq *q)
{
	if (!q->running)
		return false;
	set_kicks(q, true);
	/* Our wish, then the look: pairs with the driver's barrier between making a chain
	 * available and reading the wish (2.7.13.4.1). One of the two sees the other. */
	atomic_thread_fence(memory_order_seq_cst);
	return q->packed ? packed_more(q) : split_more(q);
}

/* --- state --- */

static void check_loaded(struct virtq *q, struct state *s)
{
	if (q->setup.size > q->size_max)
		state_fail(s, "queue %u of %u entries: at most %u are possible", q->index,
			   q->setup.size, q->size_max);
	q->running = false;
	q->in_flight = q->unpublished = 0;
}

/* Positions are only checked when the queue starts: whether they are right depends on features. */
void virtq_state(struct virtq *q, struct state *s)
{
	char name[32];
	int n = snprintf(name, sizeof name, "queue%u.", q->index);
	char *field = name + n;

	strcpy(field, "size"), state_u16(s, name, &q->setup.size);
	strcpy(field, "enabled"), state_bool(s, name, &q->setup.enabled);
	strcpy(field, "desc"), state_u64(s, name, &q->setup.desc);
	strcpy(field, "driver"), state_u64(s, name, &q->setup.driver);
	strcpy(field, "device"), state_u64(s, name, &q->setup.device);
	strcpy(field, "avail"), state_u16(s, name, &q->avail);
	strcpy(field, "used"), state_u16(s, name, &q->used);
	strcpy(field, "avail_wrap"), state_bool(s, name, &q->avail_wrap);
	strcpy(field, "used_wrap"), state_bool(s, name, &q->used_wrap);
	if (state_loading(s) && !state_failed(s))
		check_loaded(q, s);
}
