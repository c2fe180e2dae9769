/* qcow2_header: the header and its extensions, from bytes and to bytes. Everything here is a
 * pure function of its arguments; what a hostile file may say is refused here, so that the
 * rest of the format can rely on sizes and alignments. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

enum {
	EXT_END = 0,
	EXT_BACKING_FORMAT = 0xe2792aca,
	EXT_FEATURES = 0x6803f857,
	EXT_BITMAPS = 0x23852875,
};

static const struct feature {
	uint8_t type, bit;
	const char *name;
} features[] = {
	{0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
	{0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},          {2, 1, "raw external data"},
};
#define FEATURE_BYTES 48

bool qcow2_probe(const uint8_t *head, uint64_t len)
{
	return len >= 8 && load_be32(head) == QCOW2_MAGIC && load_be32(head + 4) >= 2;
}

static void parse_v2(struct qcow2_header *h, const uint8_t *b)
{
	h->version = load_be32(b + 4);
	h->backing_offset = load_be64(b + 8);
	h->backing_len = load_be32(b + 16);
	h->cluster_bits = load_be32(b + 20);
	h->size = load_be64(b + 24);
	h->crypt = load_be32(b + 32);
	h->l1_size = load_be32(b + 36);
	h->l1_offset = load_be64(b + 40);
	h->rt_offset = load_be64(b + 48);
	h->rt_clusters = load_be32(b + 56);
	h->snapshot_count = load_be32(b + 60);
	h->snapshots_offset = load_be64(b + 64);
	h->refcount_order = 4;
	h->header_len = QCOW2_HEADER_V2;
}

static int parse_v3(struct qcow2_header *h, const uint8_t *b, size_t len, struct err *e)
{
	if (len < QCOW2_HEADER_V3)
		return err_set(e, EINVAL, "the header is cut off");
	h->incompatible = load_be64(b + 72);
	h->compatible = load_be64(b + 80);
	h->autoclear = load_be64(b + 88);
	h->refcount_order = load_be32(b + 96);
	h->header_len = load_be32(b + 100);
	if (h->header_len < QCOW2_HEADER_V3 || h->header_len > len || h->header_len % 8)
		return err_set(e, EINVAL, "header length %u is not possible", h->header_len);
	if (h->header_len > 104)
		h->compression_type = b[104];
	return 0;
}

/* The name of an unknown feature from the image's own table, as far as it prints. */
static void feature_name(const uint8_t *b, size_t len, uint32_t header_len, unsigned bit,
			 char name[FEATURE_BYTES])
{
	size_t at = header_len;

	snprintf(name, FEATURE_BYTES, "bit %u", bit);
	while (at + 8 <= len && load_be32(b + at) != EXT_END) {
		uint32_t type = load_be32(b + at), n = load_be32(b + at + 4);

		at += 8;
		if (n > len - at)
			return;
		for (size_t i = 0; type == EXT_FEATURES && i + FEATURE_BYTES <= n;
		     i += FEATURE_BYTES) {
			const uint8_t *f = b + at + i;

			if (f[0] != 0 || f[1] != bit)
				continue;
			for (unsigned k = 0; k < FEATURE_BYTES - 2; k++)
				name[k] = f[2 + k] >= ' ' && f[2 + k] < 127 ? (char)f[2 + k] : 0;
			name[FEATURE_BYTES - 2] = 0;
		}
		at += align_up(n, 8);
	}
}

static int check_features(const struct qcow2_header *h, const uint8_t *b, size_t len, struct err *e)
{
	const uint64_t known = QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_DATA_FILE | QCOW2_COMPRESSION |
			       QCOW2_EXTENDED_L2;
	uint64_t unknown = h->incompatible & ~known;
	char name[FEATURE_BYTES];

	if (unknown) {
		feature_name(b, len, h->header_len, (unsigned)__builtin_ctzll(unknown), name);
		return err_set(e, ENOTSUP, "needs a feature that is not known here: %s", name);
	}
	if (h->incompatible & QCOW2_DATA_FILE)
		return err_set(e, ENOTSUP, "an external data file is not supported");
	if (h->crypt)
		return err_set(e, ENOTSUP, "it is encrypted, which is not supported");
	if (!!(h->incompatible & QCOW2_COMPRESSION) != !!h->compression_type)
		return err_set(e, EINVAL, "the compression type contradicts its feature bit");
	if (h->compression_type > 1)
		return err_set(e, ENOTSUP, "compression type %u is not known", h->compression_type);
	return 0;
}

static bool table_is_possible(uint64_t offset, uint64_t bytes, uint64_t cluster_bytes)
{
	return offset % cluster_bytes == 0 && offset < BIT(56) && bytes < BIT(56);
}

static int check_tables(const struct qcow2_header *h, struct err *e)
{
	const uint64_t cluster = BIT(h->cluster_bits);
	const unsigned l2_bits = h->cluster_bits - (h->incompatible & QCOW2_EXTENDED_L2 ? 4 : 3);
	const unsigned covers = h->cluster_bits + l2_bits; /* log2 of what an L1 entry covers */

	if (h->size > INT64_MAX)
		return err_set(e, EFBIG, "the disk is too large");
	if ((uint64_t)h->l1_size * 8 > QCOW2_MAX_L1_BYTES)
		return err_set(e, EFBIG, "the L1 table is too large (%u entries)", h->l1_size);
	if ((h->size >> covers) + !!(h->size & (BIT(covers) - 1)) > h->l1_size)
		return err_set(e, EINVAL, "the L1 table is too small for the disk");
	if (!table_is_possible(h->l1_offset, (uint64_t)h->l1_size * 8, cluster) ||
	    (h->l1_size && !h->l1_offset))
		return err_set(e, EINVAL, "the L1 table's offset is not possible");
	if ((uint64_t)h->rt_clusters << h->cluster_bits > QCOW2_MAX_RT_BYTES)
		return err_set(e, EFBIG, "the refcount table is too large");
	if (!table_is_possible(h->rt_offset, 0, cluster))
		return err_set(e, EINVAL, "the refcount table's offset is not possible");
	if (h->snapshot_count > QCOW2_MAX_SNAPSHOTS)
		return err_set(e, EFBIG, "too many snapshots (%u)", h->snapshot_count);
	if (h->snapshot_count && !table_is_possible(h->snapshots_offset, 0, cluster))
		return err_set(e, EINVAL, "the snapshot table's offset is not possible");
	return 0;
}

int qcow2_header_parse(struct qcow2_header *out, const uint8_t *bytes, size_t len, struct err *e)
{
	struct qcow2_header h = {0};
	int r;

	if (len < QCOW2_HEADER_V2 || load_be32(bytes) != QCOW2_MAGIC)
		return err_set(e, EINVAL, "not a qcow2 image");
	parse_v2(&h, bytes);
	if (h.version != 2 && h.version != 3)
		return err_set(e, ENOTSUP, "qcow2 version %u is not supported", h.version);
	if (h.cluster_bits < QCOW2_MIN_CLUSTER_BITS || h.cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return err_set(e, EINVAL, "clusters of 2^%u bytes are not supported",
			       h.cluster_bits);
	len = min_u64(len, BIT(h.cluster_bits));
	if (h.version == 3 && (r = parse_v3(&h, bytes, len, e)) < 0)
		return r;
	if (h.refcount_order > 6)
		return err_set(e, EINVAL, "refcounts of 2^%u bits are not possible",
			       h.refcount_order);
	if ((r = check_features(&h, bytes, len, e)) < 0)
		return r;
	if (h.incompatible & QCOW2_EXTENDED_L2 && h.cluster_bits < 14)
		return err_set(e, EINVAL, "extended L2 entries need clusters of 16 KiB");
	if (!h.backing_offset)
		h.backing_len = 0; /* undefined then */
	if (h.backing_len > 1023 || h.backing_offset > BIT(h.cluster_bits) - h.backing_len)
		return err_set(e, EINVAL, "the backing file's name is not in the first cluster");
	if ((r = check_tables(&h, e)) < 0)
		return r;
	*out = h;
	return 0;
}

static int parse_bitmaps(struct qcow2_header *h, const uint8_t *b, uint32_t n, struct err *e)
{
	if (n != 24)
		return err_set(e, EINVAL, "the bitmaps extension has %u bytes", n);
	h->bitmap_count = load_be32(b);
	h->bitmaps_bytes = load_be64(b + 8);
	h->bitmaps_offset = load_be64(b + 16);
	if (!h->bitmap_count || h->bitmap_count > 65535 || h->bitmaps_bytes > MIB(64) ||
	    h->bitmaps_offset % BIT(h->cluster_bits) || h->bitmaps_offset >= BIT(56))
		return err_set(e, EINVAL, "the bitmaps extension is not possible");
	return 0;
}

static int parse_extension(struct qcow2_header *h, uint32_t type, const uint8_t *b, uint32_t n,
			   char **format, struct err *e)
{
	if (type == EXT_BITMAPS)
		return parse_bitmaps(h, b, n, e);
	if (type != EXT_BACKING_FORMAT || *format)
		return 0;
	if (n > 63)
		return err_set(e, EINVAL, "the backing format's name is too long");
	*format = strndup((const char *)b, n);
	return *format ? 0 : err_set(e, ENOMEM, "backing format");
}

int qcow2_extensions_parse(struct qcow2_header *h, const uint8_t *bytes, size_t len,
			   char **backing_format, struct err *e)
{
	size_t end = h->backing_offset ? min_u64(len, h->backing_offset) : len;
	size_t at = h->header_len;
	char *format = NULL;
	int r = 0;

	while (r == 0 && at + 8 <= end && load_be32(bytes + at) != EXT_END) {
		uint32_t n = load_be32(bytes + at + 4);

		if (n > end - at - 8)
			r = err_set(e, EINVAL, "a header extension is cut off");
		else
			r = parse_extension(h, load_be32(bytes + at), bytes + at + 8, n, &format,
					    e);
		at += 8 + align_up(n, 8);
	}
	if (r < 0)
		free(format);
	else
		*backing_format = format;
	return r;
}

/* --- building --- */

struct out {
	uint8_t *to;
	size_t at, room;
	bool full;
};

static void *out_take(struct out *o, size_t len)
{
	void *p = o->to + o->at;

	if (o->full || len > o->room - o->at) {
		o->full = true;
		return NULL;
	}
	o->at += len;
	return p;
}

static void out_extension(struct out *o, uint32_t type, const void *bytes, size_t n)
{
	uint8_t *p = out_take(o, 8 + align_up(n, 8));

	if (!p)
		return;
	store_be32(p, type);
	store_be32(p + 4, (uint32_t)n);
	if (n)
		memcpy(p + 8, bytes, n);
}

static void out_features(struct out *o)
{
	uint8_t table[ARRAY_SIZE(features) * FEATURE_BYTES] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		uint8_t *f = table + i * FEATURE_BYTES;

		f[0] = features[i].type;
		f[1] = features[i].bit;
		memcpy(f + 2, features[i].name, strlen(features[i].name));
	}
	out_extension(o, EXT_FEATURES, table, sizeof table);
}

/* The old header's extensions but the backing format. */
static void out_old_extensions(struct out *o, const struct qcow2_header *h, const uint8_t *old,
			       size_t len)
{
	size_t end = h->backing_offset ? min_u64(len, h->backing_offset) : len;

	for (size_t at = h->header_len; at + 8 <= end && load_be32(old + at) != EXT_END;) {
		uint32_t type = load_be32(old + at), n = load_be32(old + at + 4);

		if (n > end - at - 8)
			break;
		if (type != EXT_BACKING_FORMAT)
			out_extension(o, type, old + at + 8, n);
		at += 8 + align_up(n, 8);
	}
}

static void store_fields(const struct qcow2_header *h, uint8_t *b)
{
	store_be32(b, QCOW2_MAGIC);
	store_be32(b + 4, h->version);
	store_be64(b + 8, h->backing_offset);
	store_be32(b + 16, h->backing_len);
	store_be32(b + 20, h->cluster_bits);
	store_be64(b + 24, h->size);
	store_be32(b + 32, h->crypt);
	store_be32(b + 36, h->l1_size);
	store_be64(b + 40, h->l1_offset);
	store_be64(b + 48, h->rt_offset);
	store_be32(b + 56, h->rt_clusters);
	store_be32(b + 60, h->snapshot_count);
	store_be64(b + 64, h->snapshots_offset);
	if (h->version < 3)
		return;
	store_be64(b + 72, h->incompatible);
	store_be64(b + 80, h->compatible);
	store_be64(b + 88, h->autoclear);
	store_be32(b + 96, h->refcount_order);
	store_be32(b + 100, h->header_len);
	if (h->header_len > 104)
		b[104] = h->compression_type;
}

int qcow2_header_build(struct qcow2_header *h, const uint8_t *old, size_t old_len,
		       const char *backing_file, const char *backing_format, uint8_t *to,
		       size_t room, struct err *e)
{
	struct out o = {.to = to, .room = min_u64(room, BIT(h->cluster_bits))};
	const size_t name_len = backing_file ? strlen(backing_file) : 0;
	uint8_t *fields, *name;

	if (name_len > 1023 || (backing_format && strlen(backing_format) > 63))
		return err_set(e, ENAMETOOLONG, "the backing file's name is too long");
	if (!old)
		h->header_len = h->version < 3 ? QCOW2_HEADER_V2 : 112;
	memset(to, 0, room);
	fields = out_take(&o, h->header_len);
	if (fields && old)
		memcpy(fields, old, h->header_len);
	if (backing_file && backing_format)
		out_extension(&o, EXT_BACKING_FORMAT, backing_format, strlen(backing_format));
	if (old)
		out_old_extensions(&o, h, old, old_len);
	/* The table of names is a courtesy; where clusters are small, there is no room. */
	else if (h->version == 3 && room >= KIB(4))
		out_features(&o);
	out_extension(&o, EXT_END, NULL, 0);
	name = out_take(&o, name_len);
	if (!fields || o.full)
		return err_set(e, ENOSPC, "the header has no room for the backing file's name");
	if (name_len)
		memcpy(name, backing_file, name_len);
	h->backing_offset = name_len ? (uint64_t)(name - to) : 0;
	h->backing_len = (uint32_t)name_len;
	store_fields(h, to);
	return (int)o.at;
}
