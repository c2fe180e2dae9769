/* frame_queue: frames that wait for room, copied, oldest first, bounded in bytes. */
#pragma once

#include <stddef.h>

#include "net/offload.h"

struct frame_queue {
	struct frame *first, **end;
	size_t bytes, max_bytes;
};

void frame_queue_init(struct frame_queue *q, size_t max_bytes);
void frame_queue_done(struct frame_queue *q);
/* false: full, or no memory. */
bool frame_queue_add(struct frame_queue *q, const struct net_hdr *h, const struct iovec *iov,
		     unsigned n);
/* Emits from the front until there is no more room. true: empty now. emit may add frames. */
bool frame_queue_send(struct frame_queue *q, net_emit_fn *emit, void *ctx);

static inline bool frame_queue_empty(const struct frame_queue *q)
{
	return !q->first;
}
