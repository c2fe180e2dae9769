#include "chipset/pflash.h"

#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"

#define BASE 0xffc00000u
#define LEN  (4 * PFLASH_BLOCK)

static struct test_board b;
static struct device *flash;
static uint8_t bytes[LEN];
static uint32_t saved_at, saved_len, saves;

static void save(void *ctx, uint32_t at, uint32_t len)
{
	saved_at = at;
	saved_len = len;
	saves++;
}

static int setup(void **state)
{
	const struct pflash_opts o = {.gpa = BASE, .bytes = bytes, .len = LEN, .save = save};

	board_init(&b);
	memset(bytes, 0xff, sizeof bytes);
	saves = 0;
	return pflash_new(&flash, b.bus, &o, NULL);
}

static int teardown(void **state)
{
	flash->type->free(flash);
	board_done(&b);
	return 0;
}

static void put(uint32_t at, uint8_t v)
{
	bus_write(b.bus, BUS_MMIO, BASE + at, v, 1);
}

static uint8_t get(uint32_t at)
{
	return (uint8_t)bus_read(b.bus, BUS_MMIO, BASE + at, 1);
}

static void a_byte_is_programmed_and_only_loses_bits(void **state)
{
	put(5, 0x10);
	put(5, 0xa5);
	assert_int_equal(get(0), 0x80);
	put(0, 0xff);
	assert_int_equal(get(5), 0xa5);
	assert_int_equal(saved_at, 5);
	assert_int_equal(saved_len, 1);
	put(5, 0x40);
	put(5, 0x0f);
	put(0, 0xff);
	assert_int_equal(get(5), 0x05);
}

static void a_block_is_erased_and_no_more(void **state)
{
	memset(bytes, 0, sizeof bytes);
	put(PFLASH_BLOCK + 100, 0x20);
	put(PFLASH_BLOCK + 100, 0xd0);
	put(0, 0xff);
	assert_int_equal(get(PFLASH_BLOCK - 1), 0);
	assert_int_equal(get(PFLASH_BLOCK), 0xff);
	assert_int_equal(get(2 * PFLASH_BLOCK - 1), 0xff);
	assert_int_equal(get(2 * PFLASH_BLOCK), 0);
	assert_int_equal(saved_at, PFLASH_BLOCK);
	assert_int_equal(saved_len, PFLASH_BLOCK);
}

static void an_erase_without_confirmation_is_an_error_until_cleared(void **state)
{
	memset(bytes, 0, sizeof bytes);
	put(0, 0x20);
	put(0, 0x12);
	assert_int_equal(get(0), 0xb0);
	put(0, 0x50);
	put(0, 0x70);
	assert_int_equal(get(0), 0);
	put(0, 0xff);
	assert_int_equal(get(0), 0);
	assert_int_equal(saves, 0);
}

static void a_buffer_is_written_when_it_is_confirmed(void **state)
{
	put(0x40, 0xe8);
	put(0x40, 7);
	bus_write(b.bus, BUS_MMIO, BASE + 0x40, 0x1122334455667788, 8);
	assert_int_equal(saves, 0);
	put(0x40, 0xd0);
	put(0, 0xff);
	assert_int_equal(bus_read(b.bus, BUS_MMIO, BASE + 0x40, 8), 0x1122334455667788);
	assert_int_equal(saved_len, 8);
}

static void a_buffer_never_passes_the_chips_end(void **state)
{
	put(0, 0xe8);
	put(0, 63);
	put(LEN - 1, 1);
	put(0, 2); /* not the next byte */
	assert_int_equal(get(0), 0x90);
	put(0, 0xff);
	assert_int_equal(get(LEN - 1), 0xff);
}

static void it_says_what_it_is(void **state)
{
	put(0x55, 0x98);
	assert_int_equal(get(0x10), 'Q');
	assert_int_equal(get(0x11), 'R');
	assert_int_equal(get(0x12), 'Y');
	assert_int_equal(get(0x2d), 3);
	put(0, 0x90);
	assert_int_equal(get(0), 0x89);
}

static void its_state_goes_through_a_snapshot(void **state)
{
	struct state *writer = state_writer(), *reader;
	const void *saved;
	size_t len;

	put(1, 0x10);
	put(1, 0x11);
	put(1, 0x10);
	state_begin(writer, "pflash", 0);
	flash->type->state(flash, writer);
	state_end(writer);
	saved = state_written(writer, &len);
	memset(bytes, 0, sizeof bytes);
	flash->type->reset(flash);
	reader = state_reader(saved, len);
	state_begin(reader, "pflash", 0);
	flash->type->state(flash, reader);
	state_end(reader);
	assert_int_equal(state_result(reader, NULL), 0);
	state_free(reader);
	state_free(writer);
	put(2, 0x22); /* the data of the command above */
	put(0, 0xff);
	assert_int_equal(get(1), 0x11);
	assert_int_equal(get(2), 0x22);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_byte_is_programmed_and_only_loses_bits),
		TEST(a_block_is_erased_and_no_more),
		TEST(an_erase_without_confirmation_is_an_error_until_cleared),
		TEST(a_buffer_is_written_when_it_is_confirmed),
		TEST(a_buffer_never_passes_the_chips_end),
		TEST(it_says_what_it_is),
		TEST(its_state_goes_through_a_snapshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
