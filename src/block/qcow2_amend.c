/* qcow2_amend: changes of an image's header: its backing file, its features; and an image
 * made empty after its data went to the backing image. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

struct job {
	struct qcow2 *q;
	const char *file, *format;
	const struct qcow2_amend *amend;
	enum qcow2_fix fix;
	struct qcow2_check *check;
	struct err *e;
};

static int plain_call(struct block *b, int (*fn)(void *arg), struct job *j)
{
	if (b->driver != &qcow2_driver)
		return err_set(j->e, EINVAL, "not a qcow2 image");
	j->q = qcow2_of(b);
	return block_run(b->ctx, fn, j);
}

static int rewrite_header(struct job *j, const uint8_t *old, uint8_t *new)
{
	struct qcow2 *q = j->q;
	struct qcow2_header h = q->h;
	int r = qcow2_header_build(&h, old, q->cluster_bytes, j->file, j->format, new,
				   q->cluster_bytes, j->e);

	if (r < 0)
		return r;
	/* A longer old name is gone with the zeros behind. */
	r = qcow2_header_update(q, 0, new,
				max_u64((uint64_t)r, q->h.backing_offset + q->h.backing_len));
	if (r == 0)
		r = proto_flush(q->p);
	if (r < 0)
		return err_sys(j->e, -r, "write the header");
	q->h = h;
	return 0;
}

static int run_set_backing(void *arg)
{
	struct job *j = arg;
	struct qcow2 *q = j->q;
	uint8_t *old = malloc(q->cluster_bytes), *new = malloc(q->cluster_bytes);
	int r = old && new ? qcow2_begin_write(q) : -ENOMEM;

	if (r == 0)
		r = qcow2_checkpoint(q);
	if (r == 0)
		r = proto_read(q->p, 0, old, q->cluster_bytes);
	if (r < 0)
		err_sys(j->e, -r, "change the backing file");
	else
		r = rewrite_header(j, old, new);
	free(old);
	free(new);
	return r;
}

int qcow2_set_backing(struct block *b, const char *file, const char *format, struct err *e)
{
	struct job j = {.file = file && *file ? file : NULL, .format = format, .e = e};

	return plain_call(b, run_set_backing, &j);
}

/* --- features --- */

static int run_amend(void *arg)
{
	struct job *j = arg;
	struct qcow2 *q = j->q;
	uint64_t compatible = q->h.compatible;
	uint8_t field[8];
	int r;

	if (j->amend->lazy_refcounts < 0)
		return 0;
	if (q->h.version < 3)
		return err_set(j->e, ENOTSUP, "version 2 has no lazy refcounts");
	compatible = j->amend->lazy_refcounts ? compatible | QCOW2_LAZY : compatible & ~QCOW2_LAZY;
	store_be64(field, compatible);
	r = qcow2_begin_write(q);
	if (r == 0)
		r = qcow2_header_update(q, QCOW2_AT_COMPATIBLE, field, sizeof field);
	if (r == 0)
		r = proto_flush(q->p);
	if (r < 0)
		return err_sys(j->e, -r, "change the header");
	q->h.compatible = compatible;
	return 0;
}

int qcow2_amend(struct block *b, const struct qcow2_amend *o, struct err *e)
{
	struct job j = {.amend = o, .e = e};

	return plain_call(b, run_amend, &j);
}

/* --- empty --- */

static int drop_table(struct qcow2 *q, uint32_t l1_index)
{
	const uint64_t covers = BIT(q->cluster_bits + q->l2_bits), start = l1_index * covers;
	const uint64_t page = (uint64_t)qcow2_page_entries(q) << q->cluster_bits;
	const uint64_t table = q->l1[l1_index] & QCOW2_OFFSET_MASK;

	for (uint64_t at = start; at < start + covers; at += page) {
		struct qcow2_page *p;
		int r = qcow2_l2_get(q, at, &p);

		if (r < 0)
			return r;
		for (unsigned i = 0; p && i < qcow2_page_entries(q); i++) {
			struct qcow2_entry entry = qcow2_entry_load(q, p, i);

			if (qcow2_entry_check(q, entry) == 0)
				qcow2_entry_drop(q, entry);
		}
		qcow2_page_put(p);
	}
	qcow2_l1_set(q, l1_index, 0);
	qcow2_free_later(q, table, q->cluster_bytes, true, false);
	return 0;
}

static int run_make_empty(void *arg)
{
	struct job *j = arg;
	struct qcow2 *q = j->q;
	int r;

	if (q->h.snapshot_count)
		return err_set(j->e, ENOTSUP, "the image has internal snapshots");
	r = qcow2_begin_write(q);
	for (uint32_t i = 0; r == 0 && i < q->h.l1_size; i++) {
		if (!(q->l1[i] & QCOW2_OFFSET_MASK))
			continue;
		coro_lock(q->coros, &q->lock);
		r = drop_table(q, i);
		coro_unlock(q->coros, &q->lock);
		if (r == 0)
			r = qcow2_free_pressure(q);
	}
	if (r == 0)
		r = qcow2_checkpoint(q);
	if (r == 0)
		r = qcow2_reclaim(q);
	return r < 0 ? err_sys(j->e, -r, "empty the image") : 0;
}

int qcow2_make_empty(struct block *b, struct err *e)
{
	struct job j = {.e = e};

	return plain_call(b, run_make_empty, &j);
}

/* --- check --- */

static int run_check(void *arg)
{
	struct job *j = arg;

	return qcow2_check_run(j->q, j->fix, j->check, j->e);
}

int qcow2_check(struct block *b, enum qcow2_fix fix, struct qcow2_check *r, struct err *e)
{
	struct job j = {.fix = fix, .check = r, .e = e};

	return plain_call(b, run_check, &j);
}
