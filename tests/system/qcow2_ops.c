/* qcow2_ops: what qcow2_test.py has Holon's block layer do with an image.
 *
 *   qcow2_ops create FILE SIZE [OPTION=VALUE...]
 *   qcow2_ops read FILE OUT [SNAPSHOT]     the disk's contents to a file
 *   qcow2_ops ops FILE FLAT SEED COUNT     random operations, on the image and on FLAT
 *   qcow2_ops pack FILE FLAT               writes FLAT's contents compressed
 *   qcow2_ops resize FILE SIZE
 *   qcow2_ops check FILE none|leaks|all    prints corruptions and leaks that are left
 *   qcow2_ops snapshots FILE               prints their ids and names
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "block/block.h"
#include "block/qcow2.h"

static struct block_ctx *ctx;
static struct err err;

static int fail(const char *what)
{
	fprintf(stderr, "qcow2_ops: %s: %s\n", what, err.text);
	return 1;
}

static int image_open(struct block **b, struct block_opts o)
{
	return block_open(b, ctx, &o, &err) < 0 ? fail("open") : 0;
}

static int image_close(struct block *b)
{
	return block_close(b, &err) < 0 ? fail("close") : 0;
}

static bool option(struct block_create_opts *o, char *text)
{
	char *value = strchr(text, '=');

	if (!value)
		return false;
	*value++ = 0;
	if (!strcmp(text, "cluster_size"))
		o->cluster_size = (uint32_t)atoi(value);
	else if (!strcmp(text, "refcount_bits"))
		o->refcount_bits = (unsigned)atoi(value);
	else if (!strcmp(text, "version"))
		o->version = (unsigned)atoi(value);
	else if (!strcmp(text, "lazy_refcounts"))
		o->lazy_refcounts = true;
	else if (!strcmp(text, "extended_l2"))
		o->extended_l2 = true;
	else if (!strcmp(text, "zstd"))
		o->zstd = true;
	else if (!strcmp(text, "backing_file"))
		o->backing_file = value;
	else if (!strcmp(text, "backing_format"))
		o->backing_format = value;
	else if (!strcmp(text, "prealloc"))
		o->prealloc = (enum block_prealloc)atoi(value);
	else
		return false;
	return true;
}

static int create(int n, char **word)
{
	struct block_create_opts o = {
		.file = word[0], .format = "qcow2", .size = strtoull(word[1], NULL, 0)};

	for (int i = 2; i < n; i++)
		if (!option(&o, word[i]))
			return 2;
	return block_create(ctx, &o, &err) < 0 ? fail("create") : 0;
}

static int read_all(int n, char **word)
{
	struct block *b;
	int r = image_open(&b, (struct block_opts){.file = word[0],
						   .read_only = true,
						   .snapshot = n > 2 ? word[2] : NULL});
	AUTO_FREE uint8_t *buf = malloc(MIB(1));
	AUTO_FCLOSE FILE *out = fopen(word[1], "w");

	if (r)
		return r;
	for (uint64_t at = 0; out && r == 0 && at < block_size(b);) {
		uint64_t len = min_u64(MIB(1) - 4096 * (at / MIB(3)), block_size(b) - at);

		r = block_read(b, at, buf, len) < 0 || fwrite(buf, 1, len, out) != len;
		at += len;
	}
	return image_close(b) || r;
}

/* --- random operations --- */

struct game {
	struct block *b;
	uint8_t *flat, *buf;
	uint64_t size, cluster, rng;
	bool keeps_discarded; /* version 2 over a backing image */
};

static uint64_t pick(struct game *g, uint64_t below)
{
	g->rng ^= g->rng << 13;
	g->rng ^= g->rng >> 7;
	g->rng ^= g->rng << 17;
	return below ? g->rng % below : 0;
}

static int discard(struct game *g, uint64_t offset, uint64_t len)
{
	uint64_t start = align_up(offset, g->cluster), end = offset + len;
	int r = block_discard(g->b, offset, len);

	if (end != g->size)
		end = align_down(end, g->cluster);
	if (start < end && g->keeps_discarded)
		return r == 0 ? block_read(g->b, start, g->flat + start, end - start) : r;
	if (start < end)
		memset(g->flat + start, 0, end - start);
	return r;
}

static int one(struct game *g)
{
	static const unsigned grains[] = {512, 4096, 1, 65536};
	uint64_t grain = grains[pick(g, 4)], offset = align_down(pick(g, g->size), grain);
	uint64_t len = min_u64((1 + pick(g, 20)) * grain, g->size - offset);

	switch (pick(g, 12)) {
	case 0: return block_flush(g->b);
	case 1: return discard(g, offset, len);
	case 2:
	case 3: memset(g->flat + offset, 0, len); return block_zero(g->b, offset, len, pick(g, 2));
	case 4:
	case 5:
		if (block_read(g->b, offset, g->buf, len) < 0 ||
		    memcmp(g->buf, g->flat + offset, len))
			return -1;
		return 0;
	default:
		for (uint64_t i = 0; i < len; i++)
			g->flat[offset + i] = (uint8_t)(g->rng >> (i % 56)) | 1;
		return block_write(g->b, offset, g->flat + offset, len);
	}
}

static uint8_t *map_file(const char *path, uint64_t *size)
{
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	*size = (uint64_t)st.st_size;
	p = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static int play(int n, char **word)
{
	struct game g = {.rng = strtoull(word[2], NULL, 0) * 2 + 1};
	struct qcow2_info info;
	uint64_t flat_size = 0;
	int r = image_open(
		&g.b, (struct block_opts){.file = word[0], .discard = true, .metadata_bytes = 1});

	if (r)
		return r;
	g.flat = map_file(word[1], &flat_size);
	g.size = block_size(g.b);
	g.buf = malloc(MIB(4));
	if (!g.flat || flat_size != g.size || !g.buf || qcow2_get_info(g.b, &info) < 0)
		return fail("flat file");
	g.cluster = info.cluster_bytes;
	g.keeps_discarded = info.version == 2 && block_backing(g.b);
	for (int i = 0; r == 0 && i < atoi(word[3]); i++)
		r = one(&g);
	if (r)
		fprintf(stderr, "qcow2_ops: an operation failed: %d\n", r);
	free(g.buf);
	return image_close(g.b) || r;
}

static int pack(int n, char **word)
{
	struct qcow2_info info;
	struct block *b;
	uint64_t size;
	uint8_t *flat = map_file(word[1], &size);
	int r = image_open(&b, (struct block_opts){.file = word[0]});

	if (r || !flat || size != block_size(b) || qcow2_get_info(b, &info) < 0)
		return fail("pack");
	for (uint64_t at = 0; r == 0 && at < size; at += info.cluster_bytes)
		r = qcow2_write_compressed(b, at, flat + at,
					   min_u64(info.cluster_bytes, size - at));
	return image_close(b) || r;
}

static int resize(int n, char **word)
{
	struct block *b;
	int r = image_open(&b, (struct block_opts){.file = word[0], .discard = true});

	if (r)
		return r;
	r = block_resize(b, strtoull(word[1], NULL, 0), BLOCK_PREALLOC_OFF, &err);
	if (r < 0)
		fail("resize");
	return image_close(b) || r;
}

static void print_finding(void *c, const char *text)
{
	fprintf(stderr, "%s\n", text);
}

static int check(int n, char **word)
{
	enum qcow2_fix fix = word[1][0] == 'n'   ? QCOW2_FIX_NONE
			     : word[1][0] == 'l' ? QCOW2_FIX_LEAKS
						 : QCOW2_FIX_ALL;
	struct qcow2_check found = {.report = print_finding};
	struct block *b;
	int r = image_open(&b, (struct block_opts){.file = word[0],
						   .read_only = fix == QCOW2_FIX_NONE,
						   .no_backing = true,
						   .repair_later = true});

	if (r)
		return r;
	r = qcow2_check(b, fix, &found, &err);
	if (r < 0)
		fail("check");
	printf("%llu %llu\n", (unsigned long long)(found.corruptions + found.check_errors),
	       (unsigned long long)found.leaks);
	return image_close(b) || r;
}

static int snapshots(int n, char **word)
{
	struct qcow2_info info;
	struct block *b;
	int r = image_open(&b, (struct block_opts){.file = word[0], .read_only = true});

	if (r || qcow2_get_info(b, &info) < 0)
		return 1;
	for (unsigned i = 0; i < info.snapshot_count; i++)
		printf("%s %s %llu\n", info.snapshots[i].id, info.snapshots[i].name,
		       (unsigned long long)info.snapshots[i].disk_size);
	return image_close(b);
}

static const struct {
	const char *name;
	int words;
	int (*run)(int n, char **word);
} commands[] = {
	{"create", 2, create},       {"read", 2, read_all}, {"ops", 4, play},
	{"pack", 2, pack},           {"resize", 2, resize}, {"check", 2, check},
	{"snapshots", 1, snapshots},
};

int main(int argc, char **argv)
{
	int r = 2;

	if (block_ctx_new(&ctx, NULL, BLOCK_ENGINE_AUTO, &err) < 0)
		return fail("context");
	for (unsigned i = 0; argc > 1 && i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name) && argc - 2 >= commands[i].words)
			r = commands[i].run(argc - 2, argv + 2);
	block_ctx_free(ctx);
	return r ? r == 2 ? 2 : 1 : 0;
}
