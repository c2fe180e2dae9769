/* firmware: a BIOS or UEFI image as the machine's ROM. */
#include "boot/boot_priv.h"

#include <errno.h>
#include <string.h>

#define PAGE       4096u
#define SHADOW_LEN KIB(128) /* of a BIOS that stands below 1 MiB, too */
#define E820_LEN   20

static int check_size(const struct image *f, struct err *e)
{
	if (f->size % PAGE || f->size < KIB(64) || f->size > MEM_ROM_MAX)
		return image_fail(f, e, ENOEXEC,
				  "is no firmware: %llu bytes, where 64 KiB to 16 MiB in whole "
				  "pages are expected",
				  (unsigned long long)f->size);
	return 0;
}

int firmware_size(const char *path, uint64_t *bytes, struct err *e)
{
	struct image f;
	int r = image_open(&f, "firmware", path, e);

	if (r < 0)
		return r;
	r = check_size(&f, e);
	if (r == 0)
		*bytes = f.size;
	image_close(&f);
	return r;
}

static int load(struct guest_mem *m, const struct image *f, struct err *e)
{
	const struct mem_region *rom = mem_rom(m);
	uint64_t shadow = min_u64(f->size, SHADOW_LEN);
	int r;

	if (!rom || rom->size != f->size)
		return image_fail(f, e, EIO, "has changed its size");
	r = image_read(f, 0, rom->hva, f->size, e);
	if (r < 0)
		return r;
	if (mem_write(m, EXT_RAM - shadow, rom->hva + rom->size - shadow, shadow) < 0)
		return image_fail(f, e, ENOMEM, "needs a machine with at least 1 MiB of memory");
	return 0;
}

int firmware_load(struct guest_mem *m, const char *path, struct err *e)
{
	struct image f;
	int r = image_open(&f, "firmware", path, e);

	if (r < 0)
		return r;
	r = load(m, &f, e);
	image_close(&f);
	return r;
}

uint32_t firmware_ram_map(const struct guest_mem *m, uint8_t to[FIRMWARE_MAP_MAX])
{
	const struct mem_region *r;
	unsigned n = mem_regions(m, &r);

	for (unsigned i = 0; i < n; i++) {
		store_le(to + i * E820_LEN, r[i].gpa, 8);
		store_le(to + i * E820_LEN + 8, r[i].size, 8);
		store_le(to + i * E820_LEN + 16, RAM_USABLE, 4);
	}
	return n * E820_LEN;
}
