/* frame_queue: frames that wait for room, copied, oldest first, bounded in bytes. */
#pragma once

#include <stddef.h>

#include "net/net.h"

struct frame_queue {
	struct frame *first, **end;
	size_t bytes, max_bytes;
};

void frame_queue_init(struct frame_queue *q, size_t max_bytes);
void frame_queue_done(struct frame_queue *q);
/* false: full, or no memory. */
bool frame_queue_add(struct frame_queue *q, const struct net_hdr *h, const struct iovec *iov,
		     unsigned n);
/* Sends from the front until the peer of p has no more room. true: empty now. */
bool frame_queue_send(struct frame_queue *q, struct net_port *p);

static inline bool frame_queue_empty(const struct frame_queue *q)
{
	return !q->first;
}
