#include "image/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/test.h"
#include "image/store_priv.h"

static char dir[64];
static struct store st;
static struct block_ctx *ctx;
static struct store_image image;
static struct err err;

static void check(int r)
{
	if (r < 0)
		fail_msg("%s", err.text);
}

static int make_all(void **state)
{
	struct block_create_opts o = {.format = "qcow2", .size = MIB(8)};
	json_t *info = json_pack("{s:s}", "suite", "s");
	char file[PATH_MAX / 2];

	strcpy(dir, "/tmp/holon-vm-test.XXXXXX");
	if (!mkdtemp(dir) || store_open(&st, dir, &err) < 0 ||
	    block_ctx_new(&ctx, NULL, BLOCK_ENGINE_AUTO, &err) < 0)
		return -1;
	store_path(&st, file, sizeof file, "images/temp/i");
	o.file = file;
	check(block_create(ctx, &o, &err));
	check(store_add(&st, "base", file, info, &err));
	check(store_find(&st, "base", &image, &err));
	json_decref(info);
	return 0;
}

static int remove_all(void **state)
{
	store_image_done(&image);
	block_ctx_free(ctx);
	remove_tree(dir);
	return 0;
}

static struct vm_place opened(struct vm_wish w)
{
	struct vm_place v;

	w.image = &image;
	w.name = "box";
	check(vm_open(&v, &st, ctx, &w, &err));
	return v;
}

static void write_byte(const struct vm_place *v, uint8_t byte)
{
	const struct block_opts o = {.file = v->disk};
	struct block *b;

	check(block_open(&b, ctx, &o, &err));
	assert_int_equal(block_size(b), MIB(8));
	assert_int_equal(block_write(b, 0, &byte, 1), 0);
	assert_int_equal(block_close(b, &err), 0);
}

static uint8_t read_byte(const struct vm_place *v)
{
	const struct block_opts o = {.file = v->disk, .read_only = true};
	struct block *b;
	uint8_t byte;

	check(block_open(&b, ctx, &o, &err));
	assert_int_equal(block_read(b, 0, &byte, 1), 0);
	block_close(b, NULL);
	return byte;
}

static void disk_of_a_vm_stays_and_the_image_is_untouched(void **state)
{
	struct vm_place v = opened((struct vm_wish){0}), again;
	struct vm_place base = {0};

	assert_true(v.made);
	write_byte(&v, 7);
	vm_done(&v);
	again = opened((struct vm_wish){0});
	assert_false(again.made);
	assert_int_equal(read_byte(&again), 7);
	strcpy(base.disk, image.file);
	assert_int_equal(read_byte(&base), 0);
	vm_done(&again);
}

static void fresh_vm_forgets_its_disk(void **state)
{
	struct vm_place v = opened((struct vm_wish){0});

	write_byte(&v, 7);
	vm_done(&v);
	v = opened((struct vm_wish){.fresh = true});
	assert_true(v.made);
	assert_int_equal(read_byte(&v), 0);
	vm_done(&v);
}

static void vm_that_runs_is_not_replaced(void **state)
{
	struct vm_place v = opened((struct vm_wish){0}), other;
	const struct block_opts o = {.file = v.disk};
	const struct vm_wish fresh = {.name = "box", .image = &image, .fresh = true};
	struct block *b;

	check(block_open(&b, ctx, &o, &err));
	assert_true(vm_open(&other, &st, ctx, &fresh, &err) < 0);
	assert_non_null(strstr(err.text, "box"));
	block_close(b, NULL);
	vm_done(&v);
}

static void ephemeral_vm_leaves_nothing(void **state)
{
	struct vm_place v = opened((struct vm_wish){.ephemeral = true});
	char disk[PATH_MAX / 2];

	write_byte(&v, 7);
	strcpy(disk, v.disk);
	vm_done(&v);
	assert_int_equal(access(disk, F_OK), -1);
	assert_true(store_path(&st, disk, sizeof disk, "vms/box"));
	assert_int_equal(access(disk, F_OK), -1);
}

static void image_stays_while_a_vm_is_based_on_it(void **state)
{
	struct vm_place v = opened((struct vm_wish){0}), again;
	const struct vm_wish w = {.name = "box", .image = &image};

	vm_done(&v);
	assert_int_equal(store_remove(&st, "base", false, &err), -EBUSY);
	assert_int_equal(store_remove(&st, "base", true, &err), 0);
	assert_int_equal(vm_open(&again, &st, ctx, &w, &err), -ENOENT);
	assert_non_null(strstr(err.text, "--fresh"));
}

static void identity_stays_until_the_seed_says_something_else(void **state)
{
	struct vm_place v = opened((struct vm_wish){0});
	const struct seed_opts a = {.user = "ana", .password = "x"}, b = {.user = "ana"};
	char first[80];

	check(vm_identify(&v, &st, "box", &a, &err));
	strcpy(first, v.instance_id);
	check(vm_identify(&v, &st, "box", &a, &err));
	assert_string_equal(v.instance_id, first);
	check(vm_identify(&v, &st, "box", &b, &err));
	assert_string_not_equal(v.instance_id, first);
	vm_done(&v);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_all, remove_all)
	const struct CMUnitTest tests[] = {
		TEST(disk_of_a_vm_stays_and_the_image_is_untouched),
		TEST(fresh_vm_forgets_its_disk),
		TEST(vm_that_runs_is_not_replaced),
		TEST(ephemeral_vm_leaves_nothing),
		TEST(image_stays_while_a_vm_is_based_on_it),
		TEST(identity_stays_until_the_seed_says_something_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
