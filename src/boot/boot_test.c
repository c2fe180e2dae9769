/* What is no kernel, and, where there is one, a real kernel. */
#include "boot/boot_fixture.h"

#include <stdlib.h>

static void text_is_not_a_kernel(void **state)
{
	struct boot b;

	boot_bytes(&b, RAM, "#!/bin/sh\n", 10, NULL, NULL);
	assert_refused(&b, "is not a kernel");
	mem_free(b.m);
}

static void empty_file_and_directory_are_refused(void **state)
{
	struct boot_config c = {.kernel = "/"};
	struct boot b;

	boot_bytes(&b, RAM, "", 0, NULL, NULL);
	assert_refused(&b, "is empty");
	mem_free(b.m);
	boot_with(&b, RAM, &c);
	assert_refused(&b, "kernel '/' is a directory");
	mem_free(b.m);
}

static void missing_kernel_is_named(void **state)
{
	struct boot_config c = {.kernel = "/nonexistent/vmlinuz"};
	struct boot b;

	boot_with(&b, RAM, &c);
	assert_refused(&b, "kernel '/nonexistent/vmlinuz': No such file");
	mem_free(b.m);
}

/* HOLON_TEST_KERNEL names a distribution's bzImage or vmlinux; without one there is nothing to see. */
static void stock_kernel_loads(void **state)
{
	struct boot_config c = {.kernel = getenv("HOLON_TEST_KERNEL"), .cmdline = "quiet"};
	struct boot b;

	if (!c.kernel)
		skip();
	boot_with(&b, MIB(512), &c);
	assert_loads(&b);
	assert_int_not_equal(guest(&b, b.cpu.rip, 8), 0);
	mem_free(b.m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_is_not_a_kernel),
		cmocka_unit_test(empty_file_and_directory_are_refused),
		cmocka_unit_test(missing_kernel_is_named),
		cmocka_unit_test(stock_kernel_loads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
