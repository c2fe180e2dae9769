/* bzimage: Linux's own format by the 64-bit boot protocol (Documentation/arch/x86/
 * boot.rst, protocol 2.12 and newer). The file is a real-mode setup part, of which only
 * the header at 0x1f1 matters here, and the 64-bit kernel after it; that one is entered
 * at +0x200 in long mode, with rsi at the "zero page" (struct boot_params). */
#include "boot/boot_priv.h"

#include <errno.h>
#include <string.h>

#define HEADER       0x1f1
#define HEADER_END   0x268 /* of protocol 2.12, up to handover_offset */
#define SECTOR       512
#define ENTRY64      0x200
#define PROTOCOL_MIN 0x020c

#define LOADED_HIGH      0x01
#define XLF_KERNEL_64    0x01
#define LOADER_UNDEFINED 0xff /* a boot loader without an assigned number */
#define VID_MODE_NORMAL  0xffff

/* Offsets in the file and, for the header, in the zero page alike. */
enum {
	ZP_VIDEO_MODE = 0x006, /* screen_info: mode, columns, lines, whether it is a VGA, points */
	ZP_VIDEO_COLUMNS = 0x007,
	ZP_VIDEO_LINES = 0x00e,
	ZP_VIDEO_IS_VGA = 0x00f,
	ZP_VIDEO_POINTS = 0x010,
	ZP_RSDP = 0x070, /* acpi_rsdp_addr */
	ZP_E820_COUNT = 0x1e8,
	ZP_SETUP_SECTS = 0x1f1,
	ZP_SYSSIZE = 0x1f4,
	ZP_VID_MODE = 0x1fa,
	ZP_BOOT_FLAG = 0x1fe,
	ZP_JUMP_LEN = 0x201,
	ZP_MAGIC = 0x202,
	ZP_VERSION = 0x206,
	ZP_LOADER = 0x210,
	ZP_LOADFLAGS = 0x211,
	ZP_CODE32_START = 0x214,
	ZP_RAMDISK = 0x218,
	ZP_RAMDISK_SIZE = 0x21c,
	ZP_CMDLINE = 0x228,
	ZP_INITRD_MAX = 0x22c,
	ZP_ALIGNMENT = 0x230,
	ZP_RELOCATABLE = 0x234,
	ZP_XLOADFLAGS = 0x236,
	ZP_CMDLINE_SIZE = 0x238,
	ZP_SETUP_DATA = 0x250,
	ZP_PREF_ADDRESS = 0x258,
	ZP_INIT_SIZE = 0x260,
	ZP_E820 = 0x2d0,
	ZP_LEN = 4096,
};

struct header {
	uint8_t bytes[HEADER_END];
	uint64_t payload_off, payload_len; /* the 64-bit kernel in the file */
	uint64_t load, need;               /* where it goes; RAM that it uses from there */
};

static uint64_t get(const struct header *h, unsigned off, unsigned size)
{
	return load_le(h->bytes + off, size);
}

bool bzimage_is(const struct image *f)
{
	uint8_t head[ZP_MAGIC + 4];

	return f->size >= sizeof head && image_read(f, 0, head, sizeof head, NULL) == 0 &&
	       load_le(head + ZP_BOOT_FLAG, 2) == 0xaa55 && !memcmp(head + ZP_MAGIC, "HdrS", 4);
}

static int check_header(struct header *h, const struct image *f, struct err *e)
{
	unsigned version, sectors;
	int r = image_read(f, 0, h->bytes, sizeof h->bytes, e);

	if (r < 0)
		return r;
	version = (unsigned)get(h, ZP_VERSION, 2);
	if (version < PROTOCOL_MIN)
		return image_fail(f, e, ENOEXEC,
				  "speaks boot protocol %u.%02u; 2.12 (Linux 3.8) is the oldest "
				  "supported",
				  version >> 8, version & 0xff);
	if (!(get(h, ZP_LOADFLAGS, 1) & LOADED_HIGH))
		return image_fail(f, e, ENOEXEC, "is a zImage, which loads below 640K");
	if (!(get(h, ZP_XLOADFLAGS, 2) & XLF_KERNEL_64))
		return image_fail(f, e, ENOEXEC, "is a 32-bit kernel without a 64-bit entry");

	sectors = (unsigned)get(h, ZP_SETUP_SECTS, 1);
	h->payload_off = ((sectors ? sectors : 4) + 1) * SECTOR;
	h->payload_len = get(h, ZP_SYSSIZE, 4) * 16;
	if (h->payload_off + h->payload_len > f->size) {
		/* syssize counts paragraphs, and the last need not be whole. */
		if (h->payload_off + h->payload_len > f->size + 15)
			return image_fail(f, e, ENODATA,
					  "is truncated: %llu bytes of %llu are there",
					  (unsigned long long)f->size,
					  (unsigned long long)(h->payload_off + h->payload_len));
		h->payload_len = f->size - h->payload_off;
	}
	if (h->payload_len <= ENTRY64)
		return image_fail(f, e, ENOEXEC, "has no kernel behind its setup part");
	return 0;
}

/* pref_address where that is above 1 MiB, else the first aligned address above. A kernel
 * that was loaded lower moves itself up to pref_address, so lower is no way out. */
static int choose_address(struct header *h, const struct image *f, struct err *e)
{
	uint64_t align = get(h, ZP_ALIGNMENT, 4);
	uint64_t pref = get(h, ZP_PREF_ADDRESS, 8);
	bool relocatable = get(h, ZP_RELOCATABLE, 1) != 0;

	h->load = max_u64(pref, EXT_RAM);
	h->need = max_u64(get(h, ZP_INIT_SIZE, 4), h->payload_len);
	if (relocatable) {
		if (align == 0 || (align & (align - 1)))
			return image_fail(f, e, ENOEXEC, "asks for an alignment of 0x%llx",
					  (unsigned long long)align);
		if (h->load <= GIB(4))
			h->load = align_up(h->load, align);
	} else if (h->load != pref) {
		return image_fail(f, e, ENOEXEC, "must be loaded at 0x%llx",
				  (unsigned long long)pref);
	}
	return 0;
}

static int load_kernel(const struct boot_job *j, const struct header *h, struct err *e)
{
	uint8_t *to;
	int r = ram_place(j->m, &j->kernel, h->load, h->need, &to, e);

	if (r == 0)
		r = image_read(&j->kernel, h->payload_off, to, h->payload_len, e);
	return r;
}

static void put_memory_map(const struct guest_mem *m, uint8_t *zp)
{
	struct ram_entry map[RAM_ENTRIES_MAX];
	unsigned n = ram_map(m, map);

	for (unsigned i = 0; i < n; i++) {
		uint8_t *entry = zp + ZP_E820 + i * 20;

		store_le(entry, map[i].base, 8);
		store_le(entry + 8, map[i].len, 8);
		store_le(entry + 16, map[i].type, 4);
	}
	zp[ZP_E820_COUNT] = (uint8_t)n;
}

/* Mode 3, in which a VGA is after a reset. */
static void put_screen(uint8_t *zp)
{
	zp[ZP_VIDEO_MODE] = 3;
	zp[ZP_VIDEO_COLUMNS] = 80;
	zp[ZP_VIDEO_LINES] = 25;
	zp[ZP_VIDEO_IS_VGA] = 1;
	store_le(zp + ZP_VIDEO_POINTS, 16, 2);
}

static void put_zero_page(const struct boot_job *j, const struct header *h, uint8_t *zp)
{
	unsigned header_end = ZP_MAGIC + h->bytes[ZP_JUMP_LEN];

	memset(zp, 0, ZP_LEN);
	if (header_end > HEADER_END)
		header_end = HEADER_END;
	if (header_end > HEADER)
		memcpy(zp + HEADER, h->bytes + HEADER, header_end - HEADER);
	store_le(zp + ZP_RSDP, j->c->acpi_rsdp, 8);
	store_le(zp + ZP_VID_MODE, VID_MODE_NORMAL, 2);
	zp[ZP_LOADER] = LOADER_UNDEFINED;
	store_le(zp + ZP_CODE32_START, h->load, 4);
	store_le(zp + ZP_SETUP_DATA, 0, 8);
	store_le(zp + ZP_RAMDISK, 0, 8);
	put_memory_map(j->m, zp);
	if (j->c->vga)
		put_screen(zp);
}

static int put_cmdline(const struct boot_job *j, const struct header *h, uint8_t *zp, struct err *e)
{
	struct ram_strings strings = {.m = j->m};
	uint64_t max = get(h, ZP_CMDLINE_SIZE, 4);
	size_t len = strlen(j->cmdline);
	gpa_t at;
	int r;

	if (len > max)
		return image_fail(&j->kernel, e, E2BIG,
				  "takes a command line of at most %llu bytes, this one has %zu",
				  (unsigned long long)max, len);
	r = ram_string(&strings, j->cmdline, len, &at, e);
	if (r == 0)
		store_le(zp + ZP_CMDLINE, at, 4);
	return r;
}

static int put_initrd(const struct boot_job *j, const struct header *h, uint8_t *zp, struct err *e)
{
	struct image initrd;
	gpa_t at;
	int r = image_open(&initrd, "initrd", j->c->initrd, e);

	if (r < 0)
		return r;
	r = ram_load_high(j->m, &initrd, h->load + h->need, get(h, ZP_INITRD_MAX, 4) + 1, &at, e);
	if (r == 0) {
		store_le(zp + ZP_RAMDISK, at, 4);
		store_le(zp + ZP_RAMDISK_SIZE, initrd.size, 4);
	}
	image_close(&initrd);
	return r;
}

int bzimage_load(struct boot_job *j, struct err *e)
{
	uint8_t *zp = mem_span(j->m, BOOT_PARAMS, ZP_LEN);
	struct header h;
	int r = check_header(&h, &j->kernel, e);

	if (r == 0)
		r = choose_address(&h, &j->kernel, e);
	if (r == 0)
		r = load_kernel(j, &h, e);
	if (r < 0)
		return r;
	put_zero_page(j, &h, zp);
	r = put_cmdline(j, &h, zp, e);
	if (r == 0 && j->c->initrd)
		r = put_initrd(j, &h, zp, e);
	if (r < 0)
		return r;
	entry_long_mode(j->m, j->start, h.load + ENTRY64);
	j->start->gpr[X86_RSI] = BOOT_PARAMS;
	return 0;
}
