/* devices_test: what every device model in device_types[] must do with its state. A
 * device is brought into a random state by random accesses, saved, and loaded into a fresh
 * one, which must save the same bytes and then answer to the same accesses as the original
 * does; and saved bytes are cut and changed. */
#include "chipset/chipset.h"

#include <stdlib.h>
#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"
#include "state/crc32.h"

#define SEEDS      40
#define SCRIBBLES  300
#define FLIP_SEEDS 4
#define STEP_NS    20000000ull

/* The ports and pages that the devices answer at. */
static const struct place {
	const struct device_type *type;
	enum bus_space space;
	uint64_t base;
	unsigned len;
} places[] = {
	{&pic_type, BUS_PIO, PORT_PIC1, 2},
	{&pic_type, BUS_PIO, PORT_PIC2, 2},
	{&pic_type, BUS_PIO, PORT_ELCR, 2},
	{&pit_type, BUS_PIO, PORT_PIT, 4},
	{&pit_type, BUS_PIO, PORT_SPEAKER, 1},
	{&i8042_type, BUS_PIO, PORT_I8042, 5},
	{&i8042_type, BUS_PIO, 0x92, 1},
	{&vga_type, BUS_PIO, 0x3b0, 12},
	{&vga_type, BUS_PIO, 0x3c0, 32},
	{&rtc_type, BUS_PIO, PORT_RTC, 2},
	{&uart_type, BUS_PIO, PORT_COM1, 8},
	{&fw_cfg_type, BUS_PIO, PORT_FW_CFG, 2},
	{&debugcon_type, BUS_PIO, PORT_DEBUGCON, 1},
	{&debug_exit_type, BUS_PIO, PORT_DEBUG_EXIT, 1},
	{&test_device_type, BUS_PIO, PORT_TEST_LATCH, 4},
	{&test_device_type, BUS_PIO, PORT_TEST_LINES, 24},
	{&test_device_type, BUS_MMIO, TEST_MEMORY_BASE, 0x100},
	{&pm_type, BUS_PIO, PORT_PM_EVT, 12},
	{&plug_type, BUS_PIO, PORT_PLUG, PORT_PLUG_LEN},
	{&pci_host_type, BUS_PIO, PORT_PCI_CONFIG, 8},
	{&pci_host_type, BUS_MMIO, ECAM_BASE, 0x100},
	{&ioapic_type, BUS_MMIO, IOAPIC_BASE, 0x44},
	{&vmgenid_type, BUS_MMIO, VMGENID_BASE, 1}, /* nothing: it is in RAM */
};

static const struct place *any_place(const struct device_type *t, unsigned *seed)
{
	unsigned start = rand_r(seed) % ARRAY_SIZE(places);

	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		const struct place *p = &places[(start + i) % ARRAY_SIZE(places)];

		if (p->type == t)
			return p;
	}
	fail_msg("%s has no place in this test's table", t->name);
	return NULL;
}

static uint64_t any_address(const struct place *p, unsigned *seed)
{
	return p->base + rand_r(seed) % p->len;
}

/* Half of all values are small: they reach the registers behind index registers. */
static uint32_t any_value(unsigned *seed)
{
	uint32_t v = rand_r(seed) ^ (uint32_t)rand_r(seed) << 16;

	return v & 0x100 ? v : v & 0x0f0f0f0f;
}

static void any_input(struct device *d, unsigned r)
{
	uint8_t byte = r >> 8;
	const uint8_t key[] = {r % 2 ? 0xf0 : 0xe0, byte};
	if (d->type == &pic_type)
		irq_set(pic_input(d, r % 16), r & 0x100);
	else if (d->type == &ioapic_type)
		irq_set(ioapic_input(d, r % IOAPIC_PINS), r & 0x100);
	else if (d->type == &uart_type)
		(void)uart_input(d, &byte, 1);
	else if (d->type == &i8042_type && !i8042_type_keys(d, key, sizeof key))
		return; /* its buffer is full: no room for more */
	else if (d->type == &pm_type && r % 16 == 0)
		pm_power_button(d);
}

static uint32_t mix(uint32_t h, uint64_t v)
{
	return crc32_update(h, &v, sizeof v);
}

/* What the device shows to the outside, beyond what was read from it. */
static uint32_t mix_outputs(uint32_t h, const struct test_board *b)
{
	for (unsigned i = 0; i < ARRAY_SIZE(b->wire); i++)
		h = mix(h, b->wire[i].level);
	h = mix(h, b->extint.level);
	h = mix(h, b->msi_addr + b->msi_data);
	return h;
}

/* Random accesses, inputs and steps of time. Returns a hash of all that was seen. */
static uint32_t scribble(struct test_board *b, struct device *d, unsigned seed)
{
	uint32_t h = 0;

	for (unsigned i = 0; i < SCRIBBLES; i++) {
		const struct place *p = any_place(d->type, &seed);
		unsigned size = 1u << rand_r(&seed) % 3;

		bus_write(b->bus, p->space, any_address(p, &seed), any_value(&seed), size);
		h = mix(h, bus_read(b->bus, p->space, any_address(p, &seed), size));
		any_input(d, rand_r(&seed));
		if (rand_r(&seed) % 8 == 0)
			board_advance(b, rand_r(&seed) % STEP_NS);
		h = mix_outputs(h, b);
	}
	return h;
}

/* The bytes of a device of that type in a random state; *now is its clock. */
static uint8_t *random_state(const struct device_type *t, unsigned seed, uint64_t *now, size_t *len)
{
	struct test_board b;
	struct device *d;
	uint8_t *bytes;

	board_init(&b);
	d = board_add(&b, t);
	scribble(&b, d, seed);
	bytes = device_save(d, len);
	*now = b.clock.now_ns;
	t->free(d);
	board_done(&b);
	return bytes;
}

/* The messages seen so far are the board's, not the device's. */
static void forget_messages(struct test_board *b)
{
	b->msi_addr = b->msi_data = 0;
}

static void copy_is_the_same_device(const struct device_type *t, unsigned seed)
{
	struct test_board b1, b2;
	struct device *original, *copy;
	size_t len, len2;
	uint8_t *bytes, *again;

	board_init(&b1);
	original = board_add(&b1, t);
	scribble(&b1, original, seed);
	bytes = device_save(original, &len);

	board_init(&b2);
	b2.clock.now_ns = b1.clock.now_ns;
	copy = board_add(&b2, t);
	assert_int_equal(device_load(copy, bytes, len), 0);
	again = device_save(copy, &len2);
	assert_int_equal(len, len2);
	assert_memory_equal(bytes, again, len);

	forget_messages(&b1);
	forget_messages(&b2);
	assert_int_equal(scribble(&b1, original, seed + SEEDS), scribble(&b2, copy, seed + SEEDS));

	free(again);
	free(bytes);
	t->free(copy);
	t->free(original);
	board_done(&b2);
	board_done(&b1);
}

static void every_copy_saves_the_same_and_behaves_the_same(void **state)
{
	for (unsigned i = 0; device_types[i]; i++)
		for (unsigned seed = 1; seed <= SEEDS; seed++)
			copy_is_the_same_device(device_types[i], seed);
}

/* Loads damaged bytes into a fresh device; one that took them must live on. */
static int load_damaged(const struct device_type *t, const uint8_t *bytes, size_t len, uint64_t now,
			bool go_on)
{
	struct test_board b;
	struct device *d;
	int r;

	board_init(&b);
	b.clock.now_ns = now;
	d = board_add(&b, t);
	r = device_load(d, bytes, len);
	if (go_on && r == 0)
		(void)scribble(&b, d, len);
	t->free(d);
	board_done(&b);
	return r;
}

static void every_device_refuses_cut_bytes(void **state)
{
	for (unsigned i = 0; device_types[i]; i++) {
		uint64_t now;
		size_t len;
		uint8_t *bytes = random_state(device_types[i], 1, &now, &len);

		for (size_t cut = 0; cut < len; cut += 1 + len / 500) {
			uint8_t *exact = malloc(cut ? cut : 1); /* so that a sanitizer sees */

			memcpy(exact, bytes, cut);
			assert_int_not_equal(load_damaged(device_types[i], exact, cut, now, false),
					     0);
			free(exact);
		}
		free(bytes);
	}
}

static void every_device_refuses_flipped_bytes(void **state)
{
	for (unsigned i = 0; device_types[i]; i++) {
		uint64_t now;
		size_t len;
		uint8_t *bytes = random_state(device_types[i], 1, &now, &len);

		for (size_t at = 0; at < len; at += 1 + len / 500) {
			bytes[at] ^= 0x10;
			assert_int_not_equal(load_damaged(device_types[i], bytes, len, now, false),
					     0);
			bytes[at] ^= 0x10;
		}
		free(bytes);
	}
}

/* As a malicious writer would: makes the section's checksum right (docs/snapshot-format.md). */
static void fix_checksum(uint8_t *bytes, size_t len)
{
	size_t at = 1 + bytes[0] + 8;
	uint32_t crc = crc32_update(0, bytes, at);

	store_le(bytes + at, crc32_update(crc, bytes + at + 4, len - at - 4), 4);
}

static void every_device_survives_hostile_fields(void **state)
{
	static const uint8_t patterns[] = {0xff, 0x80, 0x01};

	for (unsigned i = 0; device_types[i]; i++) {
		for (unsigned seed = 1; seed <= FLIP_SEEDS; seed++) {
			uint64_t now;
			size_t len;
			uint8_t *bytes = random_state(device_types[i], seed, &now, &len);
			size_t fields = 1 + bytes[0] + 12;

			for (size_t at = fields; at < len; at += 1 + len / 200) {
				uint8_t old = bytes[at];

				bytes[at] ^= patterns[at % ARRAY_SIZE(patterns)];
				fix_checksum(bytes, len);
				(void)load_damaged(device_types[i], bytes, len, now, true);
				bytes[at] = old;
			}
			free(bytes);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_copy_saves_the_same_and_behaves_the_same),
		cmocka_unit_test(every_device_refuses_cut_bytes),
		cmocka_unit_test(every_device_refuses_flipped_bytes),
		cmocka_unit_test(every_device_survives_hostile_fields),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
