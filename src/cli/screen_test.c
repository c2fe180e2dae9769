#include "cli/screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/test.h"

static struct screen s;
static struct vga_text t;
static char got[200000];
static uint32_t len, room;

static bool put(void *ctx, const char *text, uint32_t n)
{
	if (n > room)
		return false;
	room -= n;
	memcpy(got + len, text, n);
	len += n;
	got[len] = 0;
	return true;
}

static const struct screen_out out = {put, NULL};

static void begin(bool terminal)
{
	screen_init(&s, terminal);
	memset(&t, 0, sizeof t);
	t.columns = 80;
	t.rows = 25;
	len = 0;
	room = sizeof got - 1;
}

static void write_at(unsigned y, unsigned x, const char *text, uint8_t attr)
{
	for (; *text; text++)
		t.cell[y][x++] = (uint16_t)(attr << 8 | (uint8_t)*text);
}

/* The screen is drawn on from here; what came before is forgotten. Drawing may change t. */
static bool draw(void)
{
	static struct vga_text copy;

	len = 0;
	got[0] = 0;
	copy = t;
	return screen_draw(&s, &copy, &out);
}

static void draw_settled(void)
{
	draw();
	draw();
}

static void a_terminal_is_entered_once_and_then_sees_changes(void **state)
{
	begin(true);
	write_at(3, 5, "hello", 0x07);
	assert_true(draw());
	assert_non_null(strstr(got, "\033[?1049h"));
	assert_non_null(strstr(got, "hello"));
	assert_false(draw());
	assert_int_equal(len, 0);
	write_at(3, 5, "J", 0x07);
	assert_true(draw());
	assert_non_null(strstr(got, "\033[4;1H"));
	assert_non_null(strstr(got, "Jello"));
	assert_null(strstr(got, "\033[5;1H"));
}

static void colours_are_the_terminals(void **state)
{
	begin(true);
	write_at(0, 0, "a", 0x1e); /* yellow on blue */
	write_at(0, 1, "b", 0x84); /* red on bright black */
	draw();
	assert_non_null(strstr(got, "\033[0;93;44ma"));
	assert_non_null(strstr(got, "\033[0;31;100mb"));
	t.blinking = true;
	draw();
	assert_non_null(strstr(got, "\033[0;5;31;40mb"));
}

static void code_page_437_becomes_utf_8(void **state)
{
	begin(true);
	write_at(0, 0, "\xc9\xcd\xb0\x81\x01\x7f\xe1\xfe\xff|", 0x07);
	draw();
	assert_non_null(strstr(got, "╔═░ü☺⌂ß■ |"));
}

static void the_cursor_is_where_the_guest_has_it(void **state)
{
	begin(true);
	t.cursor = true;
	t.cursor_x = 7;
	t.cursor_y = 2;
	draw();
	assert_string_equal(got + len - strlen("\033[3;8H\033[?25h"), "\033[3;8H\033[?25h");
	assert_false(draw());
	assert_int_equal(len, 0);
	t.cursor = false;
	draw();
	assert_string_equal(got, "\033[?25l");
}

static void a_small_terminal_shows_the_rows_around_the_cursor(void **state)
{
	begin(true);
	screen_resize(&s, 40, 10);
	write_at(0, 0, "first", 0x07);
	write_at(24, 0, "last", 0x07);
	write_at(24, 38, "1234", 0x07);
	draw();
	assert_non_null(strstr(got, "first"));
	assert_null(strstr(got, "last"));
	t.cursor = true;
	t.cursor_y = 24;
	draw();
	assert_non_null(strstr(got, "\033[10;1H"));
	assert_non_null(strstr(got, "last"));
	assert_null(strstr(got, "first"));
	assert_non_null(strstr(got, "12\033[0m")); /* and what fits of them */
}

static void what_is_not_taken_is_drawn_the_next_time(void **state)
{
	begin(true);
	write_at(0, 0, "zero", 0x07);
	write_at(9, 0, "nine", 0x07);
	room = 160; /* the first row, not the others */
	draw();
	assert_non_null(strstr(got, "zero"));
	assert_null(strstr(got, "nine"));
	room = sizeof got / 2;
	assert_true(draw());
	assert_null(strstr(got, "zero"));
	assert_non_null(strstr(got, "nine"));
	assert_false(draw());
}

static void graphics_and_a_dark_screen(void **state)
{
	begin(true);
	write_at(0, 0, "text", 0x07);
	t.graphics = true;
	draw();
	assert_non_null(strstr(got, "shows graphics"));
	t.graphics = false;
	t.blank = true;
	draw();
	assert_null(strstr(got, "text"));
	t.blank = false;
	draw();
	assert_non_null(strstr(got, "text"));
}

static void lines_come_when_they_changed_and_rest(void **state)
{
	begin(false);
	write_at(0, 0, "one", 0x07);
	draw();
	assert_int_equal(len, 0); /* it may still be written */
	write_at(1, 0, "tw", 0x07);
	draw();
	assert_int_equal(len, 0);
	write_at(1, 0, "two  ", 0x1f);
	draw_settled();
	assert_string_equal(got, "one\ntwo\n");
	write_at(1, 0, "2", 0x07);
	draw_settled();
	assert_string_equal(got, "2wo\n");
}

static void a_screen_that_never_rests_is_told_all_the_same(void **state)
{
	char seen = 0;

	begin(false);
	for (unsigned i = 0; i < 30; i++) {
		write_at(0, 0, (const char *[]){"|", "/", "-"}[i % 3], 0x07);
		draw();
		seen += len != 0;
	}
	assert_in_range(seen, 2, 4);
}

static void lines_that_only_moved_up_are_not_told_again(void **state)
{
	char name[16];

	begin(false);
	for (unsigned y = 0; y < 25; y++) {
		snprintf(name, sizeof name, "line %u", y);
		write_at(y, 0, name, 0x07);
	}
	draw_settled();
	memmove(t.cell[0], t.cell[3], 22 * sizeof t.cell[0]);
	memset(t.cell[22], 0, 3 * sizeof t.cell[0]);
	write_at(22, 0, "line 25", 0x07);
	draw_settled();
	assert_string_equal(got, "line 25\n");
}

static void any_registers_can_be_drawn(void **state)
{
	static struct screen other;
	unsigned seed = 1;

	begin(true);
	screen_init(&other, false);
	for (unsigned i = 0; i < 3000; i++) {
		struct vga_text copy;

		if (rand_r(&seed) % 2) {
			t.columns = 1 + rand_r(&seed) % VGA_COLUMNS_MAX;
			t.rows = rand_r(&seed) % (VGA_ROWS_MAX + 1);
		}
		t.cursor = t.rows && rand_r(&seed) % 2;
		t.cursor_y = t.rows ? rand_r(&seed) % t.rows : 0;
		t.cursor_x = rand_r(&seed) % t.columns;
		t.graphics = rand_r(&seed) % 8 == 0;
		t.blinking = rand_r(&seed) % 2;
		t.cell[rand_r(&seed) % VGA_ROWS_MAX][rand_r(&seed) % VGA_COLUMNS_MAX] =
			(uint16_t)rand_r(&seed);
		if (rand_r(&seed) % 16 == 0)
			screen_resize(&s, rand_r(&seed) % 200, rand_r(&seed) % 70);
		len = 0;
		room = rand_r(&seed) % 3 ? (uint32_t)sizeof got - 1
					 : (uint32_t)rand_r(&seed) % 5000;
		draw();
		copy = t;
		len = 0;
		room = sizeof got - 1;
		screen_draw(&other, &copy, &out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_terminal_is_entered_once_and_then_sees_changes),
		cmocka_unit_test(colours_are_the_terminals),
		cmocka_unit_test(code_page_437_becomes_utf_8),
		cmocka_unit_test(the_cursor_is_where_the_guest_has_it),
		cmocka_unit_test(a_small_terminal_shows_the_rows_around_the_cursor),
		cmocka_unit_test(what_is_not_taken_is_drawn_the_next_time),
		cmocka_unit_test(graphics_and_a_dark_screen),
		cmocka_unit_test(lines_come_when_they_changed_and_rest),
		cmocka_unit_test(a_screen_that_never_rests_is_told_all_the_same),
		cmocka_unit_test(lines_that_only_moved_up_are_not_told_again),
		cmocka_unit_test(any_registers_can_be_drawn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
