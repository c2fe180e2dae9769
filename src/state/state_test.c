#include "state/state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/test.h"
#include "state/crc32.h"

struct thing {
	bool on;
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;
	uint8_t bytes[5];
};

static const struct thing full = {true, 0x12, 0x3456, 0x789abcde, 0xfedcba9876543210, "abcd"};

static void walk_thing(struct state *s, struct thing *t)
{
	state_bool(s, "on", &t->on);
	state_u8(s, "u8", &t->u8);
	state_u16(s, "u16", &t->u16);
	state_u32(s, "u32", &t->u32);
	state_u64(s, "u64", &t->u64);
	state_bytes(s, "bytes", t->bytes, sizeof t->bytes);
}

/* Appends section thing.instance. */
static void write_thing(struct state *s, uint32_t instance, const struct thing *t)
{
	struct thing copy = *t;

	state_begin(s, "thing", instance);
	walk_thing(s, &copy);
	state_end(s);
}

static int read_thing(const void *bytes, size_t len, uint32_t instance, struct thing *t,
		      struct err *e)
{
	struct state *s = state_reader(bytes, len);
	int r;

	state_begin(s, "thing", instance);
	walk_thing(s, t);
	state_end(s);
	r = state_result(s, e);
	state_free(s);
	return r;
}

/* Bytes of a file with things 0 and 1. The writer owns them. */
static struct state *two_things(const uint8_t **bytes, size_t *len)
{
	struct state *s = state_writer();
	struct thing empty = {0};
	struct err e;

	write_thing(s, 0, &empty);
	write_thing(s, 1, &full);
	assert_int_equal(state_result(s, &e), 0);
	*bytes = state_written(s, len);
	return s;
}

static void what_is_written_is_read(void **unused)
{
	const uint8_t *bytes;
	size_t len;
	struct state *w = two_things(&bytes, &len);
	struct thing got;
	struct err e;

	memset(&got, 0xee, sizeof got);
	got.on = false;
	assert_int_equal(read_thing(bytes, len, 1, &got, &e), 0);
	assert_true(got.on);
	assert_int_equal(got.u8, full.u8);
	assert_int_equal(got.u16, full.u16);
	assert_int_equal(got.u32, full.u32);
	assert_int_equal(got.u64, full.u64);
	assert_memory_equal(got.bytes, full.bytes, sizeof full.bytes);
	assert_int_equal(read_thing(bytes, len, 0, &got, &e), 0);
	assert_int_equal(got.u64, 0);
	state_free(w);
}

static void the_bytes_are_as_the_format_says(void **unused)
{
	static const uint8_t expected_head[] = {3, 'd', 'e', 'v', 7, 0, 0, 0, 11, 0, 0, 0};
	static const uint8_t expected_field[] = {3, 'i', 'e', 'r', 3, 2, 0, 0, 0, 0x34, 0x12};
	struct state *s = state_writer();
	uint16_t ier = 0x1234;
	const uint8_t *bytes;
	uint32_t crc;
	size_t len;

	state_begin(s, "dev", 7);
	state_u16(s, "ier", &ier);
	state_end(s);
	bytes = state_written(s, &len);
	assert_int_equal(len, 12 + 4 + 11);
	assert_memory_equal(bytes, expected_head, 12);
	assert_memory_equal(bytes + 16, expected_field, 11);
	crc = crc32_update(crc32_update(0, bytes, 12), bytes + 16, 11);
	assert_int_equal(load_le(bytes + 12, 4), crc);
	state_free(s);
}

static void the_checksum_is_the_usual_one(void **unused)
{
	assert_int_equal(crc32_update(0, "123456789", 9), 0xcbf43926);
	assert_int_equal(crc32_update(crc32_update(0, "1234", 4), "56789", 5), 0xcbf43926);
}

static void any_flipped_bit_is_noticed(void **unused)
{
	const uint8_t *bytes;
	size_t len;
	struct state *w = two_things(&bytes, &len);
	uint8_t copy[512];
	struct thing got;
	struct err e;

	assert_true(len < sizeof copy);
	for (size_t bit = 0; bit < len * 8; bit++) {
		memcpy(copy, bytes, len);
		copy[bit / 8] ^= 1 << bit % 8;
		got = full;
		assert_true(read_thing(copy, len, 0, &got, &e) < 0 ||
			    read_thing(copy, len, 1, &got, &e) < 0);
		assert_true(e.text[0]);
	}
	state_free(w);
}

static void any_cut_is_noticed(void **unused)
{
	const uint8_t *bytes;
	size_t len;
	struct state *w = two_things(&bytes, &len);
	struct thing got;
	struct err e;

	for (size_t cut = 0; cut < len; cut++)
		assert_true(read_thing(bytes, cut, 1, &got, &e) < 0);
	state_free(w);
}

static void a_failed_field_is_not_changed(void **unused)
{
	struct state *w = state_writer(), *s;
	uint32_t v = 5, got = 77;
	uint64_t other = 88;
	const void *bytes;
	struct err e;
	size_t len;

	state_begin(w, "dev", 0);
	state_u32(w, "v", &v);
	state_end(w);
	bytes = state_written(w, &len);

	s = state_reader(bytes, len);
	state_begin(s, "dev", 0);
	state_u64(s, "v", &other);
	state_u32(s, "v", &got); /* after a failure, nothing happens */
	state_end(s);
	assert_int_equal(state_result(s, &e), -EBADMSG);
	assert_string_equal(e.text, "section 'dev' 0: field 'v' is no u64");
	assert_int_equal(other, 88);
	assert_int_equal(got, 77);
	state_free(s);
	state_free(w);
}

static void bytes_of_another_length_are_refused(void **unused)
{
	struct state *w = state_writer(), *s;
	uint8_t five[5] = {0}, four[4];
	const void *bytes;
	struct err e;
	size_t len;

	state_begin(w, "dev", 0);
	state_bytes(w, "rx", five, sizeof five);
	state_end(w);
	bytes = state_written(w, &len);

	s = state_reader(bytes, len);
	state_begin(s, "dev", 0);
	state_bytes(s, "rx", four, sizeof four);
	state_end(s);
	assert_int_equal(state_result(s, &e), -EBADMSG);
	assert_string_equal(e.text, "section 'dev' 0: field 'rx' has 5 bytes instead of 4");
	state_free(s);
	state_free(w);
}

/* A file of section dev 0 with u8 fields of the given names, NULL-ended. */
static struct state *file_with(const char *const names[])
{
	struct state *w = state_writer();
	uint8_t v = 9;

	state_begin(w, "dev", 0);
	for (; *names; names++)
		state_u8(w, *names, &v);
	state_end(w);
	return w;
}

#define FILE_WITH(...) file_with((const char *const[]){__VA_ARGS__, NULL})

/* Reads field a, and b which may be missing, and what state_result says. */
static int read_a_b(struct state *w, uint8_t *a, uint8_t *b, struct err *e)
{
	size_t len;
	const void *bytes = state_written(w, &len);
	struct state *s = state_reader(bytes, len);
	int r;

	state_begin(s, "dev", 0);
	state_u8(s, "a", a);
	state_u8_or(s, "b", b, 42);
	state_end(s);
	r = state_result(s, e);
	state_free(s);
	state_free(w);
	return r;
}

static void fields_may_stand_in_any_order(void **unused)
{
	uint8_t a = 0, b = 0;
	struct err e;

	assert_int_equal(read_a_b(FILE_WITH("b", "a"), &a, &b, &e), 0);
	assert_int_equal(a, 9);
	assert_int_equal(b, 9);
}

static void a_new_field_takes_its_default_in_an_old_file(void **unused)
{
	uint8_t a = 0, b = 0;
	struct err e;

	assert_int_equal(read_a_b(FILE_WITH("a"), &a, &b, &e), 0);
	assert_int_equal(b, 42);
}

static void a_missing_field_is_named(void **unused)
{
	uint8_t a = 0, b = 0;
	struct err e;

	assert_int_equal(read_a_b(FILE_WITH("b"), &a, &b, &e), -EBADMSG);
	assert_string_equal(e.text, "section 'dev' 0: field 'a' is missing");
}

static void an_unknown_field_is_refused_unless_it_may_be_ignored(void **unused)
{
	uint8_t a = 0, b = 0;
	struct err e;

	assert_int_equal(read_a_b(FILE_WITH("a", "~hint"), &a, &b, &e), 0);
	assert_int_equal(read_a_b(FILE_WITH("a", "turbo"), &a, &b, &e), -EBADMSG);
	assert_string_equal(e.text, "section 'dev' 0: unknown field 'turbo'");
}

static void a_field_given_twice_is_refused(void **unused)
{
	uint8_t a = 0, b = 0;
	struct err e;

	assert_int_equal(read_a_b(FILE_WITH("a", "b", "a"), &a, &b, &e), -EBADMSG);
}

static void a_section_given_twice_is_refused(void **unused)
{
	struct state *w = state_writer();
	struct thing got;
	struct err e;
	size_t len;

	write_thing(w, 0, &full);
	write_thing(w, 0, &full);
	const void *bytes = state_written(w, &len);
	assert_int_equal(read_thing(bytes, len, 0, &got, &e), -EBADMSG);
	assert_string_equal(e.text, "section 'thing' 0: is there more than once");
	assert_int_equal(read_thing(bytes, len, 1, &got, &e), -EBADMSG);
	assert_string_equal(e.text, "section 'thing' 1: is missing");
	state_free(w);
}

static void a_walker_can_refuse_a_value(void **unused)
{
	struct state *w = FILE_WITH("a");
	struct err e;
	uint8_t a;
	size_t len;
	const void *bytes = state_written(w, &len);
	struct state *s = state_reader(bytes, len);

	state_begin(s, "dev", 0);
	state_u8(s, "a", &a);
	state_fail(s, "a of %u is past the FIFO", a);
	state_end(s);
	assert_true(state_failed(s));
	assert_int_equal(state_result(s, &e), -EBADMSG);
	assert_string_equal(e.text, "section 'dev' 0: a of 9 is past the FIFO");
	state_free(s);
	state_free(w);
}

static void a_bool_that_is_neither_is_refused(void **unused)
{
	const uint8_t *bytes;
	size_t len, at;
	struct state *w = two_things(&bytes, &len);
	struct thing got = full;
	uint8_t copy[512];
	struct err e;

	/* Forge thing 0's first field, and a checksum that fits. */
	memcpy(copy, bytes, len);
	at = 1 + 5 + 12;
	copy[at + 1 + 2 + 5] = 2;
	store_le(copy + at - 4,
		 crc32_update(crc32_update(0, copy, at - 4), copy + at, load_le(copy + at - 8, 4)),
		 4);
	assert_int_equal(read_thing(copy, len, 0, &got, &e), -EBADMSG);
	assert_string_equal(e.text, "section 'thing' 0: field 'on' is neither true nor false");
	state_free(w);
}

static void the_printer_shows_each_field_on_a_line(void **unused)
{
	struct state *s = state_printer();

	write_thing(s, 1, &full);
	assert_string_equal(state_text(s), "thing.1.on = true\n"
					   "thing.1.u8 = 0x12\n"
					   "thing.1.u16 = 0x3456\n"
					   "thing.1.u32 = 0x789abcde\n"
					   "thing.1.u64 = 0xfedcba9876543210\n"
					   "thing.1.bytes = 6162636400\n");
	write_thing(s, 2, &full);
	assert_non_null(strstr(state_text(s), "thing.1.bytes = 6162636400\nthing.2.on = true\n"));
	state_free(s);
}

static void an_empty_file_and_printer_are_fine(void **unused)
{
	struct state *s = state_reader("", 0);
	struct err e;

	assert_int_equal(state_result(s, &e), 0);
	state_free(s);
	s = state_printer();
	assert_string_equal(state_text(s), "");
	state_free(s);
	state_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(the_bytes_are_as_the_format_says),
		cmocka_unit_test(the_checksum_is_the_usual_one),
		cmocka_unit_test(any_flipped_bit_is_noticed),
		cmocka_unit_test(any_cut_is_noticed),
		cmocka_unit_test(a_failed_field_is_not_changed),
		cmocka_unit_test(bytes_of_another_length_are_refused),
		cmocka_unit_test(fields_may_stand_in_any_order),
		cmocka_unit_test(a_new_field_takes_its_default_in_an_old_file),
		cmocka_unit_test(a_missing_field_is_named),
		cmocka_unit_test(an_unknown_field_is_refused_unless_it_may_be_ignored),
		cmocka_unit_test(a_field_given_twice_is_refused),
		cmocka_unit_test(a_section_given_twice_is_refused),
		cmocka_unit_test(a_walker_can_refuse_a_value),
		cmocka_unit_test(a_bool_that_is_neither_is_refused),
		cmocka_unit_test(the_printer_shows_each_field_on_a_line),
		cmocka_unit_test(an_empty_file_and_printer_are_fine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
