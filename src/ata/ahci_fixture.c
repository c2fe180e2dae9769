#include "ata/ahci_fixture.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/test.h"

void fixture_image(char path[], unsigned sectors, unsigned sector_bytes, uint8_t first)
{
	int fd = mkstemp(path);
	uint8_t sector[4096];

	assert_true(fd >= 0);
	for (unsigned i = 0; i < sectors; i++) {
		memset(sector, (uint8_t)(first + i), sector_bytes);
		assert_int_equal(write(fd, sector, sector_bytes), sector_bytes);
	}
	close(fd);
}

void fixture_config(struct ahci_fixture *f, unsigned reg, uint32_t v)
{
	bus_write(f->b.bus, BUS_PIO, PORT_PCI_CONFIG, 0x80000000u | 6 << 11 | reg, 4);
	bus_write(f->b.bus, BUS_PIO, PORT_PCI_CONFIG + 4, v, 4);
}

void fixture_put(struct ahci_fixture *f, uint32_t reg, uint32_t v)
{
	board_store(&f->b, BAR + reg, v);
}

uint32_t fixture_get(struct ahci_fixture *f, uint32_t reg)
{
	return board_load(&f->b, BAR + reg);
}

uint8_t *fixture_ram(struct ahci_fixture *f, gpa_t at)
{
	return mem_span(f->b.env.mem, at, 1);
}

void fixture_init(struct ahci_fixture *f, const struct block_opts *image,
		  const struct ahci_drive *drive)
{
	struct ahci_opts o = {0};

	board_init(&f->b);
	assert_int_equal(mem_new(&f->b.env.mem, MIB(1), NULL), 0);
	f->host = board_add(&f->b, &pci_host_type);
	assert_int_equal(io_thread_new(&f->io, THREAD_DISK, "ata", NULL), 0);
	assert_int_equal(block_ctx_new(&f->ctx, io_thread_loop(f->io), BLOCK_ENGINE_THREADS, NULL),
			 0);
	assert_int_equal(block_open(&f->image, f->ctx, image, NULL), 0);
	unlink(image->file);
	o.mem = f->b.env.mem;
	o.io = f->io;
	o.drive[0] = *drive;
	o.drive[0].image = f->image;
	assert_int_equal(ahci_new(&f->ahci, f->host, 6 << 3, &o, NULL), 0);
	fixture_config(f, 0x24, BAR);
	fixture_config(f, PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	fixture_put(f, PORT + 0x00, LIST);
	fixture_put(f, PORT + 0x08, FISES);
	fixture_put(f, PORT + 0x14, 0x7dc0007f);
	fixture_put(f, P_CMD, 0x17);
	fixture_put(f, 4, 0x80000002);
}

void fixture_done(struct ahci_fixture *f)
{
	ahci_pause(f->ahci);
	f->ahci->type->free(f->ahci);
	assert_int_equal(block_close(f->image, NULL), 0);
	block_ctx_free(f->ctx);
	io_thread_free(f->io);
	f->host->type->free(f->host);
	mem_free(f->b.env.mem);
	board_done(&f->b);
}
