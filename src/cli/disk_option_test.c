#include "cli/disk_option.h"

#include <errno.h>
#include <string.h>

#include "base/test.h"

static struct disk_options got;
static struct err err;

#define PARSE(...) parse((const char *[]){__VA_ARGS__}, ARRAY_SIZE(((const char *[]){__VA_ARGS__})))

static int parse(const char *const *text, unsigned n)
{
	struct option_list list = {.n = n};

	disk_options_done(&got);
	memset(&got, 0, sizeof got);
	memcpy(list.value, text, n * sizeof *text);
	return disk_options_parse(&got, &list, &err);
}

static void an_ata_disk_has_no_keys_of_virtio(void **state)
{
	assert_int_equal(PARSE("a,bus=ata,serial=S1"), 0);
	assert_int_equal(got.disk[0].bus, DISK_ATA);
	assert_int_equal(PARSE("a,bus=ata,ro"), -EINVAL);
	assert_non_null(strstr(err.text, "leave out bus=ata"));
	assert_int_equal(PARSE("a,bus=ata,queues=2"), -EINVAL);
	assert_int_equal(PARSE("a,bus=ata,serial=123456789012345678901"), -EINVAL);
}

static int teardown(void **state)
{
	disk_options_done(&got);
	memset(&got, 0, sizeof got);
	return 0;
}

static void a_file_alone_has_safe_defaults(void **state)
{
	const struct machine_disk *d = &got.disk[0];

	assert_int_equal(PARSE("a.img"), 0);
	assert_int_equal(got.n, 1);
	assert_string_equal(d->image.file, "a.img");
	assert_null(d->image.format);
	assert_false(d->image.read_only);
	assert_int_equal(d->image.cache, BLOCK_CACHE_NONE);
	assert_true(d->image.discard);
	assert_null(d->serial);
	assert_int_equal(d->aio, BLOCK_ENGINE_AUTO);
	assert_int_equal(d->queues, 0);
	assert_int_equal(d->bus, DISK_VIRTIO);
	assert_int_equal(d->image.limits.bps + d->image.limits.iops, 0);
}

static void each_key_reaches_its_field(void **state)
{
	const struct machine_disk *d = &got.disk[0];

	assert_int_equal(PARSE("a,,b.img,format=qcow2,ro,cache=unsafe,serial=S1,bps=1M,iops=10,"
			       "bps-burst=2M,iops-burst=20,discard=off,aio=threads,queues=3"),
			 0);
	assert_string_equal(d->image.file, "a,b.img");
	assert_string_equal(d->image.format, "qcow2");
	assert_true(d->image.read_only);
	assert_int_equal(d->image.cache, BLOCK_CACHE_UNSAFE);
	assert_string_equal(d->serial, "S1");
	assert_int_equal(d->image.limits.bps, MIB(1));
	assert_int_equal(d->image.limits.bps_burst, MIB(2));
	assert_int_equal(d->image.limits.iops, 10);
	assert_int_equal(d->image.limits.iops_burst, 20);
	assert_false(d->image.discard);
	assert_int_equal(d->aio, BLOCK_ENGINE_THREADS);
	assert_int_equal(d->queues, 3);
}

static void choices_mean_what_they_say(void **state)
{
	assert_int_equal(PARSE("a,cache=none,aio=auto,format=raw", "b,cache=writeback,aio=io_uring",
			       "c,cache=writethrough"),
			 0);
	assert_int_equal(got.n, 3);
	assert_string_equal(got.disk[0].image.format, "raw");
	assert_int_equal(got.disk[0].image.cache, BLOCK_CACHE_NONE);
	assert_int_equal(got.disk[0].aio, BLOCK_ENGINE_AUTO);
	assert_int_equal(got.disk[1].image.cache, BLOCK_CACHE_WRITEBACK);
	assert_int_equal(got.disk[1].aio, BLOCK_ENGINE_URING);
	assert_int_equal(got.disk[2].image.cache, BLOCK_CACHE_WRITETHROUGH);
	assert_string_equal(got.disk[2].image.file, "c");
}

static void an_error_names_the_option(void **state)
{
	assert_int_equal(PARSE("good", "a,cache=fast"), -EINVAL);
	assert_string_equal(err.text, "--disk a,cache=fast: cache: 'fast' is none of "
				      "none|writeback|writethrough|unsafe");
	assert_int_equal(PARSE(""), -EINVAL);
}

static void there_is_a_limit(void **state)
{
	const char *many[MACHINE_DISKS_MAX + 1];

	for (unsigned i = 0; i <= MACHINE_DISKS_MAX; i++)
		many[i] = "x";
	assert_int_equal(parse(many, MACHINE_DISKS_MAX), 0);
	assert_int_equal(parse(many, MACHINE_DISKS_MAX + 1), -EINVAL);
	assert_string_equal(err.text, "--disk: 16 disks are the most");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(a_file_alone_has_safe_defaults, teardown),
		cmocka_unit_test_teardown(each_key_reaches_its_field, teardown),
		cmocka_unit_test_teardown(an_ata_disk_has_no_keys_of_virtio, teardown),
		cmocka_unit_test_teardown(choices_mean_what_they_say, teardown),
		cmocka_unit_test_teardown(an_error_names_the_option, teardown),
		cmocka_unit_test_teardown(there_is_a_limit, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
