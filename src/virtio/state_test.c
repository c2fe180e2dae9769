/* state_test: what every virtio device must do with its state, as chipset/devices_test.c has it
 * for chips. A device is used by a driver that does this and that, saved, and loaded into a
 * fresh one beside a copy of memory, which must save the same bytes, and again after the same
 * driver went on with both; and saved bytes are cut and changed. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/test.h"
#include "state/crc32.h"
#include "virtio/fake_devices.h"
#include "virtio/fake_slot.h"

#define SEEDS      8
#define STEPS      60
#define FLIP_SEEDS 2
#define BUFFERS    0x200000u /* where chains point to */
#define LEN_MAX    4096u

struct rig {
	struct fake_slot s;
	struct loop *loop;
	const struct fake_maker *maker;
	void *aux;
};

static void set_up(struct rig *r, const struct fake_maker *maker)
{
	struct virtio_env env;

	memset(r, 0, sizeof *r);
	r->maker = maker;
	assert_int_equal(loop_new(&r->loop, NULL), 0);
	fake_slot_init(&r->s, r->loop, &env);
	fake_slot_add(&r->s, maker->make(&env, &r->aux));
}

static void tear_down(struct rig *r)
{
	fake_slot_done(&r->s);
	if (r->maker->clean)
		r->maker->clean(r->aux);
	loop_free(r->loop);
}

/* --- a driver --- */

static uint32_t rnd(unsigned *seed, uint32_t below)
{
	return rand_r(seed) % below;
}

static void go(struct rig *r, unsigned *seed)
{
	uint64_t offered = virtio_pci_virtio(r->s.v)->offered, some = offered;

	fake_out(&r->s, 0x14, 0, 1);
	fake_loop_settle(r->loop);
	for (unsigned i = 0; i < 64; i++)
		if (rnd(seed, 4) == 0)
			some &= ~BIT(i);
	if (!fake_slot_agree(&r->s, some | VIRTIO_F_VERSION_1))
		return;
	fake_slot_queues(&r->s, 8u << rnd(seed, 3));
	fake_out(&r->s, 0x14, 0xf, 1);
}

static void offer(struct rig *r, unsigned *seed)
{
	unsigned n = rnd(seed, virtio_pci_virtio(r->s.v)->queues);
	struct fake_buf buf[4];
	unsigned out = rnd(seed, 3), all = out + rnd(seed, 3);
	struct fake_used u;

	if (!r->s.q[n].size)
		return;
	for (unsigned i = 0; i < all; i++) {
		gpa_t gpa = BUFFERS + rnd(seed, 64) * LEN_MAX;
		uint32_t word = rnd(seed, 8);

		/* Small words here and there, of which request headers are made. */
		if (i < out)
			(void)!mem_write(r->s.mem, gpa + 4 * rnd(seed, 6), &word, 4);
		buf[i] = (struct fake_buf){gpa, 1 + rnd(seed, rnd(seed, 2) ? 64 : LEN_MAX),
					   i >= out};
	}
	if (all)
		(void)fake_add_chain(&r->s.q[n], buf, all);
	if (rnd(seed, 4))
		fake_slot_kick(&r->s, n);
	fake_loop_settle(r->loop);
	while (rnd(seed, 2) && fake_take(&r->s.q[n], &u))
		;
}

static void poke(struct rig *r, unsigned *seed)
{
	static const struct {
		uint8_t offset, size;
	} reg[] = {{0x00, 4}, {0x08, 4}, {0x0c, 4}, {0x10, 2}, {0x16, 2},
		   {0x18, 2}, {0x1a, 2}, {0x1c, 2}, {0x20, 4}, {0x30, 4}};
	unsigned i = rnd(seed, ARRAY_SIZE(reg));

	fake_out(&r->s, reg[i].offset, rnd(seed, 8), reg[i].size);
	fake_out(&r->s, FAKE_CONFIG + rnd(seed, VIRTIO_CONFIG_MAX), rnd(seed, 256), 1);
}

/* What the guest can see without taking anything. */
static uint32_t look(struct rig *r, uint32_t h)
{
	for (unsigned at = 0; at < 64; at += 4) {
		uint32_t common = fake_in(&r->s, at, 4),
			 config = fake_in(&r->s, FAKE_CONFIG + at, 4);

		h = crc32_update(crc32_update(h, &common, 4), &config, 4);
	}
	return h;
}

static uint32_t use(struct rig *r, unsigned seed)
{
	uint32_t h = 0;

	for (unsigned i = 0; i < STEPS; i++) {
		unsigned what = rnd(&seed, 20);

		if (what == 0 || (i == 0 && what < 16))
			go(r, &seed);
		else if (what < 14)
			offer(r, &seed);
		else if (what < 17)
			poke(r, &seed);
		else if (what == 17)
			board_advance(&r->s.board, rnd(&seed, 1000000000));
		else if (what == 18)
			fake_pci_out(&r->s, 0x04, rnd(&seed, 2) ? 6 : 0x406, 2);
		h = look(r, h);
	}
	fake_slot_pause(&r->s);
	return look(r, h);
}

/* --- saving and loading --- */

static uint8_t *save(struct rig *r, size_t *len)
{
	return device_save(virtio_pci_device(r->s.v), len);
}

static int load(struct rig *r, const uint8_t *bytes, size_t len)
{
	virtio_pci_pause(r->s.v);
	return device_load(virtio_pci_device(r->s.v), bytes, len);
}

static void go_on(struct rig *r)
{
	virtio_pci_resume(r->s.v);
	fake_loop_settle(r->loop);
}

/* The copy's driver and memory are those of the original. */
static void copy_guest(struct rig *to, const struct rig *from)
{
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		to->s.q[i] = from->s.q[i];
		to->s.q[i].mem = to->s.mem;
	}
	memcpy(mem_span(to->s.mem, 0, FAKE_SLOT_RAM), mem_span(from->s.mem, 0, FAKE_SLOT_RAM),
	       FAKE_SLOT_RAM);
	to->s.board.clock.now_ns = from->s.board.clock.now_ns;
}

static void same_bytes(struct rig *a, struct rig *b)
{
	size_t len_a, len_b;
	uint8_t *of_a = save(a, &len_a), *of_b = save(b, &len_b);

	assert_int_equal(len_a, len_b);
	assert_memory_equal(of_a, of_b, len_a);
	free(of_a);
	free(of_b);
}

static void copy_is_the_same_device(const struct fake_maker *maker, unsigned seed)
{
	struct rig *original = malloc(sizeof *original), *copy = malloc(sizeof *copy);
	uint32_t saw, copy_saw;
	size_t len;
	uint8_t *bytes;

	set_up(original, maker);
	set_up(copy, maker);
	use(original, seed);
	bytes = save(original, &len);
	copy_guest(copy, original);
	assert_int_equal(load(copy, bytes, len), 0);
	if (!maker->tells)
		same_bytes(original, copy);

	go_on(original);
	go_on(copy);
	saw = use(original, seed + SEEDS);
	copy_saw = use(copy, seed + SEEDS);
	if (!maker->tells && !maker->echoes) {
		if (saw != copy_saw)
			fail_msg("%s, seed %u: the copy shows something else", maker->name, seed);
		same_bytes(original, copy);
	}

	free(bytes);
	tear_down(copy);
	tear_down(original);
	free(copy);
	free(original);
}

static void every_copy_saves_the_same_and_behaves_the_same(void **state)
{
	for (const struct fake_maker *m = fake_makers; m->name; m++)
		for (unsigned seed = 1; seed <= SEEDS; seed++)
			copy_is_the_same_device(m, seed);
}

/* --- damage --- */

static uint8_t *random_state(const struct fake_maker *maker, unsigned seed, size_t *len)
{
	struct rig *r = malloc(sizeof *r);
	uint8_t *bytes;

	set_up(r, maker);
	use(r, seed);
	bytes = save(r, len);
	tear_down(r);
	free(r);
	return bytes;
}

/* Loads damaged bytes into a fresh device; one that took them must live on. */
static int load_damaged(const struct fake_maker *maker, const uint8_t *bytes, size_t len,
			bool live_on)
{
	struct rig *r = malloc(sizeof *r);
	int ret;

	set_up(r, maker);
	ret = load(r, bytes, len);
	if (live_on && ret == 0) {
		go_on(r);
		use(r, len);
	}
	tear_down(r);
	free(r);
	return ret;
}

static void every_device_refuses_cut_and_flipped_bytes(void **state)
{
	for (const struct fake_maker *m = fake_makers; m->name; m++) {
		size_t len;
		uint8_t *bytes = random_state(m, 1, &len);

		for (size_t at = 0; at < len; at += 1 + len / 100) {
			uint8_t *cut = malloc(at ? at : 1); /* so that a sanitizer sees */

			memcpy(cut, bytes, at);
			assert_int_not_equal(load_damaged(m, cut, at, false), 0);
			free(cut);
			bytes[at] ^= 0x10;
			assert_int_not_equal(load_damaged(m, bytes, len, false), 0);
			bytes[at] ^= 0x10;
		}
		free(bytes);
	}
}

/* As a malicious writer would: makes the section's checksum right (docs/snapshot-format.md). */
static void fix_checksum(uint8_t *bytes, size_t len)
{
	size_t at = 1 + bytes[0] + 8;
	uint32_t crc = crc32_update(0, bytes, at);

	store_le(bytes + at, crc32_update(crc, bytes + at + 4, len - at - 4), 4);
}

/* The PCI configuration space, 4 KiB of zeros mostly, is skipped through in steps. */
static size_t next_field_byte(size_t at, size_t len)
{
	return at + 1 + len / 150;
}

static void every_device_survives_hostile_fields(void **state)
{
	static const uint8_t patterns[] = {0xff, 0x80, 0x01};

	for (const struct fake_maker *m = fake_makers; m->name; m++) {
		for (unsigned seed = 1; seed <= FLIP_SEEDS; seed++) {
			size_t len;
			uint8_t *bytes = random_state(m, seed, &len);

			for (size_t at = 1 + bytes[0] + 12 + seed; at < len;
			     at = next_field_byte(at, len)) {
				uint8_t old = bytes[at];

				bytes[at] ^= patterns[at % ARRAY_SIZE(patterns)];
				fix_checksum(bytes, len);
				(void)load_damaged(m, bytes, len, true);
				bytes[at] = old;
			}
			free(bytes);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_copy_saves_the_same_and_behaves_the_same),
		cmocka_unit_test(every_device_refuses_cut_and_flipped_bytes),
		cmocka_unit_test(every_device_survives_hostile_fields),
	};

	log_set_level(LOG_ERROR); /* a device says when its driver makes a mistake */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
