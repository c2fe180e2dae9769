/* qcow2_flush: the order in which things reach the disk, so that a crash at any moment leaves
 * an image whose every reference names a cluster that is counted and has its contents:
 *
 *   1. what clusters hold (data, new tables) and refcounts that went up
 *   2. flush
 *   3. L2 entries and L1 entries that refer to them
 *   4. flush
 *   5. refcounts of what these referred to before go down; holes are punched
 *
 * A checkpoint is 1 to 4. It takes copies of the dirty L2 pages first: an entry that is set
 * after that may name data that the flush of step 2 does not cover, so it waits for the next
 * checkpoint. What step 5 frees are the runs that were pending when the copies were taken;
 * before they are reused, data I/O that was looked up before the change has ended, too.
 * Refcounts that go down are not waited for: a crash before makes a leak, no more.
 *
 * With lazy refcounts the image is marked dirty instead, and refcounts are written when it is
 * closed, or counted anew when it is opened after a crash. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

#define PRESSURE_RUNS 8192u /* to be freed, before somebody is made to do it */
#define L1_SECTOR     64u   /* entries */

/* --- runs --- */

static bool runs_add(struct qcow2_runs *s, struct qcow2_run run)
{
	struct qcow2_run *last = s->count ? &s->run[s->count - 1] : NULL;

	if (last && last->offset + last->len == run.offset && last->table == run.table &&
	    !last->compressed && !run.compressed) {
		last->len += run.len;
		return true;
	}
	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 64;
		struct qcow2_run *more = realloc(s->run, room * sizeof *more);

		if (!more)
			return false;
		s->run = more;
		s->room = room;
	}
	s->run[s->count++] = run;
	return true;
}

/* What does not fit for want of memory leaks. */
static void runs_move(struct qcow2_runs *to, struct qcow2_runs *from)
{
	if (!to->count) {
		struct qcow2_runs t = *to;

		*to = *from;
		*from = t;
		return;
	}
	for (size_t i = 0; i < from->count; i++)
		(void)runs_add(to, from->run[i]);
	from->count = 0;
}

void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t len, bool table, bool compressed)
{
	(void)runs_add(&q->pending, (struct qcow2_run){offset, len, table, compressed});
}

void qcow2_l1_set(struct qcow2 *q, uint32_t index, uint64_t entry)
{
	uint8_t *dirty = &q->l1_dirty[index / L1_SECTOR];

	q->l1[index] = entry;
	q->l1_dirty_count += !*dirty;
	*dirty = 1;
	q->order = true;
}

/* --- checkpoint --- */

struct copy {
	uint64_t offset;
	uint8_t *bytes;
	struct qcow2_page *page; /* NULL: of L1 */
	uint32_t sector;         /* of L1 */
};

struct copies {
	struct copy *copy;
	unsigned count;
	uint8_t *bytes;
	bool order;
};

static unsigned dirty_pages(const struct qcow2_cache *c)
{
	unsigned n = 0;

	for (struct qcow2_page *p = c->dirty.dirty_next; p != &c->dirty; p = p->dirty_next)
		n++;
	return n;
}

static void copy_page(struct qcow2 *q, struct copy *c)
{
	struct qcow2_page *p = q->l2.dirty.dirty_next;

	c->page = p;
	c->offset = p->offset;
	memcpy(c->bytes, p->bytes, q->page_bytes);
	qcow2_page_clean(p);
	p->writing = true;
	q->l2.writing++;
}

static void copy_l1(struct qcow2 *q, struct copy *c, uint32_t sector)
{
	const uint32_t first = sector * L1_SECTOR;

	c->page = NULL;
	c->sector = sector;
	c->offset = q->h.l1_offset + (uint64_t)first * 8;
	for (uint32_t i = 0; i < L1_SECTOR; i++)
		store_be64(c->bytes + 8 * i, first + i < q->h.l1_size ? q->l1[first + i] : 0);
	q->l1_dirty[sector] = 0;
	q->l1_dirty_count--;
}

/* Takes all that is dirty of L1 and L2, without a wait. */
static int copies_take(struct qcow2 *q, struct copies *s)
{
	const unsigned pages = dirty_pages(&q->l2), sectors = q->l1_dirty_count;
	uint8_t *at;

	*s = (struct copies){0};
	if (pages + sectors == 0)
		return 0;
	s->copy = malloc((pages + sectors) * sizeof *s->copy);
	s->bytes = at = malloc(pages * q->page_bytes + sectors * 512ul);
	if (!s->copy || !s->bytes) {
		free(s->copy);
		free(s->bytes);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < pages; i++, at += q->page_bytes) {
		s->copy[s->count].bytes = at;
		copy_page(q, &s->copy[s->count++]);
	}
	for (uint32_t sector = 0; q->l1_dirty_count; sector++) {
		if (!q->l1_dirty[sector])
			continue;
		s->copy[s->count].bytes = at;
		copy_l1(q, &s->copy[s->count++], sector);
		at += 512;
	}
	s->order = q->order;
	q->order = false;
	return 0;
}

static size_t copy_len(const struct qcow2 *q, const struct copy *c)
{
	return c->page ? q->page_bytes : 512;
}

static int by_offset(const void *a, const void *b)
{
	uint64_t x = ((const struct copy *)a)->offset, y = ((const struct copy *)b)->offset;

	return x < y ? -1 : x > y;
}

/* Those that lie side by side go in one write. */
static int copies_write(struct qcow2 *q, struct copies *s)
{
	struct iovec iov[64];
	int r = 0;

	if (s->count > 1)
		qsort(s->copy, s->count, sizeof *s->copy, by_offset);
	for (unsigned i = 0; r == 0 && i < s->count;) {
		uint64_t start = s->copy[i].offset, end = start;
		unsigned n = 0;

		for (; i < s->count && n < ARRAY_SIZE(iov) && s->copy[i].offset == end; i++) {
			size_t len = copy_len(q, &s->copy[i]);

			iov[n++] = (struct iovec){s->copy[i].bytes, len};
			end += len;
		}
		r = q->p->ops->writev(q->p, start, iov, n);
	}
	return r;
}

/* r < 0: all is dirty again. */
static void copies_done(struct qcow2 *q, struct copies *s, int r)
{
	for (unsigned i = 0; i < s->count; i++) {
		struct copy *c = &s->copy[i];

		if (c->page) {
			c->page->writing = false;
			q->l2.writing--;
			if (r < 0)
				qcow2_page_dirty(&q->l2, c->page);
			coro_queue_wake_all(&c->page->waiters);
		} else if (r < 0 && !q->l1_dirty[c->sector]) {
			q->l1_dirty[c->sector] = 1;
			q->l1_dirty_count++;
		}
	}
	if (r < 0)
		q->order |= s->order;
	free(s->copy);
	free(s->bytes);
}

/* Refcounts are written before references, unless the image is marked dirty instead. */
static int write_refcounts(struct qcow2 *q)
{
	return q->h.incompatible & QCOW2_DIRTY ? 0 : qcow2_cache_write(&q->rb);
}

static int checkpoint_locked(struct qcow2 *q)
{
	struct copies s;
	int r = copies_take(q, &s);

	if (r < 0)
		return r;
	runs_move(&q->closing, &q->pending);
	r = write_refcounts(q);
	if (r == 0 && s.order)
		r = proto_flush(q->p);
	if (r == 0)
		r = copies_write(q, &s);
	if (r == 0)
		r = proto_flush(q->p);
	copies_done(q, &s, r);
	/* closing stays so when it failed; the next checkpoint covers it. */
	if (r == 0)
		runs_move(&q->ready, &q->closing);
	return r;
}

int qcow2_checkpoint(struct qcow2 *q)
{
	const uint64_t begun = q->checkpoints_begun;
	int r = 0;

	coro_lock(q->coros, &q->flush_lock);
	if (q->checkpoint_good <= begun) { /* none began since and went well */
		uint64_t number = ++q->checkpoints_begun;

		r = qcow2_header_settle(q);
		if (r == 0)
			r = checkpoint_locked(q);
		if (r == 0)
			q->checkpoint_good = number;
	}
	coro_unlock(q->coros, &q->flush_lock);
	return r;
}

/* --- what is freed --- */

void qcow2_io_leave(struct qcow2 *q, unsigned gen)
{
	if (--q->io_count[gen] == 0)
		coro_queue_wake_all(&q->io_waiters);
}

/* Waits for data I/O that may know clusters which are to be freed now. */
static void wait_for_io(struct qcow2 *q)
{
	const unsigned gen = q->io_gen;

	q->io_gen ^= 1;
	while (q->io_count[gen])
		coro_queue_wait(q->coros, &q->io_waiters);
}

/* Holes for those clusters of the run that nothing else refers to. */
static int punch(struct qcow2 *q, const struct qcow2_run *run)
{
	uint64_t start = 0, len = 0, end = run->offset + run->len;
	int r = 0;

	for (uint64_t at = run->offset; at < end && r == 0; at += q->cluster_bytes) {
		uint64_t n;

		r = qcow2_refcount_get(q, at >> q->cluster_bits, &n);
		if (r < 0)
			break;
		if (n == 1 && align_down(q->packed_at, q->cluster_bytes) == at)
			q->packed_at = 0;
		if (n == 1 && len && start + len == at) {
			len += q->cluster_bytes;
		} else if (n == 1) {
			if (len)
				(void)proto_discard(q->p, start, len);
			start = at;
			len = q->cluster_bytes;
		}
	}
	if (len)
		(void)proto_discard(q->p, start, len);
	return r;
}

static void free_run(struct qcow2 *q, const struct qcow2_run *run)
{
	if (run->table)
		qcow2_cache_forget(&q->l2, run->offset, run->len);
	if (run->compressed) {
		q->unpacked_entry = 0;
		q->unpack_epoch++;
	}
	if (q->b->opts.discard && q->p->can_discard && punch(q, run) < 0)
		return; /* it leaks */
	for (uint64_t at = 0; at < run->len; at += q->cluster_bytes) {
		uint64_t cluster = (run->offset + at) >> q->cluster_bits;

		if (align_down(q->packed_at, q->cluster_bytes) == run->offset + at)
			q->packed_at = 0;
		if (qcow2_refcount_change(q, cluster, -1) < 0)
			return;
	}
}

static void reclaim_all(struct qcow2 *q)
{
	while (q->ready.count && !q->read_only) {
		struct qcow2_runs now = q->ready;

		q->ready = (struct qcow2_runs){0};
		wait_for_io(q);
		for (size_t i = 0; i < now.count; i++)
			free_run(q, &now.run[i]);
		free(now.run);
	}
}

int qcow2_reclaim(struct qcow2 *q)
{
	while (q->reclaiming)
		coro_queue_wait(q->coros, &q->reclaim_waiters);
	q->reclaiming = true;
	reclaim_all(q);
	q->reclaiming = false;
	coro_queue_wake_all(&q->reclaim_waiters);
	return q->read_only && !q->b->opts.read_only ? -EIO : 0;
}

static void reclaim_in_background(void *arg)
{
	struct qcow2 *q = arg;

	reclaim_all(q);
	q->reclaiming = false;
	coro_queue_wake_all(&q->reclaim_waiters);
}

int qcow2_free_pressure(struct qcow2 *q)
{
	int r = 0;

	if (q->pending.count + q->closing.count >= PRESSURE_RUNS)
		r = qcow2_checkpoint(q);
	if (r == 0 && q->ready.count >= PRESSURE_RUNS)
		r = qcow2_reclaim(q);
	return r;
}

int qcow2_flush(struct block *b)
{
	struct qcow2 *q = qcow2_of(b);
	int r = 0;

	if (q->read_only)
		return q->b->opts.read_only ? 0 : -EIO;
	r = qcow2_checkpoint(q);
	if (r == 0 && q->ready.count && !q->reclaiming) {
		q->reclaiming = true;
		if (coro_start(q->coros, reclaim_in_background, q) < 0)
			q->reclaiming = false; /* the next flush or close does it */
	}
	return r;
}
