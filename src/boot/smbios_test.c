#include <string.h>

#include "base/test.h"
#include "boot/boot_priv.h"

#define ENTRY 0xf2000u

static struct guest_mem *mem;

static int setup(void **state)
{
	assert_int_equal(mem_new(&mem, GIB(5), NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	mem_free(mem);
	return 0;
}

/* The next structure. */
static const uint8_t *after(const uint8_t *s)
{
	s += s[1];
	while (s[0] || s[1])
		s++;
	return s + 2;
}

static const uint8_t *find(const uint8_t *s, uint8_t type, unsigned n)
{
	for (; s[0] != 127; s = after(s))
		if (s[0] == type && n-- == 0)
			return s;
	return NULL;
}

static const char *text(const uint8_t *s, uint8_t n)
{
	const char *t = (const char *)s + s[1];

	assert_true(n > 0);
	while (--n)
		t += strlen(t) + 1;
	return t;
}

static void a_kernel_finds_them_in_low_memory(void **state)
{
	const uint8_t *a, *s, *type1;
	uint8_t sum = 0, uuid[16];

	assert_int_equal(smbios_place(mem, "web", 3, NULL), 0);
	a = mem_span(mem, ENTRY, 0x1000);
	assert_memory_equal(a, "_SM3_", 5);
	for (unsigned i = 0; i < a[6]; i++)
		sum += a[i];
	assert_int_equal(sum, 0);
	s = mem_span(mem, load_le(a + 16, 8), (uint32_t)load_le(a + 12, 4));
	assert_non_null(s);
	assert_string_equal(text(find(s, 0, 0), find(s, 0, 0)[4]), "Holon");
	assert_int_equal(find(s, 0, 0)[0x13], 0x10);
	type1 = find(s, 1, 0);
	assert_string_equal(text(type1, type1[5]), "Holon");
	assert_string_equal(text(type1, type1[7]), "web");
	smbios_uuid("web", uuid);
	assert_memory_equal(type1 + 8, uuid, 16);
	assert_int_equal(find(s, 4, 0)[0x23], 3);
	assert_int_equal(load_le(find(s, 17, 0) + 0x0c, 2), 5 * 1024);
	assert_int_equal(load_le(find(s, 16, 0) + 0x0f, 8), GIB(5));
	assert_int_equal(load_le(find(s, 19, 1) + 4, 4), 4 << 20);
	assert_null(find(s, 19, 2));
	for (; s[0] != 127; s = after(s))
		;
	assert_ptr_equal(after(s), mem_span(mem, load_le(a + 16, 8), 1) + load_le(a + 12, 4));
}

static void firmware_says_itself_who_it_is(void **state)
{
	struct smbios s;

	smbios_build(&s, mem, "web", 1);
	assert_null(find(s.tables, 0, 0));
	assert_non_null(find(s.tables, 1, 0));
	assert_int_equal(load_le(s.anchor + 16, 8), 0);
}

static void a_long_name_is_cut(void **state)
{
	char name[5000];
	struct smbios s;

	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = 0;
	smbios_build(&s, mem, name, 255);
	assert_true(s.len < sizeof s.tables / 2);
	assert_int_equal(strlen(text(find(s.tables, 1, 0), find(s.tables, 1, 0)[7])),
			 SMBIOS_NAME_MAX);
	smbios_build(&s, mem, "", 1); /* an empty string would be the end of them */
	assert_int_equal(find(s.tables, 1, 0)[7], 0);
	assert_non_null(find(s.tables, 17, 0));
}

static void each_name_has_an_identifier_of_its_own(void **state)
{
	uint8_t a[16], b[16], again[16];

	smbios_uuid("a", a);
	smbios_uuid("b", b);
	smbios_uuid("a", again);
	assert_memory_not_equal(a, b, 16);
	assert_memory_equal(a, again, 16);
	assert_int_equal(a[7] >> 4, 8);
	assert_int_equal(a[8] >> 6, 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_kernel_finds_them_in_low_memory),
		TEST(firmware_says_itself_who_it_is),
		TEST(a_long_name_is_cut),
		TEST(each_name_has_an_identifier_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
