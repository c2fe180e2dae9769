/* test_board: surroundings for a device under test. The bus and the clock are real (the
 * clock stands where the test puts it); wires, messages, bytes and requests are written
 * down. Used by unit tests and the fuzz target. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/fake_clock.h"
#include "chipset/chipset.h"

struct test_wire {
	struct irq_line line;
	struct irq_line *to; /* passed on to, or NULL */
	bool level;
	unsigned rises;
};

struct test_board {
	struct fake_clock clock;
	struct bus *bus;
	struct device_env env;
	struct irq_line *lines[24];
	struct test_wire wire[24], extint, nmi;

	struct msi_sink msi;
	struct msi_sink *msi_to; /* passed on to, or NULL */
	unsigned msis;
	uint64_t msi_addr; /* of the last one */
	uint32_t msi_data;

	struct byte_sink sink;
	uint8_t bytes[64]; /* the first that came out */
	unsigned byte_count;

	struct machine_port machine;
	unsigned requests;
	enum machine_request request; /* the last one */
	uint32_t request_value;
};

void board_init(struct test_board *b);
void board_done(struct test_board *b);

/* A device of that type; it must work. */
struct device *board_add(struct test_board *b, const struct device_type *type);

/* A copy of d's saved bytes, from malloc. */
uint8_t *device_save(struct device *d, size_t *len);
/* Loads them; as state_result says. */
int device_load(struct device *d, const uint8_t *bytes, size_t len);

void board_out(struct test_board *b, uint16_t port, uint8_t v);
uint8_t board_in(struct test_board *b, uint16_t port);
void board_out32(struct test_board *b, uint16_t port, uint32_t v);
uint32_t board_in32(struct test_board *b, uint16_t port);
void board_store(struct test_board *b, uint64_t gpa, uint32_t v);
uint32_t board_load(struct test_board *b, uint64_t gpa);

static inline void board_advance(struct test_board *b, uint64_t ns)
{
	fake_clock_advance(&b->clock, ns);
}
