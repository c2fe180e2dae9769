#include "chipset/fw_cfg.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "chipset/chipset.h"

/* Reading past an item's end, or an unknown one, gives zeros. No item can be written. */

#define ITEM_SIGNATURE 0x00
#define ITEM_ID        0x01
#define ITEM_RAM_SIZE  0x03
#define ITEM_NB_CPUS   0x05
#define ITEM_MAX_CPUS  0x0f
#define ITEM_DIRECTORY 0x19
#define ITEM_FILES     0x20 /* the first file's number */
#define ITEMS          (ITEM_FILES + 48)

#define ID_PORTS 1u
#define ID_DMA   2u

#define DATA_AT    1
#define DMA_PORTS  (PORT_FW_CFG + 4)
#define DMA_ERROR  0x01u
#define DMA_READ   0x02u
#define DMA_SKIP   0x04u
#define DMA_SELECT 0x08u
#define DMA_WRITE  0x10u
#define DMA_BYTES  16u /* a descriptor: control, length, address; big-endian */

#define DIRECTORY_ENTRY 64

struct item {
	uint8_t *bytes;
	uint32_t len;
	char name[FW_CFG_NAME_MAX + 1]; /* files only */
};

struct fw_cfg {
	struct device dev;
	struct bus_region ports, dma;
	struct bus *bus;
	struct guest_mem *mem; /* NULL: no DMA */
	struct item item[ITEMS];

	pthread_mutex_t lock; /* guards all below */
	uint16_t selected;
	uint32_t offset;   /* of the next byte, at most the item's length */
	uint32_t dma_high; /* upper half of the descriptor's address */
};

static struct fw_cfg *to_fw_cfg(struct device *d)
{
	return container_of(d, struct fw_cfg, dev);
}

static void store_be(uint8_t *to, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		to[i] = (uint8_t)(v >> (size - 1 - i) * 8);
}

static uint64_t load_be(const uint8_t *from, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v = v << 8 | from[i];
	return v;
}

/* --- what there is --- */

static int set(struct item *i, const void *bytes, uint32_t len, struct err *e)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy)
		return err_set(e, ENOMEM, "fw_cfg: an item of %u bytes", len);
	if (len)
		memcpy(copy, bytes, len);
	free(i->bytes);
	i->bytes = copy;
	i->len = len;
	return 0;
}

static int set_number(struct fw_cfg *f, unsigned item, uint64_t v, unsigned size, struct err *e)
{
	uint8_t bytes[8];

	store_le(bytes, v, size);
	return set(&f->item[item], bytes, size, e);
}

static int update_directory(struct fw_cfg *f, struct err *e)
{
	uint8_t bytes[4 + (ITEMS - ITEM_FILES) * DIRECTORY_ENTRY] = {0};
	uint32_t n = 0;

	for (unsigned i = ITEM_FILES; i < ITEMS && *f->item[i].name; i++, n++) {
		uint8_t *entry = bytes + 4 + n * DIRECTORY_ENTRY;

		store_be(entry, f->item[i].len, 4);
		store_be(entry + 4, i, 2);
		memcpy(entry + 8, f->item[i].name, FW_CFG_NAME_MAX + 1);
	}
	store_be(bytes, n, 4);
	return set(&f->item[ITEM_DIRECTORY], bytes, 4 + n * DIRECTORY_ENTRY, e);
}

int fw_cfg_set_item(struct device *d, enum fw_cfg_item item, const void *bytes, uint32_t len,
		    struct err *e)
{
	return set(&to_fw_cfg(d)->item[item], bytes, len, e);
}

int fw_cfg_set_file(struct device *d, const char *name, const void *bytes, uint32_t len,
		    struct err *e)
{
	struct fw_cfg *f = to_fw_cfg(d);
	unsigned i = ITEM_FILES;
	int r;

	if (!*name || strlen(name) > FW_CFG_NAME_MAX)
		return err_set(e, EINVAL, "fw_cfg: file '%.80s': at most %d bytes are a name", name,
			       FW_CFG_NAME_MAX);
	while (i < ITEMS && *f->item[i].name && strcmp(f->item[i].name, name) != 0)
		i++;
	if (i == ITEMS)
		return err_set(e, ENOSPC, "fw_cfg: file '%s' is one too many", name);
	r = set(&f->item[i], bytes, len, e);
	if (r < 0)
		return r;
	memcpy(f->item[i].name, name, strlen(name) + 1);
	return update_directory(f, e);
}

/* --- the guest's side; called with lock held --- */

/* The selected item; one without bytes when there is none of that number. */
static const struct item *selected(const struct fw_cfg *f)
{
	static const struct item none;

	return f->selected < ITEMS ? &f->item[f->selected] : &none;
}

static void fw_cfg_select(struct fw_cfg *f, uint16_t item)
{
	f->selected = item;
	f->offset = 0;
}

/* The next len bytes are passed by; returns where they are, *have of them. */
static const uint8_t *advance(struct fw_cfg *f, uint32_t len, uint32_t *have)
{
	const struct item *i = selected(f);
	const uint8_t *at = i->bytes ? i->bytes + f->offset : NULL;

	*have = (uint32_t)min_u64(len, i->len - f->offset);
	f->offset += *have;
	return at;
}

/* The next len bytes into RAM, zeros behind the item's end. */
static bool dma_read(struct fw_cfg *f, gpa_t to, uint32_t len)
{
	uint8_t *p = mem_span(f->mem, to, len);
	const uint8_t *from;
	uint32_t have;

	if (!p)
		return false;
	from = advance(f, len, &have);
	if (have)
		memcpy(p, from, have);
	memset(p + have, 0, len - have);
	mem_written(f->mem, p, len);
	return true;
}

static bool transfer(struct fw_cfg *f, uint32_t control, uint32_t len, gpa_t at)
{
	uint32_t have;

	if (control & DMA_SELECT)
		fw_cfg_select(f, (uint16_t)(control >> 16));
	if (control & DMA_READ)
		return !len || dma_read(f, at, len);
	if (control & DMA_WRITE)
		return !len;
	if (control & DMA_SKIP)
		advance(f, len, &have);
	return true;
}

static void run_dma(struct fw_cfg *f, gpa_t descriptor)
{
	uint8_t d[DMA_BYTES], answer[4];
	bool ok;

	if (mem_read(f->mem, descriptor, d, sizeof d) < 0)
		return; /* and nowhere to say so */
	ok = transfer(f, (uint32_t)load_be(d, 4), (uint32_t)load_be(d + 4, 4), load_be(d + 8, 8));
	store_be(answer, ok ? 0 : DMA_ERROR, 4);
	(void)!mem_write(f->mem, descriptor, answer, sizeof answer);
}

/* --- registers --- */

static uint64_t ports_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, ports);
	const uint8_t *at;
	uint32_t have;
	AUTO_LOCK(&f->lock);

	if (offset != DATA_AT)
		return 0;
	at = advance(f, 1, &have);
	return have ? *at : 0;
}

static void ports_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, ports);
	AUTO_LOCK(&f->lock);

	if (offset == 0 && size == 2)
		fw_cfg_select(f, (uint16_t)value);
}

static uint64_t dma_port_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	static const uint8_t signature[] = "QEMU CFG";

	return load_le(signature + offset, size);
}

/* The register is big-endian; writing its lower half starts the transfer. */
static void dma_port_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, dma);
	uint32_t high;
	AUTO_LOCK(&f->lock);

	if (size == 4 && offset == 0)
		f->dma_high = __builtin_bswap32((uint32_t)value);
	if (size != 4 || offset != 4)
		return;
	high = f->dma_high;
	f->dma_high = 0;
	run_dma(f, (uint64_t)high << 32 | __builtin_bswap32((uint32_t)value));
}

/* --- */

static void fw_cfg_reset(struct device *d)
{
	struct fw_cfg *f = to_fw_cfg(d);
	AUTO_LOCK(&f->lock);

	fw_cfg_select(f, 0);
	f->dma_high = 0;
}

static void fw_cfg_state(struct device *d, struct state *s)
{
	struct fw_cfg *f = to_fw_cfg(d);
	AUTO_LOCK(&f->lock);

	state_u16(s, "selected", &f->selected);
	state_u32(s, "offset", &f->offset);
	state_u32(s, "dma_high", &f->dma_high);
	if (state_loading(s) && !state_failed(s) && f->offset > selected(f)->len)
		state_fail(s, "offset %u is past the item", f->offset);
}

static void fw_cfg_free(struct device *d)
{
	struct fw_cfg *f;

	if (!d)
		return;
	f = to_fw_cfg(d);
	bus_unmap(f->bus, &f->ports);
	bus_unmap(f->bus, &f->dma);
	for (unsigned i = 0; i < ITEMS; i++)
		free(f->item[i].bytes);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static int numbers(struct fw_cfg *f, const struct device_env *env, struct err *e)
{
	int r = set(&f->item[ITEM_SIGNATURE], "QEMU", 4, e); /* the interface's name */

	if (r == 0)
		r = set_number(f, ITEM_ID, ID_PORTS | (f->mem ? ID_DMA : 0), 4, e);
	if (r == 0)
		r = set_number(f, ITEM_RAM_SIZE, env->ram_bytes, 8, e);
	if (r == 0)
		r = set_number(f, ITEM_NB_CPUS, env->cpus, 2, e);
	if (r == 0)
		r = set_number(f, ITEM_MAX_CPUS, env->cpus, 2, e);
	return r < 0 ? r : update_directory(f, e);
}

static int fw_cfg_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct fw_cfg *f = calloc(1, sizeof *f);
	int r;

	if (!f)
		return err_set(e, ENOMEM, "fw_cfg");
	f->dev.type = &fw_cfg_type;
	f->bus = env->bus;
	f->mem = env->mem;
	f->ports = (struct bus_region){"fw-cfg", 1, 2, ports_read, ports_write};
	f->dma = (struct bus_region){"fw-cfg-dma", 1, 4, dma_port_read, dma_port_write};
	pthread_mutex_init(&f->lock, NULL);
	r = numbers(f, env, e);
	if (r == 0)
		r = bus_map(env->bus, BUS_PIO, PORT_FW_CFG, 2, &f->ports, e);
	if (r == 0 && f->mem)
		r = bus_map(env->bus, BUS_PIO, DMA_PORTS, 8, &f->dma, e);
	if (r < 0)
		fw_cfg_free(&f->dev);
	else
		*out = &f->dev;
	return r;
}

const struct device_type fw_cfg_type = {
	.name = "fw-cfg",
	.new = fw_cfg_new,
	.reset = fw_cfg_reset,
	.state = fw_cfg_state,
	.free = fw_cfg_free,
};
