/* A whole machine with a disk and two network cards on a switch of its own: the I/O threads, the
 * vCPU, which works the queues without a pause of its own, and the loop thread, which pauses,
 * resumes, resets and ends the machine meanwhile. The engine is a fake (fake_engine.h). */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/test.h"
#include "chipset/layout.h"
#include "machine/fake_engine.h"
#include "virtio/blk_priv.h"
#include "virtio/fake_slot.h"

#define DISK_BYTES MIB(1)
#define CARDS      2
#define LIVES      6  /* between resets */
#define PAUSES     20 /* in each of them */

#define SECTOR      512u
#define FRAME       60u
#define NET_HEADER  12u
#define FRAME_ROOM  2048u
#define RECEIVE_MAX 16u /* buffers */

/* Guest memory, above the rings; each card has a step of its own. */
#define DISK_AT      MIB(8)
#define CARD_AT(n)   (MIB(9) + (n)*MIB(1))
#define RECEIVE_AT   KIB(64)
#define DISK_HEADER  (DISK_AT)
#define DISK_STATUS  (DISK_AT + 16)
#define DISK_DATA    (DISK_AT + KIB(4))
#define NET_RECEIVE  0
#define NET_TRANSMIT 1

static struct machine *m;
static struct err err;
static struct machine_result result;
static char folder[] = "/tmp/holon-machine-io-XXXXXX";
static char kernel[64], image[64];

/* --- the guest's driver, on the vCPU's thread --- */

static struct {
	struct fake_slot disk, card[CARDS];
	uint64_t disk_turns; /* in this life: a write and its reading back are two */
	bool disk_busy, card_busy[CARDS];
} w;

static atomic_uint written, received; /* over all lives */
static atomic_uint life;              /* how often the guest began */
static atomic_bool may_reset;

static void start_device(struct fake_slot *s, struct guest *g, unsigned slot, unsigned n,
			 uint64_t features)
{
	fake_slot_of(s, g->env->bus, g->env->mem, m->virtio[slot], slot << 3, n);
	fake_slot_msix(s, 2);
	fake_slot_go(s, VIRTIO_F_VERSION_1 | features, 64);
	for (unsigned i = 0; i < 2; i++) {
		fake_out(s, 0x16, i, 2);
		fake_out(s, 0x1a, i, 2);
	}
}

static void offer_room(unsigned n, unsigned buffer)
{
	struct fake_driver *q = &w.card[n].q[NET_RECEIVE];

	fake_add(q, FAKE_IN(CARD_AT(n) + RECEIVE_AT + buffer * FRAME_ROOM, FRAME_ROOM));
}

static void begin(struct guest *g)
{
	memset(&w, 0, sizeof w);
	g->again = true;
	g->vcpu.lapic->ops->mmio_write(g->vcpu.lapic, 0xf0, 0x1ff);
	start_device(&w.disk, g, SLOT_DISK, 0, life % 2 ? VIRTIO_F_RING_PACKED : 0);
	for (unsigned n = 0; n < CARDS; n++) {
		start_device(&w.card[n], g, SLOT_NET + n, 1 + n, VIRTIO_F_EVENT_IDX);
		for (unsigned i = 0; i < RECEIVE_MAX; i++)
			offer_room(n, i);
	}
	life++;
}

/* Writes a sector, reads it back, looks, and so on. */
static void disk_turn(void)
{
	struct fake_driver *q = &w.disk.q[0];
	uint8_t *data = fake_at(q, DISK_DATA, SECTOR), *header = fake_at(q, DISK_HEADER, 16);
	uint64_t sector = w.disk_turns / 2 % (DISK_BYTES / SECTOR);
	uint8_t mark = (uint8_t)(w.disk_turns / 2 * 7 + life);
	bool reads = w.disk_turns % 2;
	struct fake_used used;

	if (w.disk_busy) {
		if (!fake_take(q, &used))
			return;
		assert_int_equal(*(uint8_t *)fake_at(q, DISK_STATUS, 1), VIRTIO_BLK_S_OK);
		if (reads) {
			assert_int_equal(data[0], mark);
			assert_memory_equal(data, data + 1, SECTOR - 1);
			atomic_fetch_add(&written, 1);
		}
		w.disk_turns++;
		w.disk_busy = false;
		return;
	}
	store_le(header, reads ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 8);
	store_le(header + 8, sector, 8);
	memset(data, reads ? 0 : mark, SECTOR);
	fake_add(q, FAKE_OUT(DISK_HEADER, 16), {DISK_DATA, SECTOR, reads}, FAKE_IN(DISK_STATUS, 1));
	fake_slot_kick(&w.disk, 0);
	w.disk_busy = true;
}

/* Sends to everybody, and takes what the other card sent. */
static void card_turn(unsigned n)
{
	struct fake_slot *s = &w.card[n];
	struct fake_driver *out = &s->q[NET_TRANSMIT], *in = &s->q[NET_RECEIVE];
	uint8_t *frame = fake_at(out, CARD_AT(n), NET_HEADER + FRAME);
	struct fake_used used;

	if (w.card_busy[n] && fake_take(out, &used))
		w.card_busy[n] = false;
	if (!w.card_busy[n]) {
		memset(frame, 0, NET_HEADER);
		memset(frame + NET_HEADER, 0xff, FRAME);
		store_le(frame + NET_HEADER + 6, 0x02 | n << 8, 6);
		fake_add(out, FAKE_OUT(CARD_AT(n), NET_HEADER + FRAME));
		fake_slot_kick(s, NET_TRANSMIT);
		w.card_busy[n] = true;
	}
	while (fake_take(in, &used)) {
		assert_int_equal(used.len, NET_HEADER + FRAME);
		atomic_fetch_add(&received, 1);
		offer_room(n, used.id % RECEIVE_MAX);
		fake_slot_kick(s, NET_RECEIVE);
	}
}

static int work(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	if (!g->again)
		begin(g);
	while (!atomic_load(&g->kicked)) {
		disk_turn();
		for (unsigned n = 0; n < CARDS; n++)
			card_turn(n);
		if (atomic_exchange(&may_reset, false)) {
			fake_pio_out(g, PORT_RESET, 6, 1);
			break;
		}
	}
	return 0;
}

/* --- what happens to it, on the loop thread --- */

static struct {
	struct loop_call call;
	unsigned pauses;
	unsigned seen_written, seen_received; /* at the last resume: since then, it went on */
} boss;

static void again(void)
{
	nap();
	loop_post(machine_loop(m), &boss.call);
}

static void pause_and_reset(struct loop_call *c)
{
	unsigned lives = atomic_load(&life);

	if (lives * PAUSES <= boss.pauses || atomic_load(&written) == boss.seen_written ||
	    atomic_load(&received) == boss.seen_received) {
		again(); /* no work was done yet since the last pause */
		return;
	}
	machine_pause(m, MACHINE_PAUSE_ASKED);
	boss.pauses++;
	boss.seen_written = atomic_load(&written);
	boss.seen_received = atomic_load(&received);
	nap();
	assert_int_equal(atomic_load(&written), boss.seen_written);
	if (boss.pauses % PAUSES == 0) {
		if (lives == LIVES)
			machine_stop(m); /* with all that is under way */
		else
			atomic_store(&may_reset, true);
	}
	machine_resume(m, MACHINE_PAUSE_ASKED);
	if (boss.pauses < LIVES * PAUSES)
		again();
}

static void make_machine(enum block_engine aio)
{
	const struct machine_net net[CARDS] = {{.net = {.kind = NET_SWITCH, .name = "one"}},
					       {.net = {.kind = NET_SWITCH, .name = "one"}}};
	const struct machine_disk disk = {.image = {.file = image, .format = "raw"}, .aio = aio};
	const struct machine_config c = {.name = "test",
					 .engine = ENGINE_JIT,
					 .cpus = 1,
					 .memory_bytes = MIB(16),
					 .kernel = kernel,
					 .disk = &disk,
					 .disks = 1,
					 .net = net,
					 .nets = CARDS};

	code = work;
	memset(&boss, 0, sizeof boss);
	written = received = life = 0;
	may_reset = false;
	boss.call.run = pause_and_reset;
	if (machine_new(&m, &c, &err) < 0)
		fail_msg("%s", err.text);
}

static void run_it(enum block_engine aio)
{
	make_machine(aio);
	loop_post(machine_loop(m), &boss.call);
	assert_int_equal(machine_run(m, &result, &err), 0);
	assert_int_equal(result.end, END_STOPPED);
	machine_free(m);
	assert_int_equal(boss.pauses, LIVES * PAUSES);
	assert_int_equal(life, LIVES);
	assert_in_range(written, LIVES * PAUSES, UINT32_MAX);
	assert_in_range(received, LIVES * PAUSES, UINT32_MAX);
}

static void devices_work_through_pauses_resets_and_the_end(void **state)
{
	run_it(BLOCK_ENGINE_THREADS);
}

static void so_they_do_with_the_io_engine_that_is_best_here(void **state)
{
	run_it(BLOCK_ENGINE_AUTO);
}

static void a_machine_with_devices_that_never_ran_is_freed(void **state)
{
	make_machine(BLOCK_ENGINE_THREADS);
	machine_free(m);
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

	if (!mkdtemp(folder) || setenv("XDG_RUNTIME_DIR", folder, 1) < 0)
		return -1;
	return put_file(kernel, sizeof kernel, "kernel", bytes, sizeof bytes, sizeof bytes) ||
	       put_file(image, sizeof image, "disk", "", 0, DISK_BYTES);
}

static int remove_files(void **state)
{
	char path[64];

	snprintf(path, sizeof path, "%s/holon/switch-one/lock", folder);
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
		cmocka_unit_test(devices_work_through_pauses_resets_and_the_end),
		cmocka_unit_test(so_they_do_with_the_io_engine_that_is_best_here),
		cmocka_unit_test(a_machine_with_devices_that_never_ran_is_freed),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
