#include <pthread.h>
#include <string.h>

#include "base/test.h"
#include "virtio/console.h"
#include "virtio/fake_driver.h"

/* A console on an I/O thread, with the terminal on another one. */
#define INPUT   300000u
#define BUFFERS 8
#define IN_AT   0x100000

static struct loop *loop;
static struct virtio_device *d;
static struct fake_guest g;
static uint8_t got[INPUT];
static unsigned got_len;
static struct loop_prepare guest;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t room_came = PTHREAD_COND_INITIALIZER;
static bool room;

static uint8_t byte_of(unsigned i)
{
	return (uint8_t)(i * 7 + (i >> 8));
}

static void drop(void *ctx, const uint8_t *bytes, uint32_t len)
{
}

static void note_room(void *ctx)
{
	pthread_mutex_lock(&lock);
	room = true;
	pthread_cond_signal(&room_came);
	pthread_mutex_unlock(&lock);
}

/* The guest, which takes what there is each time that the loop comes round. */
static bool take_input(struct loop_prepare *p)
{
	struct fake_used u;
	bool any = false;

	while (fake_take(&g.q[0], &u)) {
		memcpy(got + got_len, fake_at(&g.q[0], IN_AT + u.id * 0x1000u, u.len), u.len);
		got_len += u.len;
		assert_int_equal(fake_add(&g.q[0], FAKE_IN(IN_AT + u.id * 0x1000u, 1000)), u.id);
		virtio_kick(d, 0);
		any = true;
	}
	if (any && got_len == INPUT)
		loop_stop(loop);
	return any;
}

static void *run(void *arg)
{
	assert_int_equal(loop_run(loop), 0);
	return NULL;
}

static void type_all(struct console_end *end)
{
	uint8_t bytes[777];

	for (unsigned done = 0, n; done < INPUT; done += n) {
		unsigned len = (unsigned)min_u64(sizeof bytes, INPUT - done);

		for (unsigned i = 0; i < len; i++)
			bytes[i] = byte_of(done + i);
		pthread_mutex_lock(&lock);
		room = false;
		pthread_mutex_unlock(&lock);
		n = console_pipe_input(end, bytes, len);
		if (n == len)
			continue;
		pthread_mutex_lock(&lock);
		while (!room)
			pthread_cond_wait(&room_came, &lock);
		pthread_mutex_unlock(&lock);
	}
}

static void what_is_typed_arrives_in_order_and_whole(void **state)
{
	struct console_pipe_opts p = {.put = drop, .room = note_room};
	struct virtio_console_opts o = {0};
	struct virtio_env env;
	struct guest_mem *mem;
	pthread_t io;
	struct err e;

	assert_int_equal(mem_new(&mem, MIB(2), &e), 0);
	assert_int_equal(loop_new(&loop, &e), 0);
	env = (struct virtio_env){.mem = mem, .loop = loop, .clock = loop_clock(loop)};
	assert_int_equal(console_pipe_new(&o.console, loop, &p, &e), 0);
	assert_int_equal(virtio_console_new(&d, &env, &o, &e), 0);
	fake_guest_start(&g, d, .features = 1);
	for (unsigned i = 0; i < BUFFERS; i++)
		assert_int_equal(fake_add(&g.q[0], FAKE_IN(IN_AT + i * 0x1000u, 1000)), i);
	virtio_kick(d, 0);
	guest.run = take_input;
	loop_add_prepare(loop, &guest);
	assert_int_equal(pthread_create(&io, NULL, run, NULL), 0);
	type_all(o.console);
	pthread_join(io, NULL);
	for (unsigned i = 0; i < INPUT; i++)
		assert_int_equal(got[i], byte_of(i));
	loop_del_prepare(loop, &guest);
	virtio_console_type.free(d);
	loop_free(loop);
	mem_free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_typed_arrives_in_order_and_whole)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
