/* Disks and cards come and go while a guest does all that it can against it: it lets go of any slot at
 * any moment, moves BARs about, and has accesses under way in devices that leave. Two vCPUs' threads,
 * the loop thread and the I/O threads; under the sanitizers it is they who find what is wrong. The engine
 * is a fake (fake_engine.h). */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/test.h"
#include "chipset/layout.h"
#include "chipset/pci.h"
#include "machine/fake_engine.h"

#define CPUS       2
#define ACTIONS    400
#define FIRST      0x0cu /* of the slots that the guest works at */
#define LAST       0x14u
#define PLACES     6u /* for BARs, so that they meet */
#define PLACE(n)   (PCI_MMIO_BASE + (n)*0x4000u)
#define PLUG_DOWN  (PORT_PLUG + 4)
#define PLUG_EJECT (PORT_PLUG + 8)
#define STATUS_AT  0x14u
#define NOTIFY_AT  0x3000u

static struct machine *m;
static struct err err;
static struct machine_result result;
static char folder[] = "/tmp/holon-machine-plug-XXXXXX";
static char kernel[64], image[64];
static struct machine_disk disk;
static const struct machine_net card = {.net = {.kind = NET_SWITCH, .name = "plug"}};
static atomic_bool polite; /* the guest lets go of what it is asked for, and of nothing else */

/* --- the guest --- */

static void config_out(struct guest *g, unsigned slot, unsigned at, uint32_t v)
{
	bus_write(g->env->bus, BUS_MMIO, ECAM_BASE + (slot << 15) + at, v, 4);
}

static void move_bars(struct guest *g, unsigned slot, unsigned *seed)
{
	config_out(g, slot, PCI_COMMAND, rand_r(seed) % 4 ? PCI_COMMAND_MEM : 0);
	config_out(g, slot, PCI_BAR0, PLACE((unsigned)rand_r(seed) % PLACES));
	config_out(g, slot, PCI_BAR0 + 4, PLACE((unsigned)rand_r(seed) % PLACES));
}

/* Driver up to DRIVER_OK, queues, kicks and resets, as chance will have it. */
static void touch(struct guest *g, unsigned *seed)
{
	static const uint8_t status[] = {1, 3, 11, 15, 0};
	uint64_t at = PLACE((unsigned)rand_r(seed) % PLACES);

	for (unsigned i = 0; i < 8; i++) {
		unsigned what = (unsigned)rand_r(seed);

		if (what % 4 == 0)
			bus_write(g->env->bus, BUS_MMIO, at + STATUS_AT,
				  status[what / 4 % sizeof status], 1);
		else if (what % 4 == 1)
			bus_write(g->env->bus, BUS_MMIO, at + NOTIFY_AT + what / 4 % 4 * 4, 0, 2);
		else if (what % 4 == 2)
			bus_write(g->env->bus, BUS_MMIO, at + (what / 4 % 0x40 & ~3u),
				  what % 8 ? 1 : (uint32_t)MIB(8), 4);
		else
			bus_read(g->env->bus, BUS_MMIO, at + (what / 4 % 0x4000 & ~3u), 4);
	}
}

static int guest_runs(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	static atomic_uint turns;
	unsigned seed = atomic_fetch_add(&turns, 1) * 2 + g->vcpu.index;

	g->again = true;
	while (!atomic_load(&g->kicked)) {
		unsigned slot = FIRST + (unsigned)rand_r(&seed) % (LAST + 1 - FIRST);

		move_bars(g, slot, &seed);
		touch(g, &seed);
		if (atomic_load(&polite))
			fake_pio_out(g, PLUG_EJECT, fake_pio_in(g, PLUG_DOWN, 4), 4);
		else if (rand_r(&seed) % 16 == 0)
			fake_pio_out(g, PLUG_EJECT, 1u << slot, 4);
	}
	return 0;
}

/* --- what is done to it, on the loop thread --- */

static struct {
	struct loop_call call;
	struct machine_attached attached;
	struct machine_watcher watcher;
	unsigned seed, actions, came, went, pending;
	bool all_out; /* nothing is there any more when it ends */
} boss;

static void part_news(struct machine_watcher *w, const char *id, bool there)
{
	boss.came += there;
	boss.went += !there;
}

static void news(struct machine_watcher *w, enum machine_news what)
{
}

static void attached(struct machine_attached *a, int r, const char *id, const struct err *e)
{
	assert_true(r == 0 || r == -EBUSY || r == -ESHUTDOWN);
	boss.pending--;
}

static void attach_disk(void)
{
	if (boss.pending)
		return;
	boss.pending++;
	assert_int_equal(machine_attach_disk(m, &disk, &boss.attached, &err), 0);
}

static void detach_any(bool pull)
{
	struct machine_part part[MACHINE_PARTS_MAX];
	unsigned n = machine_parts(m, part);
	int r = n ? machine_detach(m, part[(unsigned)rand_r(&boss.seed) % n].id, pull, &err) : 0;

	assert_true(r == 0 || r == -EBUSY || r == -EINVAL);
}

static void act(void)
{
	char id[MACHINE_ID_LEN];
	int r;

	switch (rand_r(&boss.seed) % 8) {
	case 0:
	case 1:
	case 2: attach_disk(); break;
	case 3:
		r = machine_attach_net(m, &card, id, &err);
		assert_true(r == 0 || r == -EBUSY);
		break;
	case 4: detach_any(true); break;
	case 5: machine_pause(m, MACHINE_PAUSE_ASKED); break;
	default: detach_any(false); break;
	}
	if (rand_r(&boss.seed) % 2)
		machine_resume(m, MACHINE_PAUSE_ASKED);
	if (boss.actions % 64 == 63)
		machine_reset(m);
}

static void clear_out(void)
{
	struct machine_part part[MACHINE_PARTS_MAX];

	machine_resume(m, MACHINE_PAUSE_ASKED);
	if (!boss.pending && !machine_parts(m, part))
		machine_stop(m);
	else
		detach_any(true);
}

static void next(struct loop_call *c)
{
	if (boss.actions < ACTIONS) {
		act();
		boss.actions++;
	} else if (boss.all_out) {
		clear_out();
	} else {
		machine_stop(m);
		return;
	}
	nap();
	loop_post(machine_loop(m), &boss.call);
}

static void run_it(bool all_out, bool is_polite)
{
	const struct machine_config c = {.name = "test",
					 .engine = ENGINE_JIT,
					 .cpus = CPUS,
					 .memory_bytes = MIB(16),
					 .kernel = kernel,
					 .watcher = &boss.watcher,
					 .disk = &disk,
					 .disks = 1};

	code = guest_runs;
	atomic_store(&polite, is_polite);
	memset(&boss, 0, sizeof boss);
	boss.seed = 1;
	boss.all_out = all_out;
	boss.call.run = next;
	boss.attached.done = attached;
	boss.watcher.news = news;
	boss.watcher.part = part_news;
	if (machine_new(&m, &c, &err) < 0)
		fail_msg("%s", err.text);
	loop_post(machine_loop(m), &boss.call);
	assert_int_equal(machine_run(m, &result, &err), 0);
	assert_int_equal(result.end, END_STOPPED);
	machine_free(m);
	assert_int_equal(boss.pending, 0);
	assert_true(boss.came > 10);
	assert_true(boss.went > 10);
	if (all_out)
		assert_int_equal(boss.went, boss.came + 1); /* and the first one */
}

static void devices_come_and_go_in_a_hostile_guest(void **state)
{
	run_it(true, false);
}

static void so_they_do_in_one_that_lets_go_when_asked(void **state)
{
	run_it(true, true);
}

static void the_machine_ends_while_they_come_and_go(void **state)
{
	for (unsigned i = 0; i < 3; i++)
		run_it(false, i % 2);
}

/* --- files --- */

static int put_file(char *path, size_t max, const char *name, const void *bytes, size_t len,
		    off_t size)
{
	FILE *f;

	snprintf(path, max, "%s/%s", folder, name);
	f = fopen(path, "w");
	if (!f || fwrite(bytes, 1, len, f) != len || fflush(f) || ftruncate(fileno(f), size) < 0)
		return -1;
	return fclose(f);
}

static int make_files(void **state)
{
	const uint32_t magic = 0x1badb002, flags = 0x10000;
	const uint32_t bytes[] = {magic,    flags,    -(magic + flags), 0x100000,  0x100000,
				  0x100024, 0x100024, 0x100020,         0xf4f4f4f4};

	log_set_level(LOG_ERROR); /* the guest's mistakes are many */
	if (!mkdtemp(folder) || setenv("XDG_RUNTIME_DIR", folder, 1) < 0 ||
	    put_file(kernel, sizeof kernel, "kernel", bytes, sizeof bytes, sizeof bytes) ||
	    put_file(image, sizeof image, "disk", "", 0, MIB(1)))
		return -1;
	disk = (struct machine_disk){.image = {.file = image, .format = "raw", .read_only = true},
				     .aio = BLOCK_ENGINE_THREADS};
	return 0;
}

static int remove_files(void **state)
{
	char path[64];

	snprintf(path, sizeof path, "%s/holon/switch-plug/lock", folder);
	unlink(path);
	*strrchr(path, '/') = 0;
	rmdir(path);
	snprintf(path, sizeof path, "%s/holon", folder);
	rmdir(path);
	unlink(kernel);
	unlink(image);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(devices_come_and_go_in_a_hostile_guest),
		cmocka_unit_test(so_they_do_in_one_that_lets_go_when_asked),
		cmocka_unit_test(the_machine_ends_while_they_come_and_go),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
