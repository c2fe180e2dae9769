#include "chipset/plug.h"

#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"

#define UP    (PORT_PLUG + 0x00)
#define DOWN  (PORT_PLUG + 0x04)
#define EJECT (PORT_PLUG + 0x08)

static struct test_board b;
static struct device *plug;
static unsigned slots_left, last_slot;

static void slot_left(struct plug_owner *o, unsigned slot)
{
	slots_left++;
	last_slot = slot;
}

static struct plug_owner owner = {slot_left};

static int setup(void **state)
{
	board_init(&b);
	plug = board_add(&b, &plug_type);
	plug_set_owner(plug, &owner);
	slots_left = last_slot = 0;
	return 0;
}

static int teardown(void **state)
{
	plug_type.free(plug);
	board_done(&b);
	return 0;
}

static void a_filled_slot_is_told_once(void **state)
{
	plug_slot_fill(plug, 16, false);
	assert_int_equal(b.wire[IRQ_PLUG].rises, 0);
	assert_int_equal(board_in32(&b, UP), 0);
	plug_slot_fill(plug, 17, true);
	assert_int_equal(b.wire[IRQ_PLUG].rises, 1);
	assert_int_equal(board_in32(&b, UP), 1u << 17);
	board_out32(&b, UP, 1u << 17);
	assert_int_equal(board_in32(&b, UP), 0);
}

static void a_slot_is_left_once(void **state)
{
	assert_false(plug_slot_ask(plug, 20));
	plug_slot_fill(plug, 20, false);
	assert_true(plug_slot_ask(plug, 20));
	assert_int_equal(b.wire[IRQ_PLUG].rises, 1);
	assert_int_equal(board_in32(&b, DOWN), 1u << 20);
	board_out32(&b, EJECT, ~(1u << 20));
	assert_int_equal(slots_left, 0);
	board_out32(&b, EJECT, ~0u);
	assert_int_equal(slots_left, 1);
	assert_int_equal(last_slot, 20);
	assert_int_equal(board_in32(&b, DOWN), 0);
	board_out32(&b, EJECT, ~0u);
	assert_int_equal(slots_left, 1);
	assert_false(plug_slot_take(plug, 20));
}

/* What the machine has taken the guest cannot let go of any more. */
static void who_takes_a_slot_first_has_it(void **state)
{
	plug_slot_fill(plug, 9, false);
	assert_true(plug_slot_take(plug, 9));
	board_out32(&b, EJECT, 1u << 9);
	assert_int_equal(slots_left, 0);
	plug_slot_pulled(plug, 9);
	assert_int_equal(board_in32(&b, DOWN), 1u << 9);
	assert_true(plug_slot_mourned(plug, 9));
	/* Something else comes before the guest has let go of what was there. */
	plug_slot_fill(plug, 9, true);
	board_out32(&b, EJECT, 1u << 9);
	assert_int_equal(slots_left, 0);
	assert_false(plug_slot_mourned(plug, 9));
	board_out32(&b, EJECT, 1u << 9);
	assert_int_equal(slots_left, 1);
}

static void nonsense_does_nothing(void **state)
{
	for (unsigned at = 0; at < PORT_PLUG_LEN; at++) {
		board_out(&b, PORT_PLUG + at, 0xff);
		board_in(&b, PORT_PLUG + at);
	}
	assert_int_equal(slots_left, 0);
}

static void a_reset_keeps_what_is_there(void **state)
{
	plug_slot_fill(plug, 16, true);
	plug_type.reset(plug);
	assert_int_equal(board_in32(&b, UP), 0);
	assert_true(plug_slot_take(plug, 16));
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_filled_slot_is_told_once),    TEST(a_slot_is_left_once),
		TEST(who_takes_a_slot_first_has_it), TEST(nonsense_does_nothing),
		TEST(a_reset_keeps_what_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
