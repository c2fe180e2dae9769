/* qcow2_fuzz: a hostile image, opened and used in every way: read, written, discarded, resized,
 * checked and repaired. An image that the check finds sound must be so after all that, too.
 *
 * An input is one byte (how to open it, what to do) and the file. Images are full of offsets:
 * the mutator puts fields of the file in each other's places, and offsets of clusters there. */
#include <stdlib.h>

#include "block/qcow2_disk.h"
#include "block/qcow2_priv.h"

#define MAX_FILE  KIB(256)
#define MAX_GROWN MIB(32)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

static uint64_t field_value(const uint8_t *file, size_t len, uint64_t *rng)
{
	const uint64_t flags = disk_random(rng, 4) << 62 | disk_random(rng, 2);

	switch (disk_random(rng, 6)) {
	case 0: return disk_random(rng, 4);
	case 1: return UINT64_MAX >> disk_random(rng, 64);
	case 2: return load_be64(file + align_down(disk_random(rng, len - 7), 8));
	default: return align_down(disk_random(rng, len + 2048), 512) | flags;
	}
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	uint64_t rng = seed * 2ull + 1, at;
	size_t len = size - 1;

	if (size < 80 || disk_random(&rng, 3) == 0)
		return LLVMFuzzerMutate(data, size, max);
	for (uint64_t n = 1 + disk_random(&rng, 3); n; n--) {
		at = disk_random(&rng, 4) ? disk_random(&rng, len - 7) : disk_random(&rng, 72);
		if (at < 104 && disk_random(&rng, 2))
			store_be32(data + 1 + align_down(at, 4),
				   (uint32_t)field_value(data + 1, len, &rng));
		else
			store_be64(data + 1 + align_down(at, 8), field_value(data + 1, len, &rng));
	}
	if (disk_random(&rng, 8) == 0)
		data[0] = (uint8_t)disk_random(&rng, 256);
	return size;
}

static bool sound(struct disk_image *i)
{
	struct qcow2_check found = {0};

	return qcow2_check(&i->block, QCOW2_FIX_NONE, &found, NULL) == 0 && !found.corruptions &&
	       !found.check_errors;
}

static void use(struct disk_image *i, uint64_t seed)
{
	static uint8_t buf[KIB(64)];
	const uint64_t size = i->block.size;
	uint64_t rng = seed * 2 + 1;

	for (unsigned n = 0; n < 24 && size; n++) {
		/* Near the beginning, where the seeds have their data, or anywhere. */
		uint64_t at =
			disk_random(&rng, disk_random(&rng, 3) ? min_u64(size, KIB(128)) : size);
		uint64_t len = min_u64(1 + disk_random(&rng, sizeof buf - 1), size - at);
		enum block_op op = n < 4 ? BLOCK_READ : (enum block_op)disk_random(&rng, 5);

		if (i->block.opts.read_only)
			op = BLOCK_READ;
		if (op == BLOCK_ZERO || op == BLOCK_DISCARD)
			len = min_u64(len * 8, size - at);
		(void)disk_image_do(i, op, at, buf, len, n & 1);
	}
}

static int resize_it(void *arg)
{
	struct disk_image *i = arg;
	uint64_t size = i->block.size;

	return qcow2_resize(&i->block, size > KIB(4) ? size / 2 : size + KIB(300),
			    BLOCK_PREALLOC_OFF, NULL);
}

static void change(struct disk_image *i, uint8_t how)
{
	struct block_extent x;
	static uint8_t cluster[MIB(2)];
	struct qcow2_info info;

	if (i->block.size)
		(void)!block_map(&i->block, 0, i->block.size, &x);
	if (i->block.opts.read_only || qcow2_get_info(&i->block, &info) < 0)
		return;
	if (how & 8)
		(void)!qcow2_write_compressed(&i->block, 0, cluster,
					      min_u64(info.cluster_bytes, i->block.size));
	if (how & 16 && i->block.size < MIB(4))
		(void)block_run(i->block.ctx, resize_it, i);
	if (how & 32)
		(void)!qcow2_set_backing(&i->block, "other.qcow2", "qcow2", NULL);
	if (how & 64 && i->block.size < MIB(64))
		(void)!qcow2_make_empty(&i->block, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct block_ctx *ctx;
	struct block_opts o = {.discard = true, .metadata_bytes = 1};
	struct qcow2_check found = {0};
	struct disk_image image;
	struct disk disk;
	bool was_sound;

	if (size < 80 || size > MAX_FILE)
		return 0;
	if (!ctx && block_ctx_new(&ctx, NULL, BLOCK_ENGINE_THREADS, NULL) < 0)
		abort();
	o.read_only = (data[0] & 3) == 1;
	o.repair_later = (data[0] & 3) == 2;
	o.snapshot = o.read_only && data[0] & 4 ? "1" : NULL;
	disk_init(&disk, ctx, data[0]);
	disk_set(&disk, data + 1, size - 1);
	disk.max_size = MAX_GROWN;
	if (disk_image_open(&image, &disk, &o, NULL, NULL) == 0) {
		was_sound = sound(&image);
		use(&image, data[0]);
		change(&image, data[0]);
		use(&image, data[0] + 1ull);
		if (was_sound && !sound(&image))
			abort();
		if (!o.read_only)
			(void)!qcow2_check(&image.block, QCOW2_FIX_ALL, &found, NULL);
		(void)disk_image_close(&image);
	}
	disk_done(&disk);
	return 0;
}
