#include "chipset/vga.h"

#include "base/test.h"
#include "chipset/test_board.h"

#define CRTC 0x3d4
#define SEQ  0x3c4
#define TEXT 0xb8000

static struct test_board b;
static struct device *vga;
static struct vga_text t;

static int setup(void **state)
{
	board_init(&b);
	if (mem_new(&b.env.mem, MIB(1), NULL) < 0)
		return -1;
	vga = board_add(&b, &vga_type);
	return 0;
}

static int teardown(void **state)
{
	vga_type.free(vga);
	mem_free(b.env.mem);
	board_done(&b);
	return 0;
}

static void set(uint16_t port, uint8_t index, uint8_t value)
{
	bus_write(b.bus, BUS_PIO, port, index | value << 8, 2);
}

static uint8_t get(uint16_t port, uint8_t index)
{
	board_out(&b, port, index);
	return board_in(&b, port + 1);
}

static void draw(unsigned gpa, uint16_t cell)
{
	assert_int_equal(mem_write(b.env.mem, gpa, &cell, 2), 0);
}

static void after_a_reset_it_shows_80_by_25(void **state)
{
	vga_read_text(vga, &t);
	assert_int_equal(t.columns, 80);
	assert_int_equal(t.rows, 25);
	assert_false(t.graphics || t.blank);
	assert_true(t.cursor && t.blinking);
	assert_int_equal(t.cursor_x + t.cursor_y, 0);
}

static void text_is_what_stands_in_memory(void **state)
{
	draw(TEXT, 0x1741);
	draw(TEXT + 2 * (80 * 24 + 79), 0x075a);
	vga_read_text(vga, &t);
	assert_int_equal(t.cell[0][0], 0x1741);
	assert_int_equal(t.cell[24][79], 0x075a);
}

static void the_start_address_scrolls_and_wraps(void **state)
{
	draw(TEXT + 2 * 80, 0x0742);
	draw(TEXT, 0x0741);
	set(CRTC, 0x0d, 80);
	set(CRTC, 0x0f, 85);
	vga_read_text(vga, &t);
	assert_int_equal(t.cell[0][0], 0x0742);
	assert_int_equal(t.cursor_x, 5);
	assert_int_equal(t.cursor_y, 0);
	set(CRTC, 0x0c, 0x3f); /* 32 KiB less one row */
	set(CRTC, 0x0d, 0xb0);
	vga_read_text(vga, &t);
	assert_int_equal(t.cell[1][0], 0x0741);
}

static void eight_lines_a_row_are_50_rows(void **state)
{
	set(CRTC, 0x09, 0x47);
	vga_read_text(vga, &t);
	assert_int_equal(t.rows, 50);
}

static void no_registers_make_more_than_there_is_room_for(void **state)
{
	set(CRTC, 0x11, 0);
	set(CRTC, 0x01, 0xff);
	set(CRTC, 0x07, 0xff);
	set(CRTC, 0x12, 0xff);
	set(CRTC, 0x09, 0);
	vga_read_text(vga, &t);
	assert_int_equal(t.columns, VGA_COLUMNS_MAX);
	assert_int_equal(t.rows, VGA_ROWS_MAX);
	set(CRTC, 0x12, 0);
	set(CRTC, 0x07, 0);
	set(CRTC, 0x09, 0x9f);
	set(CRTC, 0x13, 0);
	vga_read_text(vga, &t);
	assert_int_equal(t.rows, 0);
	assert_false(t.cursor);
}

static void a_cursor_can_be_off(void **state)
{
	set(CRTC, 0x0a, 0x2d);
	vga_read_text(vga, &t);
	assert_false(t.cursor);
	set(CRTC, 0x0a, 0x0f); /* begins below its end */
	vga_read_text(vga, &t);
	assert_false(t.cursor);
}

static void a_mode_without_text_and_a_dark_screen_are_told(void **state)
{
	set(0x3ce, 6, 0x05);
	vga_read_text(vga, &t);
	assert_true(t.graphics);
	set(0x3ce, 6, 0x0e);
	set(SEQ, 1, 0x20);
	vga_read_text(vga, &t);
	assert_true(t.blank && !t.graphics);
}

static void a_mono_screen_is_elsewhere_with_its_registers(void **state)
{
	board_out(&b, 0x3c2, 0x66);
	assert_int_equal(board_in(&b, CRTC), 0xff);
	assert_int_equal(get(0x3b4, 1), 79);
	set(0x3ce, 6, 0x0a);
	draw(0xb0000, 0x0750);
	vga_read_text(vga, &t);
	assert_int_equal(t.cell[0][0], 0x0750);
}

static void crtc_registers_can_be_protected(void **state)
{
	set(CRTC, 0x01, 39); /* protected after a reset */
	assert_int_equal(get(CRTC, 1), 79);
	set(CRTC, 0x11, 0x0e);
	set(CRTC, 0x01, 39);
	assert_int_equal(get(CRTC, 1), 39);
}

static void attributes_take_index_and_data_by_turns(void **state)
{
	board_in(&b, 0x3da);
	board_out(&b, 0x3c0, 0x05);
	board_out(&b, 0x3c0, 0x2a);
	board_out(&b, 0x3c0, 0x05);
	assert_int_equal(board_in(&b, 0x3c1), 0x2a);
	board_in(&b, 0x3da); /* the next is an index again */
	board_out(&b, 0x3c0, 0x30);
	assert_int_equal(board_in(&b, 0x3c1), 0x0c);
	assert_int_equal(board_in(&b, 0x3c0), 0x30);
}

static void the_palette_counts_on(void **state)
{
	board_out(&b, 0x3c8, 255);
	for (unsigned i = 0; i < 6; i++)
		board_out(&b, 0x3c9, 0x41 + i);
	board_out(&b, 0x3c7, 255);
	assert_int_equal(board_in(&b, 0x3c7), 3);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(board_in(&b, 0x3c9), 1 + i);
}

/* As programs wait for it. */
static void the_retrace_comes_70_times_a_second(void **state)
{
	unsigned edges = 0;
	bool before = false;

	for (unsigned i = 0; i < 100000; i++) {
		bool now = board_in(&b, 0x3da) & 8;

		edges += now && !before;
		before = now;
		board_advance(&b, 10000);
	}
	assert_in_range(edges, 69, 71);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(after_a_reset_it_shows_80_by_25),
		T(text_is_what_stands_in_memory),
		T(the_start_address_scrolls_and_wraps),
		T(eight_lines_a_row_are_50_rows),
		T(no_registers_make_more_than_there_is_room_for),
		T(a_cursor_can_be_off),
		T(a_mode_without_text_and_a_dark_screen_are_told),
		T(a_mono_screen_is_elsewhere_with_its_registers),
		T(crtc_registers_can_be_protected),
		T(attributes_take_index_and_data_by_turns),
		T(the_palette_counts_on),
		T(the_retrace_comes_70_times_a_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
