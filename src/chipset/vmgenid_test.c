#include "base/test.h"

#include <string.h>

#include "chipset/test_board.h"

static struct test_board b;
static struct guest_mem *mem;
static struct device *device;

static int setup(void **state)
{
	struct err e;

	board_init(&b);
	if (mem_new(&mem, MIB(1), &e) < 0)
		return -1;
	b.env.mem = mem;
	device = board_add(&b, &vmgenid_type);
	return 0;
}

static int teardown(void **state)
{
	vmgenid_type.free(device);
	mem_free(mem);
	board_done(&b);
	return 0;
}

static const uint8_t one[VMGENID_LEN] = "0123456789abcde", two[VMGENID_LEN] = "edcba9876543210";

static void a_new_identifier_is_in_ram_before_the_edge_that_tells_of_it(void **state)
{
	vmgenid_renew(device, one);
	assert_memory_equal(mem_span(mem, VMGENID_BASE, VMGENID_LEN), one, VMGENID_LEN);
	assert_int_equal(b.wire[IRQ_GED].rises, 1);
	assert_false(b.wire[IRQ_GED].level);
	vmgenid_renew(device, two);
	assert_memory_equal(mem_span(mem, VMGENID_BASE, VMGENID_LEN), two, VMGENID_LEN);
	assert_int_equal(b.wire[IRQ_GED].rises, 2);
}

static void it_is_put_back_after_ram_was_cleared(void **state)
{
	vmgenid_renew(device, one);
	memset(mem_span(mem, VMGENID_BASE, VMGENID_LEN), 0, VMGENID_LEN);
	vmgenid_type.reset(device);
	vmgenid_place(device);
	assert_memory_equal(mem_span(mem, VMGENID_BASE, VMGENID_LEN), one, VMGENID_LEN);
	assert_int_equal(b.wire[IRQ_GED].rises, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_new_identifier_is_in_ram_before_the_edge_that_tells_of_it),
		T(it_is_put_back_after_ram_was_cleared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
