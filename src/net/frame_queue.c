#include "net/frame_queue.h"

#include <stdlib.h>
#include <string.h>

struct frame {
	struct frame *next;
	struct net_hdr hdr;
	size_t len;
	uint8_t bytes[];
};

void frame_queue_init(struct frame_queue *q, size_t max_bytes)
{
	*q = (struct frame_queue){.end = &q->first, .max_bytes = max_bytes};
}

static void drop_first(struct frame_queue *q)
{
	struct frame *f = q->first;

	q->first = f->next;
	if (!q->first)
		q->end = &q->first;
	q->bytes -= f->len + sizeof *f;
	free(f);
}

void frame_queue_done(struct frame_queue *q)
{
	while (q->first)
		drop_first(q);
}

bool frame_queue_add(struct frame_queue *q, const struct net_hdr *h, const struct iovec *iov,
		     unsigned n)
{
	size_t len = 0;
	struct frame *f;

	for (unsigned i = 0; i < n; i++)
		len += iov[i].iov_len;
	if (len + sizeof *f > q->max_bytes - q->bytes)
		return false;
	f = malloc(sizeof *f + len);
	if (!f)
		return false;
	*f = (struct frame){.hdr = *h, .len = len};
	len = 0;
	for (unsigned i = 0; i < n; i++) {
		memcpy(f->bytes + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	q->bytes += len + sizeof *f;
	*q->end = f;
	q->end = &f->next;
	return true;
}

bool frame_queue_send(struct frame_queue *q, net_emit_fn *emit, void *ctx)
{
	while (q->first) {
		struct iovec iov = {q->first->bytes, q->first->len};

		if (!emit(ctx, &q->first->hdr, &iov, 1))
			return false;
		drop_first(q);
	}
	return true;
}
