/* qcow2_create: new images, and clusters given to them ahead of their use. The header is
 * written last, when all that it names is on the disk. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

#define DEFAULT_CLUSTER_BYTES KIB(64)

/* Clusters, in the order of the file: header, refcount table, refcount blocks, L1 table. */
struct layout {
	uint64_t table, blocks, l1; /* how many clusters */
};

static bool is_power_of_2(uint64_t v)
{
	return v && !(v & (v - 1));
}

static int check_options(const struct block_create_opts *o, struct err *e)
{
	const uint64_t cluster = o->cluster_size ? o->cluster_size : DEFAULT_CLUSTER_BYTES;
	const unsigned bits = o->refcount_bits ? o->refcount_bits : 16;
	const bool v2 = o->version == 2;

	if (o->version && o->version != 2 && o->version != 3)
		return err_set(e, EINVAL, "there is no qcow2 version %u", o->version);
	if (!is_power_of_2(cluster) || cluster < 512 || cluster > MIB(2))
		return err_set(e, EINVAL, "the cluster size must be a power of two, 512 to 2M");
	if (!is_power_of_2(bits) || bits > 64)
		return err_set(e, EINVAL, "refcount bits must be a power of two, 1 to 64");
	if (v2 && (bits != 16 || o->lazy_refcounts || o->extended_l2 || o->zstd))
		return err_set(e, EINVAL,
			       "version 2 has 16 refcount bits, no lazy refcounts, no extended L2 "
			       "entries and no zstd");
	if (o->extended_l2 && cluster < KIB(16))
		return err_set(e, EINVAL, "extended L2 entries need clusters of at least 16K");
	if (o->backing_file && o->prealloc != BLOCK_PREALLOC_OFF)
		return err_set(e, EINVAL, "preallocation would hide the backing file");
	if (o->backing_format && !o->backing_file)
		return err_set(e, EINVAL, "a backing format without a backing file");
	if (o->size > INT64_MAX - 512)
		return err_set(e, EFBIG, "the disk is too large");
	return 0;
}

static int plan(const struct block_create_opts *o, struct qcow2_header *h, struct layout *l,
		struct err *e)
{
	const uint64_t cluster = o->cluster_size ? o->cluster_size : DEFAULT_CLUSTER_BYTES;
	uint64_t l1_covers, per_block, l1_size;

	h->version = o->version ? o->version : 3;
	h->cluster_bits = (uint32_t)__builtin_ctzll(cluster);
	h->refcount_order = (uint32_t)__builtin_ctz(o->refcount_bits ? o->refcount_bits : 16);
	h->size = align_up(o->size, 512);
	h->incompatible =
		(o->zstd ? QCOW2_COMPRESSION : 0) | (o->extended_l2 ? QCOW2_EXTENDED_L2 : 0);
	h->compatible = o->lazy_refcounts ? QCOW2_LAZY : 0;
	h->compression_type = o->zstd;
	l1_covers = cluster * (cluster / (o->extended_l2 ? 16 : 8));
	l1_size = h->size / l1_covers + !!(h->size % l1_covers);
	if (l1_size * 8 > QCOW2_MAX_L1_BYTES)
		return err_set(e, EFBIG, "the disk is too large for clusters of %llu bytes",
			       (unsigned long long)cluster);
	h->l1_size = (uint32_t)l1_size;
	per_block = cluster * 8 >> h->refcount_order;
	*l = (struct layout){.l1 = align_up(l1_size * 8, cluster) / cluster};
	for (uint64_t used = 0; l->blocks * per_block <= used || !used;) {
		l->blocks++;
		l->table = align_up(l->blocks * 8, cluster) / cluster;
		used = 1 + l->table + l->blocks + l->l1;
	}
	h->rt_offset = cluster;
	h->rt_clusters = (uint32_t)l->table;
	h->l1_offset = l->l1 ? (1 + l->table + l->blocks) * cluster : 0;
	return 0;
}

/* p is empty: a file that grows is zeros without writing them. */
static int zero_file(struct proto *p, uint64_t len)
{
	if (p->growable && p->size == 0 && p->ops->truncate)
		return p->ops->truncate(p, len);
	return proto_zero(p, 0, len, false);
}

/* All of a cluster that is not zero. */
static int write_start(struct proto *p, uint64_t offset, const uint8_t *buf, uint64_t cluster)
{
	uint64_t len = cluster;

	while (len > 512 && !buf[len - 1])
		len--;
	return proto_write(p, offset, buf, align_up(len, 512));
}

static int write_blocks(struct proto *p, const struct qcow2_header *h, const struct layout *l,
			uint8_t *buf)
{
	const uint64_t cluster = BIT(h->cluster_bits), per_block = cluster * 8 >> h->refcount_order;
	uint64_t used = 1 + l->table + l->blocks + l->l1;
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < l->blocks; i++) {
		memset(buf, 0, cluster);
		for (uint64_t k = 0; k < per_block && used; k++, used--)
			qcow2_refcount_store(buf, h->refcount_order, k, 1);
		r = write_start(p, (1 + l->table + i) * cluster, buf, cluster);
	}
	for (uint64_t i = 0; r == 0 && i < l->table; i++) {
		memset(buf, 0, cluster);
		for (uint64_t k = 0; k < cluster / 8 && i * (cluster / 8) + k < l->blocks; k++)
			store_be64(buf + 8 * k, (1 + l->table + i * (cluster / 8) + k) * cluster);
		r = write_start(p, (1 + i) * cluster, buf, cluster);
	}
	return r;
}

static int write_image(struct proto *p, struct qcow2_header *h, const struct layout *l,
		       const uint8_t *header, size_t len, struct err *e)
{
	const uint64_t cluster = BIT(h->cluster_bits);
	uint8_t *buf = malloc(cluster);
	int r;

	if (!buf)
		return err_set(e, ENOMEM, "cluster");
	r = zero_file(p, (1 + l->table + l->blocks + l->l1) * cluster);
	if (r == 0)
		r = write_blocks(p, h, l, buf);
	if (r == 0)
		r = proto_flush(p);
	if (r == 0)
		r = proto_write(p, 0, header, len);
	if (r == 0)
		r = proto_flush(p);
	free(buf);
	return r < 0 ? err_sys(e, -r, "write the image") : 0;
}

/* Opens what was made and fills its tables. */
static int preallocate(struct proto *p, enum block_prealloc how, struct err *e)
{
	struct block b = {.driver = &qcow2_driver, .ctx = p->ctx, .proto = p};
	int r = b.driver->open(&b, e), closed;

	if (r < 0)
		return r;
	r = qcow2_preallocate(qcow2_of(&b), 0, b.size, how);
	if (r < 0)
		err_sys(e, -r, "preallocate");
	closed = b.driver->close(&b, r < 0 ? NULL : e);
	return r < 0 ? r : closed;
}

int qcow2_create(struct proto *p, const struct block_create_opts *o, struct err *e)
{
	struct qcow2_header h = {0};
	struct layout l = {0};
	uint8_t *header;
	int r = check_options(o, e);

	if (r == 0)
		r = plan(o, &h, &l, e);
	if (r < 0)
		return r;
	header = malloc(BIT(h.cluster_bits));
	if (!header)
		return err_set(e, ENOMEM, "header");
	r = qcow2_header_build(&h, NULL, 0, o->backing_file, o->backing_format, header,
			       BIT(h.cluster_bits), e);
	if (r > 0)
		r = write_image(p, &h, &l, header, (size_t)r, e);
	free(header);
	if (r == 0 && o->prealloc != BLOCK_PREALLOC_OFF)
		r = preallocate(p, o->prealloc, e);
	return r;
}
