#include "cli/run_devices.h"

#include <errno.h>
#include <string.h>

#include "base/test.h"

static struct run_devices d;
static struct machine_config c;
static struct err e;

static int config(const struct run_opts *o)
{
	run_devices_done(&d);
	c = (struct machine_config){.memory_bytes = MIB(512)};
	return run_devices_config(&d, o, &c, &e);
}

static int teardown(void **state)
{
	run_devices_done(&d);
	return 0;
}

static void nothing_asked_for_leaves_a_balloon_that_takes_nothing(void **state)
{
	assert_int_equal(config(&(struct run_opts){0}), 0);
	assert_false(c.no_balloon || c.console_virtio || c.vsock || c.ports || c.balloon_bytes);
}

static void vsock_has_a_path_and_perhaps_a_cid(void **state)
{
	assert_int_equal(config(&(struct run_opts){.vsock = "/tmp/a,,b"}), 0);
	assert_string_equal(c.vsock, "/tmp/a,b");
	assert_int_equal(c.vsock_cid, 0);
	assert_int_equal(config(&(struct run_opts){.vsock = "v,cid=77"}), 0);
	assert_string_equal(c.vsock, "v");
	assert_int_equal(c.vsock_cid, 77);
	assert_true(config(&(struct run_opts){.vsock = "v,sid=77"}) < 0);
	assert_non_null(strstr(e.text, "--vsock"));
}

static void ports_have_names_and_paths(void **state)
{
	struct run_opts o = {.port = {2, {"a=unix:/tmp/a", "b=unix:x=y"}}};

	assert_int_equal(config(&o), 0);
	assert_int_equal(c.ports, 2);
	assert_string_equal(c.port[0].name, "a");
	assert_string_equal(c.port[0].path, "/tmp/a");
	assert_string_equal(c.port[1].path, "x=y");
	o.port.value[1] = "b";
	assert_int_equal(config(&o), -EINVAL);
	o.port.value[1] = "b=tcp:1";
	assert_int_equal(config(&o), -EINVAL);
	assert_non_null(strstr(e.text, "NAME=unix:PATH"));
}

static void too_many_ports_are_refused(void **state)
{
	struct run_opts o = {.port.n = MACHINE_PORTS_MAX + 1};

	for (unsigned i = 0; i < o.port.n; i++)
		o.port.value[i] = "a=unix:b";
	assert_int_equal(config(&o), -EINVAL);
}

static void shares_have_a_folder_a_tag_and_keys(void **state)
{
	struct run_opts o = {.share = {3,
				       {"/srv/a:b:tag:ro", "src:s,cache=writeback,owner=7",
					"x,,y:t,ro,owner=1000:100"}}};
	static const char *const bad[] = {"src",          "src:",           ":tag",
					  ":ro",          "src:ro",         "src:t,owner=x",
					  "src:t,owner=", "src:t,owner=1:", "src:t,cache=none"};

	assert_int_equal(config(&o), 0);
	assert_int_equal(c.shares, 3);
	assert_string_equal(c.share[0].dir, "/srv/a:b");
	assert_string_equal(c.share[0].tag, "tag");
	assert_true(c.share[0].read_only && !c.share[0].writeback && c.share[0].fd == -1);
	assert_true(c.share[1].writeback && !c.share[1].read_only);
	assert_int_equal(c.share[1].gid, 7);
	assert_string_equal(c.share[2].dir, "x,y");
	assert_true(c.share[2].read_only && c.share[2].uid == 1000 && c.share[2].gid == 100);
	o.share.n = 1;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		o.share.value[0] = bad[i];
		assert_true(config(&o) < 0);
		assert_non_null(strstr(e.text, "--share"));
	}
}

static void the_balloon_takes_what_the_guest_is_not_to_keep(void **state)
{
	assert_int_equal(config(&(struct run_opts){.balloon = "off"}), 0);
	assert_true(c.no_balloon);
	assert_int_equal(config(&(struct run_opts){.balloon = "128M"}), 0);
	assert_int_equal(c.balloon_bytes, MIB(384));
	assert_int_equal(config(&(struct run_opts){.balloon = "1G"}), -EINVAL);
	assert_int_equal(c.overcommit, OVERCOMMIT_OFF);
	assert_int_equal(config(&(struct run_opts){.balloon = "idle"}), 0);
	assert_int_equal(c.overcommit, OVERCOMMIT_IDLE);
	assert_int_equal(config(&(struct run_opts){0}), 0);
	assert_int_equal(c.overcommit, OVERCOMMIT_PRESSURE);
	assert_true(config(&(struct run_opts){.balloon = "much"}) < 0);
}

#define T(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(nothing_asked_for_leaves_a_balloon_that_takes_nothing),
		T(vsock_has_a_path_and_perhaps_a_cid),
		T(ports_have_names_and_paths),
		T(too_many_ports_are_refused),
		T(shares_have_a_folder_a_tag_and_keys),
		T(the_balloon_takes_what_the_guest_is_not_to_keep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
