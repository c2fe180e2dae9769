/* qcow2_snapshot: the list of internal snapshots, and reading an image as of one. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

#define ENTRY_BYTES 40u

static void snapshots_clear(struct qcow2 *q, uint32_t count)
{
	for (uint32_t i = 0; q->snapshots && i < count; i++) {
		free(q->snapshots[i].id);
		free(q->snapshots[i].name);
	}
	free(q->snapshots);
	free(q->snapshot_l1);
	q->snapshots = NULL;
	q->snapshot_l1 = NULL;
}

void qcow2_snapshots_free(struct qcow2 *q)
{
	snapshots_clear(q, q->h.snapshot_count);
}

/* The entry at *at of the table; moves *at behind it. */
static int load_one(struct qcow2 *q, uint32_t i, uint64_t *at, struct err *e)
{
	struct qcow2_snapshot *s = &q->snapshots[i];
	uint8_t head[ENTRY_BYTES + 16] = {0};
	uint32_t id_len, name_len, extra;
	uint64_t names;
	int r = proto_read(q->p, *at, head, sizeof head);

	if (r < 0)
		return err_sys(e, -r, "read snapshot %u", i);
	q->snapshot_l1[i] = (struct qcow2_l1_ref){load_be64(head), load_be32(head + 8)};
	id_len = load_be32(head + 12) >> 16;
	name_len = load_be32(head + 12) & 0xffff;
	extra = load_be32(head + 36);
	if (extra > 1024)
		return err_set(e, EINVAL, "snapshot %u has %u bytes of extra data", i, extra);
	s->date_sec = load_be32(head + 16);
	s->date_nsec = load_be32(head + 20);
	s->vm_clock_ns = load_be64(head + 24);
	s->state_size = extra >= 8 ? load_be64(head + 40) : load_be32(head + 32);
	s->disk_size = extra >= 16 ? load_be64(head + 48) : q->h.size;
	s->id = calloc(1, id_len + 1u);
	s->name = calloc(1, name_len + 1u);
	if (!s->id || !s->name)
		return err_set(e, ENOMEM, "snapshot %u", i);
	names = *at + ENTRY_BYTES + extra;
	r = id_len ? proto_read(q->p, names, s->id, id_len) : 0;
	if (r == 0 && name_len)
		r = proto_read(q->p, names + id_len, s->name, name_len);
	*at = align_up(names + id_len + name_len, 8);
	return r < 0 ? err_sys(e, -r, "read snapshot %u", i) : 0;
}

int qcow2_snapshots_load(struct qcow2 *q, struct err *e)
{
	uint64_t at = q->h.snapshots_offset;
	int r = 0;

	if (!q->h.snapshot_count)
		return 0;
	if (at + q->h.snapshot_count * (uint64_t)ENTRY_BYTES > q->p->size)
		return err_set(e, EINVAL, "the snapshot table is behind the end of the file");
	q->snapshots = calloc(q->h.snapshot_count, sizeof *q->snapshots);
	q->snapshot_l1 = calloc(q->h.snapshot_count, sizeof *q->snapshot_l1);
	if (!q->snapshots || !q->snapshot_l1)
		r = err_set(e, ENOMEM, "snapshots");
	for (uint32_t i = 0; r == 0 && i < q->h.snapshot_count; i++) {
		r = load_one(q, i, &at, e);
		if (r == 0 && at - q->h.snapshots_offset > QCOW2_MAX_SNAP_BYTES)
			r = err_set(e, EFBIG, "the snapshot table is too large");
	}
	if (r == 0)
		q->snapshots_bytes = at - q->h.snapshots_offset;
	else
		snapshots_clear(q, q->h.snapshot_count);
	return r;
}

static int find(const struct qcow2 *q, const char *name)
{
	for (uint32_t i = 0; i < q->h.snapshot_count; i++)
		if (!strcmp(q->snapshots[i].id, name))
			return (int)i;
	for (uint32_t i = 0; i < q->h.snapshot_count; i++)
		if (!strcmp(q->snapshots[i].name, name))
			return (int)i;
	return -1;
}

int qcow2_snapshot_select(struct qcow2 *q, const char *name, struct err *e)
{
	const int i = find(q, name);
	const unsigned covers = q->cluster_bits + q->l2_bits;
	struct qcow2_l1_ref l1;
	uint64_t *table, size;
	int r;

	if (i < 0)
		return err_set(e, ENOENT, "there is no snapshot '%s'", name);
	if (!q->read_only)
		return err_set(e, EROFS, "a snapshot can only be read");
	l1 = q->snapshot_l1[i];
	size = q->snapshots[i].disk_size;
	if (l1.offset & (q->cluster_bytes - 1) || l1.offset >= BIT(56) || size > INT64_MAX ||
	    (uint64_t)l1.size * 8 > QCOW2_MAX_L1_BYTES ||
	    (size >> covers) + !!(size & (BIT(covers) - 1)) > l1.size)
		return err_set(e, EINVAL, "the L1 table of snapshot '%s' is not possible", name);
	r = qcow2_table_read(q, l1.offset, l1.size, &table, e);
	if (r < 0)
		return err_wrap(e, "snapshot '%s'", name);
	free(q->l1);
	q->l1 = table;
	q->h.l1_offset = l1.offset;
	q->h.l1_size = l1.size;
	q->h.size = size;
	q->at_snapshot = true;
	return 0;
}
