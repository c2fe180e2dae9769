/* firmware_fuzz: the flash that keeps a UEFI's variables and fw_cfg with its DMA, under any accesses,
 * any transfer descriptors in guest memory, resets, and loads of changed state. */
#include <stdlib.h>
#include <string.h>

#include "chipset/fw_cfg.h"
#include "chipset/pflash.h"
#include "chipset/test_board.h"

#define RAM         MIB(1)
#define FLASH       0xffc00000u
#define FLASH_LEN   (4 * PFLASH_BLOCK)
#define DESCRIPTORS 0x1000u
#define MAX_OPS     400

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct world {
	struct test_board b;
	struct device *fw_cfg, *flash;
	uint8_t *bytes; /* malloc'ed, so that a byte too far is seen */
	const uint8_t *at, *end;
};

static uint64_t take(struct world *w, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n && w->at < w->end; i++)
		v |= (uint64_t)*w->at++ << (i * 8);
	return v;
}

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void saved(void *ctx, uint32_t at, uint32_t len)
{
	must(at <= FLASH_LEN && len <= FLASH_LEN - at);
}

static void make_flash(struct world *w)
{
	const struct pflash_opts o = {
		.gpa = FLASH, .bytes = w->bytes, .len = FLASH_LEN, .save = saved};

	must(pflash_new(&w->flash, w->b.bus, &o, NULL) == 0);
}

static void set_up(struct world *w)
{
	uint8_t big[3000] = {1};

	board_init(&w->b);
	must(mem_new(&w->b.env.mem, RAM, NULL) == 0);
	w->fw_cfg = board_add(&w->b, &fw_cfg_type);
	must(fw_cfg_set_file(w->fw_cfg, "etc/big", big, sizeof big, NULL) == 0);
	must(fw_cfg_set_file(w->fw_cfg, "empty", NULL, 0, NULL) == 0);
	w->bytes = calloc(1, FLASH_LEN);
	must(w->bytes);
	make_flash(w);
}

static void tear_down(struct world *w)
{
	w->flash->type->free(w->flash);
	w->fw_cfg->type->free(w->fw_cfg);
	free(w->bytes);
	mem_free(w->b.env.mem);
	board_done(&w->b);
}

/* Commands mostly where they do something, sizes as processors have them. */
static void flash_op(struct world *w, bool write)
{
	static const uint8_t known[] = {0x10, 0x20, 0x40, 0x50, 0x60, 0x70,
					0x90, 0x98, 0xd0, 0xe8, 0xff};
	unsigned how = (unsigned)take(w, 1), size = 1u << how % 4;
	uint64_t at =
		FLASH + (how & 0x40 ? FLASH_LEN - 4 + take(w, 1) % 8 : take(w, 2) % FLASH_LEN);

	if (!write)
		(void)bus_read(w->b.bus, BUS_MMIO, at, size);
	else if (how & 0x80)
		bus_write(w->b.bus, BUS_MMIO, at, known[take(w, 1) % sizeof known], size);
	else
		bus_write(w->b.bus, BUS_MMIO, at, take(w, size), size);
}

/* A buffered write as it should be, but for what the input says. */
static void flash_buffer(struct world *w)
{
	uint64_t at = FLASH + take(w, 2) % FLASH_LEN;
	unsigned n = (unsigned)take(w, 1) % 70;

	bus_write(w->b.bus, BUS_MMIO, at, 0xe8, 1);
	bus_write(w->b.bus, BUS_MMIO, at, n, 1);
	for (unsigned i = 0; i <= n; i++)
		bus_write(w->b.bus, BUS_MMIO, at + i, i, 1);
	bus_write(w->b.bus, BUS_MMIO, at, take(w, 1) % 4 ? 0xd0 : 0xff, 1);
}

static void fw_cfg_op(struct world *w)
{
	unsigned how = (unsigned)take(w, 1), size = 1u << how % 3;
	uint64_t port = PORT_FW_CFG + how / 4 % 12;

	if (how & 0x80)
		bus_write(w->b.bus, BUS_PIO, port, take(w, size), size);
	else
		(void)bus_read(w->b.bus, BUS_PIO, port, size);
}

static uint32_t swapped(uint32_t v)
{
	return __builtin_bswap32(v);
}

static void dma(struct world *w)
{
	static const uint16_t items[] = {0, 1, 3, 0x19, 0x20, 0x21, 0x4f, 0x50, 0xffff};
	uint32_t control = (uint32_t)take(w, 1), len = (uint32_t)take(w, control & 0x40 ? 4 : 2);
	uint64_t to = control & 0x20 ? take(w, 8) : take(w, 3) % RAM, at = DESCRIPTORS;
	uint8_t d[16];

	control = (control & 0x1f) | (uint32_t)items[take(w, 1) % ARRAY_SIZE(items)] << 16;
	store_le(d, swapped(control), 4);
	store_le(d + 4, swapped(len), 4);
	store_le(d + 8, swapped((uint32_t)(to >> 32)), 4);
	store_le(d + 12, swapped((uint32_t)to), 4);
	must(mem_write(w->b.env.mem, at, d, sizeof d) == 0);
	if (take(w, 1) % 8 == 0)
		at = take(w, 1) % 2 ? RAM - take(w, 1) % 32 : take(w, 8);
	bus_write(w->b.bus, BUS_PIO, PORT_FW_CFG + 4, swapped((uint32_t)(at >> 32)), 4);
	bus_write(w->b.bus, BUS_PIO, PORT_FW_CFG + 8, swapped((uint32_t)at), 4);
}

/* A device that refuses is good for nothing: a new one takes its place. */
static void flash_state(struct world *w)
{
	size_t len;
	uint8_t *bytes = device_save(w->flash, &len);

	for (unsigned n = (unsigned)take(w, 1) % 8; n; n--)
		bytes[take(w, 1) % len] = (uint8_t)take(w, 1);
	if (device_load(w->flash, bytes, len) < 0) {
		w->flash->type->free(w->flash);
		make_flash(w);
	}
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct world *w = calloc(1, sizeof *w);

	must(w);
	w->at = bytes;
	w->end = bytes + len;
	set_up(w);
	for (unsigned i = 0; i < MAX_OPS && w->at < w->end; i++) {
		switch (take(w, 1) % 16) {
		case 0 ... 4: flash_op(w, true); break;
		case 5 ... 6: flash_op(w, false); break;
		case 7 ... 8: flash_buffer(w); break;
		case 9 ... 10: fw_cfg_op(w); break;
		case 11 ... 13: dma(w); break;
		case 14: flash_state(w); break;
		case 15:
			w->flash->type->reset(w->flash);
			w->fw_cfg->type->reset(w->fw_cfg);
			break;
		}
	}
	tear_down(w);
	free(w);
	return 0;
}
