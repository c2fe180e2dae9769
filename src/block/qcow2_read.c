/* qcow2_read: reading, and the map of what there is. A request is cut where the kind of
 * cluster changes or the host's bytes do not go on; one that lies in one piece on the host is
 * one read. The pieces of others are read side by side, each in a coroutine, as long as the
 * image has not too many of these. */
#include <errno.h>

#include "block/qcow2_priv.h"

#define MAX_PIECES 16u /* coroutines of one image */

struct pieces { /* of one request */
	struct qcow2 *q;
	uint64_t offset, len; /* of the request */
	const struct iovec *iov;
	unsigned n;
	/* the one that is next */
	struct qcow2_extent x;
	uint64_t done;

	unsigned running;
	int error;
	struct coro_queue waiter;
};

bool qcow2_backing_is_zero(const struct qcow2 *q, uint64_t offset)
{
	return !q->b->backing || offset >= q->b->backing->size;
}

static int read_extent(struct qcow2 *q, const struct qcow2_extent *x, uint64_t offset,
		       const struct iovec *iov, unsigned n)
{
	unsigned gen;
	int r = 0;

	switch (x->kind) {
	case QCOW2_ZEROS: iov_zero(iov, n, 0, x->len); break;
	case QCOW2_ABSENT:
		if (qcow2_backing_is_zero(q, offset))
			iov_zero(iov, n, 0, x->len);
		else
			r = block_read_backing(q->b, offset, iov, n, x->len);
		break;
	case QCOW2_DATA:
		gen = qcow2_io_enter(q);
		r = q->p->ops->readv(q->p, x->host, iov, n);
		qcow2_io_leave(q, gen);
		break;
	case QCOW2_PACKED:
		gen = qcow2_io_enter(q);
		r = qcow2_read_packed(q, x->host, offset & (q->cluster_bytes - 1), iov, n, x->len);
		qcow2_io_leave(q, gen);
	}
	return r;
}

/* The piece that is next, as it is when this is called. */
static int read_piece(const struct pieces *s)
{
	const struct qcow2_extent x = s->x;
	struct iovec part[BLOCK_IOV_MAX];
	const unsigned n = iov_slice(s->iov, s->n, s->done, x.len, part);

	return read_extent(s->q, &x, s->offset + s->done, part, n);
}

static void piece_coro(void *arg)
{
	struct pieces *s = arg;
	const int r = read_piece(s);

	if (r < 0 && s->error == 0)
		s->error = r;
	s->q->pieces--;
	s->running--;
	coro_queue_wake_all(&s->waiter);
}

/* Is it worth a coroutine? The last piece is the request's own. */
static bool beside(const struct pieces *s)
{
	const struct qcow2 *q = s->q;

	if (s->done + s->x.len >= s->len || q->pieces >= MAX_PIECES || s->x.kind == QCOW2_ZEROS)
		return false;
	return s->x.kind != QCOW2_ABSENT || !qcow2_backing_is_zero(q, s->offset + s->done);
}

/* No wait between its lookup and when it is on its way: see qcow2_io_enter. */
static int start_piece(struct pieces *s)
{
	if (!beside(s))
		return read_piece(s);
	s->q->pieces++;
	s->running++;
	if (coro_start(s->q->coros, piece_coro, s) == 0)
		return 0;
	s->q->pieces--;
	s->running--;
	return read_piece(s);
}

/* s->x: the first piece. */
static int read_pieces(struct pieces *s)
{
	int r = start_piece(s);

	s->done = s->x.len;
	while (r == 0 && s->error == 0 && s->done < s->len) {
		r = qcow2_lookup(s->q, s->offset + s->done, s->len - s->done, &s->x);
		if (r == 0)
			r = start_piece(s);
		s->done += s->x.len;
	}
	while (s->running)
		coro_queue_wait(s->q->coros, &s->waiter);
	return r < 0 ? r : s->error;
}

int qcow2_readv(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n, uint64_t len)
{
	struct pieces s = {.q = qcow2_of(b), .offset = offset, .len = len, .iov = iov, .n = n};
	int r = len ? qcow2_lookup(s.q, offset, len, &s.x) : 0;

	if (r < 0 || !len)
		return r;
	return s.x.len == len ? read_extent(s.q, &s.x, offset, iov, n) : read_pieces(&s);
}

int qcow2_read_bytes(struct qcow2 *q, uint64_t offset, void *to, uint64_t len)
{
	struct iovec iov = {to, len};

	return len ? qcow2_readv(q->b, offset, &iov, 1, len) : 0;
}

int qcow2_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
	static const enum block_kind kinds[] = {
		[QCOW2_ABSENT] = BLOCK_ABSENT,
		[QCOW2_ZEROS] = BLOCK_ZEROES,
		[QCOW2_DATA] = BLOCK_DATA,
		[QCOW2_PACKED] = BLOCK_DATA,
	};
	struct qcow2_extent x, more;
	int r = qcow2_lookup(qcow2_of(b), offset, len, &x);

	if (r < 0)
		return r;
	/* On over the ends of pages. */
	while (x.len < len && x.kind != QCOW2_PACKED) {
		r = qcow2_lookup(qcow2_of(b), offset + x.len, len - x.len, &more);
		if (r < 0 || more.kind != x.kind ||
		    (x.host ? more.host != x.host + x.len : more.host != 0))
			break;
		x.len += more.len;
	}
	*out = (struct block_extent){
		.kind = kinds[x.kind],
		.len = x.len,
		.has_offset = x.host && x.kind != QCOW2_PACKED,
		.compressed = x.kind == QCOW2_PACKED,
		.allocated = x.host,
		.host_offset = x.kind == QCOW2_PACKED ? 0 : x.host,
	};
	return 0;
}
