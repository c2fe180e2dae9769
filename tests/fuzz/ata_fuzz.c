/* ata_fuzz: an AHCI controller with a disk and a CD, and a driver made from the input: registers in any
 * order, command lists, FISes and tables of pieces with any bytes in them, requests of the images that
 * end in any order, late, without space or with errors, pauses and resets. Nothing may crash or hang,
 * and what the images are asked for lies in them and in the guest's memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ata/ahci_priv.h"
#include "chipset/test_board.h"

#define RAM     MIB(1)
#define BAR     0xc0000000u
#define LIST    0x1000u /* of port n: 0x1000 * n from here on */
#define FISES   0x8000u
#define TABLES  0x10000u /* of a slot of a port: 0x400 * (port * 8 + slot % 8) */
#define DATA    0x40000u
#define BYTES   (64u * 2048)
#define PORTS   2u
#define HELD    64u
#define MAX_OPS 300

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
void __wrap_block_submit(struct block *b, struct block_req *r);
uint64_t __wrap_block_size(const struct block *b);

struct world {
	struct test_board b;
	struct device *host, *ahci;
	struct io_thread *io;
	struct block_req *held[HELD];
	unsigned helds;
	bool at_once;
	const uint8_t *at, *end;
};

static struct world w; /* what is submitted finds it here */

static uint32_t take(unsigned n)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < n && w.at < w.end; i++)
		v |= (uint32_t)*w.at++ << (i * 8);
	return v;
}

static void must(bool ok)
{
	if (!ok)
		abort();
}

/* --- the images --- */

uint64_t __wrap_block_size(const struct block *b)
{
	return BYTES;
}

void __wrap_block_submit(struct block *b, struct block_req *r)
{
	uint8_t *ram = mem_span(w.b.env.mem, 0, RAM);
	uint64_t sum = 0;

	must(r->offset <= BYTES && r->len <= BYTES - r->offset);
	for (unsigned i = 0; i < r->iov_count; i++) {
		uint8_t *p = r->iov[i].iov_base;

		must(p >= ram && r->iov[i].iov_len <= (size_t)(ram + RAM - p));
		sum += r->iov[i].iov_len;
	}
	must(sum == (r->op == BLOCK_READ || r->op == BLOCK_WRITE ? r->len : 0));
	if (w.at_once) {
		r->done(r, 0);
		return;
	}
	must(w.helds < HELD);
	w.held[w.helds++] = r;
}

static void end_one(unsigned n, int result)
{
	struct block_req *r;

	if (!w.helds)
		return;
	n %= w.helds;
	r = w.held[n];
	w.held[n] = w.held[--w.helds];
	if (result == 0 && r->op == BLOCK_READ)
		for (unsigned i = 0; i < r->iov_count; i++)
			memset(r->iov[i].iov_base, 0x5a, r->iov[i].iov_len);
	r->done(r, result);
}

/* --- the driver --- */

static void put(uint32_t reg, uint32_t v)
{
	bus_write(w.b.bus, BUS_MMIO, BAR + reg, v, 4);
}

static uint32_t get(uint32_t reg)
{
	return (uint32_t)bus_read(w.b.bus, BUS_MMIO, BAR + reg, 4);
}

static void config(unsigned reg, uint32_t v)
{
	bus_write(w.b.bus, BUS_PIO, PORT_PCI_CONFIG, 0x80000000u | 6 << 11 | reg, 4);
	bus_write(w.b.bus, BUS_PIO, PORT_PCI_CONFIG + 4, v, 4);
}

static void start(unsigned port)
{
	uint32_t regs = 0x100 + port * 0x80;

	put(regs + 0x18, 0x16);
	put(regs + 0x00, LIST + port * 0x1000);
	put(regs + 0x04, 0);
	put(regs + 0x08, FISES + port * 0x1000);
	put(regs + 0x0c, 0);
	put(regs + 0x14, ~0u);
	put(regs + 0x2c, 0);
	put(regs + 0x18, 0x17);
}

static void set_up(void)
{
	struct ahci_opts o = {0};

	w.helds = 0;
	w.at_once = false;
	board_init(&w.b);
	must(mem_new(&w.b.env.mem, RAM, NULL) == 0);
	w.host = board_add(&w.b, &pci_host_type);
	must(io_thread_new(&w.io, THREAD_DISK, "ata", NULL) == 0);
	o.mem = w.b.env.mem;
	o.io = w.io;
	/* Never looked into: what would be done with it comes to the above. */
	o.drive[0] = (struct ahci_drive){
		.kind = ATA_DISK, .image = (struct block *)&w, .discard = true, .retry_ns = 1};
	o.drive[1] = (struct ahci_drive){.kind = ATA_CDROM, .image = (struct block *)&w};
	must(ahci_new(&w.ahci, w.host, 6 << 3, &o, NULL) == 0);
	config(0x24, BAR);
	config(PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	put(4, 0x80000002);
	for (unsigned i = 0; i < PORTS; i++)
		start(i);
}

/* The loop, once; it never sleeps, as there is work. */
static void turn(void)
{
	ahci_kick(container_of(w.ahci, struct ahci, dev));
	must(loop_once(io_thread_loop(w.io)) >= 0);
}

static void stop(void)
{
	w.at_once = true;
	while (w.helds)
		end_one(0, 0);
	ahci_pause(w.ahci);
}

static void tear_down(void)
{
	stop();
	w.ahci->type->free(w.ahci);
	io_thread_free(w.io);
	w.host->type->free(w.host);
	mem_free(w.b.env.mem);
	board_done(&w.b);
}

static uint8_t *ram(gpa_t at)
{
	return mem_span(w.b.env.mem, at, 1);
}

/* A command as it should be, and then some bytes of it from the input. */
static void command(void)
{
	static const uint8_t known[] = {0xec, 0x25, 0x35, 0x06, 0x2f, 0xef,
					0xea, 0x20, 0xc6, 0xa1, 0xc5};
	unsigned port = take(1) % PORTS, slot = take(1) % AHCI_SLOTS, how = take(1);
	unsigned pieces = take(1) % 5, sectors = take(1) % 32, lba = take(1);
	uint32_t table = TABLES + 0x400 * (port * 8 + slot % 8), regs = 0x100 + port * 0x80;
	uint8_t *head = ram(LIST + port * 0x1000 + slot * 32), *f = ram(table);

	store_le(head, 5 | pieces << 16, 4);
	store_le(head + 4, 0, 4);
	store_le(head + 8, table, 8);
	memset(f, 0, 0x100);
	f[0] = 0x27;
	f[1] = how & 0x40 ? 0 : 0x80;
	f[2] = how & 1 ? 0x60 | (how >> 1 & 1) : port ? 0xa0 : known[how / 2 % sizeof known];
	f[3] = how & 1 ? (uint8_t)sectors : 1;
	f[4] = (uint8_t)lba;
	f[7] = 0x40;
	f[12] = how & 1 ? (uint8_t)(slot << 3) : (uint8_t)sectors;
	for (unsigned i = 0; i < pieces; i++) {
		store_le(f + 0x80 + i * 16, DATA + take(1) * 1024, 4);
		store_le(f + 0x8c + i * 16, take(2), 4);
	}
	for (unsigned n = take(1) % 24; n; n--)
		f[take(1) % 0xd0] = (uint8_t)take(1);
	for (unsigned n = take(1) % 4; n; n--)
		head[take(1) % 32] = (uint8_t)take(1);
	if (how & 1)
		put(regs + 0x34, 1u << slot);
	put(regs + 0x38, 1u << slot);
}

static void save_and_load(void)
{
	uint8_t *saved;
	size_t len;

	stop();
	saved = device_save(w.ahci, &len);
	w.ahci->type->reset(w.ahci);
	must(device_load(w.ahci, saved, len) == 0);
	free(saved);
	w.at_once = false;
}

static void step(void)
{
	static const int results[] = {0, 0, -EIO, -ENOSPC};
	uint32_t n = take(1);

	switch (n % 12) {
	case 0 ... 3: command(); break;
	case 4 ... 5: turn(); break;
	case 6 ... 7: end_one(take(1), results[n / 12 % 4]); break;
	case 8: put(take(2) % 0x300 & ~3u, take(4)); break;
	case 9: (void)get(take(2) % 0x300 & ~3u); break;
	case 10:
		if (n / 12 % 2)
			start(take(1) % PORTS);
		else
			save_and_load();
		break;
	case 11:
		stop();
		w.ahci->type->reset(w.ahci);
		w.at_once = n / 12 % 2;
		config(0x24, BAR);
		config(PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
		for (unsigned i = 0; i < PORTS; i++)
			start(i);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	w.at = bytes;
	w.end = bytes + len;
	set_up();
	for (unsigned i = 0; i < MAX_OPS && w.at < w.end; i++)
		step();
	tear_down();
	return 0;
}
