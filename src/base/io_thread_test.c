#include "base/io_thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/test.h"

struct seen {
	pthread_t on;
	unsigned calls;
};

static void note(void *arg)
{
	struct seen *s = arg;

	s->on = pthread_self();
	s->calls++;
}

static void calls_run_on_the_thread_and_are_waited_for(void **state)
{
	struct io_thread *t;
	struct seen s = {};

	assert_int_equal(io_thread_new(&t, THREAD_DEVICES, "io-test", NULL), 0);
	io_thread_call(t, note, &s); /* no thread yet */
	assert_true(pthread_equal(s.on, pthread_self()));
	assert_int_equal(io_thread_start(t, NULL), 0);
	for (unsigned i = 0; i < 1000; i++)
		io_thread_call(t, note, &s);
	assert_false(pthread_equal(s.on, pthread_self()));
	assert_int_equal(s.calls, 1001);
	io_thread_free(t);
}

struct source {
	struct loop_fd f;
	atomic_uint ready;
};

static void take(struct loop_fd *f, uint32_t events)
{
	uint64_t n;

	if (read(f->fd, &n, sizeof n) == sizeof n)
		atomic_fetch_add(&container_of(f, struct source, f)->ready, 1);
}

static void descriptors_are_served_until_it_stops(void **state)
{
	struct io_thread *t;
	struct source s = {.f = {eventfd(0, EFD_NONBLOCK), take}};
	uint64_t one = 1;

	assert_int_equal(io_thread_new(&t, THREAD_DEVICES, "io-test", NULL), 0);
	assert_int_equal(loop_add(io_thread_loop(t), &s.f, EPOLLIN, NULL), 0);
	assert_int_equal(io_thread_start(t, NULL), 0);
	assert_int_equal(write(s.f.fd, &one, 8), 8);
	while (!atomic_load(&s.ready))
		usleep(100);
	io_thread_stop(t);
	assert_int_equal(write(s.f.fd, &one, 8), 8);
	usleep(1000);
	assert_int_equal(atomic_load(&s.ready), 1);

	assert_int_equal(io_thread_start(t, NULL), 0); /* and may be started again */
	while (atomic_load(&s.ready) != 2)
		usleep(100);
	io_thread_stop(t);
	loop_del(io_thread_loop(t), &s.f);
	io_thread_free(t);
	close(s.f.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_run_on_the_thread_and_are_waited_for),
		cmocka_unit_test(descriptors_are_served_until_it_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
