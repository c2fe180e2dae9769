#include "resource/overcommit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/test.h"

/* A guest of 512 MiB that uses 64 MiB itself, its kernel 32 MiB more; the rest is caches. */
struct world {
	struct overcommit o;
	struct overcommit_guest g;
	uint64_t now_ns;
	const char *why;
};

static void set_up(struct world *w, enum overcommit_mode mode)
{
	*w = (struct world){.o.mode = mode, .g = {.ram_bytes = MIB(512), .says = true}};
}

/* busy: permille of a core */
static void looks(struct world *w, unsigned n, enum host_level host, unsigned busy)
{
	while (n--) {
		w->g.balloon_bytes = w->g.target_bytes;
		w->g.total_bytes = MIB(480) - w->g.balloon_bytes;
		w->g.available_bytes = w->g.total_bytes - MIB(64);
		w->now_ns += OVERCOMMIT_PERIOD_NS;
		w->g.used_ns += OVERCOMMIT_PERIOD_NS / 1000 * busy;
		w->why = NULL;
		w->g.target_bytes = overcommit_look(&w->o, w->now_ns, host, &w->g, &w->why);
	}
}

static void a_calm_host_takes_nothing(void **state)
{
	struct world w;

	set_up(&w, OVERCOMMIT_PRESSURE);
	looks(&w, 100, HOST_CALM, 1);
	assert_int_equal(w.g.target_bytes, 0);
	looks(&w, 100, HOST_CALM, 900);
	assert_int_equal(w.g.target_bytes, 0);
}

static void the_idle_give_first(void **state)
{
	struct world idle, busy;

	set_up(&idle, OVERCOMMIT_PRESSURE);
	set_up(&busy, OVERCOMMIT_PRESSURE);
	looks(&idle, 10, HOST_SHORT, 1);
	looks(&busy, 10, HOST_SHORT, 500);
	assert_int_equal(idle.g.target_bytes, MIB(512) - MIB(96) - MIB(48));
	assert_int_equal(busy.g.target_bytes, 0);
	looks(&busy, 1, HOST_CRITICAL, 500);
	assert_int_equal(busy.g.target_bytes, MIB(64));
	assert_string_equal(busy.why, "host");
	looks(&busy, 4, HOST_CRITICAL, 500); /* it is seen first what that did */
	assert_int_equal(busy.g.target_bytes, MIB(64));
	looks(&busy, 100, HOST_CRITICAL, 500);
	assert_in_range(busy.g.target_bytes, MIB(360), MIB(368));
}

static void it_comes_back(void **state)
{
	struct world w;

	set_up(&w, OVERCOMMIT_IDLE);
	looks(&w, 10, HOST_CALM, 1);
	assert_in_range(w.g.target_bytes, MIB(360), MIB(368));
	looks(&w, 1, HOST_CALM, 900); /* filling the balloon: does not count */
	assert_in_range(w.g.target_bytes, MIB(360), MIB(368));
	looks(&w, 20, HOST_CALM, 1);
	looks(&w, 2, HOST_CALM, 200); /* it works again */
	assert_int_equal(w.g.target_bytes, 0);
	assert_string_equal(w.why, "calm");
}

static void who_runs_out_gets_some(void **state)
{
	struct world w;
	uint64_t before;

	set_up(&w, OVERCOMMIT_IDLE);
	looks(&w, 20, HOST_CALM, 1);
	before = w.g.target_bytes;
	w.g.available_bytes = MIB(4);
	w.g.total_bytes = MIB(480) - before;
	w.g.target_bytes =
		overcommit_look(&w.o, w.now_ns + OVERCOMMIT_PERIOD_NS, HOST_SHORT, &w.g, &w.why);
	assert_string_equal(w.why, "needs");
	assert_true(w.g.target_bytes <= before - MIB(32));
}

static void lies_do_no_harm(void **state)
{
	static const uint64_t lie[] = {0, 1, MIB(64), MIB(512), UINT64_MAX / 2, UINT64_MAX};
	struct world w;

	set_up(&w, OVERCOMMIT_IDLE);
	for (unsigned i = 0; i < 6 * 6 * 6; i++) {
		w.g.total_bytes = lie[i % 6];
		w.g.available_bytes = lie[i / 6 % 6];
		w.g.balloon_bytes = lie[i / 36];
		w.now_ns += OVERCOMMIT_PERIOD_NS;
		w.g.target_bytes = overcommit_look(&w.o, w.now_ns, i % 3, &w.g, &w.why);
		assert_true(w.g.target_bytes <= MIB(512));
	}
	w.g.says = false;
	assert_int_equal(overcommit_look(&w.o, w.now_ns, HOST_CRITICAL, &w.g, &w.why),
			 w.g.target_bytes);
}

/* --- the host --- */

static void put(const char *top, const char *file, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", top, file);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void meminfo(const char *top, unsigned available)
{
	char text[128];

	snprintf(text, sizeof text, "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: %u kB\n",
		 available);
	put(top, "meminfo", text);
}

static void levels(void **state)
{
	char top[] = "/tmp/holon-host-memory-XXXXXX", command[64], path[64];
	struct host_memory h;

	assert_non_null(mkdtemp(top));
	snprintf(path, sizeof path, "%s/pressure", top);
	assert_int_equal(mkdir(path, 0755), 0);
	meminfo(top, 600);
	put(top, "pressure/memory", "some avg10=90.00 avg60=0 avg300=0 total=0\n");
	host_memory_open(&h, top);
	assert_int_equal(host_memory_look(&h), HOST_CALM); /* it is somebody's own trouble */
	meminfo(top, 400);
	assert_int_equal(host_memory_look(&h), HOST_CRITICAL);
	put(top, "pressure/memory", "some avg10=0.00 avg60=0 avg300=0 total=0\n");
	assert_int_equal(host_memory_look(&h), HOST_CALM);
	meminfo(top, 140);
	assert_int_equal(host_memory_look(&h), HOST_SHORT);
	meminfo(top, 180);
	assert_int_equal(host_memory_look(&h), HOST_SHORT); /* not yet */
	meminfo(top, 60);
	assert_int_equal(host_memory_look(&h), HOST_CRITICAL);
	meminfo(top, 90);
	assert_int_equal(host_memory_look(&h), HOST_CRITICAL);
	meminfo(top, 150);
	assert_int_equal(host_memory_look(&h), HOST_SHORT);
	put(top, "meminfo", "");
	put(top, "pressure/memory", "nothing of the kind\n");
	(void)host_memory_look(&h);
	host_memory_close(&h);
	snprintf(command, sizeof command, "rm -rf %s", top);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_calm_host_takes_nothing),
		cmocka_unit_test(the_idle_give_first),
		cmocka_unit_test(it_comes_back),
		cmocka_unit_test(who_runs_out_gets_some),
		cmocka_unit_test(lies_do_no_harm),
		cmocka_unit_test(levels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
