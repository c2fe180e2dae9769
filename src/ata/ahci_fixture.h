/* ahci_fixture: a controller with one drive at port 0, a file behind that, and RAM; what the tests
 * of drives share. Test programs only. */
#pragma once

#include "ata/ahci_priv.h"
#include "chipset/test_board.h"

#define BAR    0xc0000000u
#define PORT   0x100u
#define P_IS   (PORT + 0x10)
#define P_CMD  (PORT + 0x18)
#define P_TFD  (PORT + 0x20)
#define P_SACT (PORT + 0x34)
#define P_CI   (PORT + 0x38)
#define LIST   0x1000u /* the command list in RAM */
#define FISES  0x2000u

struct ahci_fixture {
	struct test_board b;
	struct device *host, *ahci;
	struct io_thread *io;
	struct block_ctx *ctx;
	struct block *image;
};

/* A file whose sector n, of up to 4096 bytes, is filled with first + n; removed when the fixture
 * has opened it. */
void fixture_image(char path[], unsigned sectors, unsigned sector_bytes, uint8_t first);
/* Opens the image, whose file is removed, and starts a controller with drive in front of it. */
void fixture_init(struct ahci_fixture *f, const struct block_opts *image,
		  const struct ahci_drive *drive);
void fixture_done(struct ahci_fixture *f);

void fixture_config(struct ahci_fixture *f, unsigned reg, uint32_t v);
void fixture_put(struct ahci_fixture *f, uint32_t reg, uint32_t v);
uint32_t fixture_get(struct ahci_fixture *f, uint32_t reg);
uint8_t *fixture_ram(struct ahci_fixture *f, gpa_t at);
