#include "base/io_thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"

#define NAME_LEN    16 /* the kernel's */
#define SPIN_MAX_NS 32000

struct io_thread {
	struct loop *loop;
	enum thread_role role;
	char name[NAME_LEN];
	pthread_t thread;
	bool started;
};

struct sync_call {
	struct loop_call call;
	void (*fn)(void *arg);
	void *arg;
	pthread_mutex_t lock; /* guards done */
	pthread_cond_t changed;
	bool done;
};

int io_thread_new(struct io_thread **out, enum thread_role role, const char *name, struct err *e)
{
	struct io_thread *t = calloc(1, sizeof *t);
	int r;

	if (!t)
		return err_sys(e, ENOMEM, "I/O thread");
	t->role = role;
	snprintf(t->name, sizeof t->name, "%s", name);
	r = loop_new(&t->loop, e);
	if (r < 0) {
		free(t);
		return r;
	}
	loop_set_spin(t->loop, SPIN_MAX_NS);
	*out = t;
	return 0;
}

static void *io_main(void *arg)
{
	struct io_thread *t = arg;

	/* Fails only if epoll does, which it cannot with a descriptor that is one. */
	(void)!loop_run(t->loop);
	return NULL;
}

int io_thread_start(struct io_thread *t, struct err *e)
{
	const struct thread_opts o = {.role = t->role, .name = t->name};
	int r = thread_start(&t->thread, &o, io_main, t);

	if (r < 0)
		return err_sys(e, -r, "thread '%s'", t->name);
	t->started = true;
	return 0;
}

void io_thread_join(struct io_thread *t)
{
	if (!t->started)
		return;
	pthread_join(t->thread, NULL);
	t->started = false;
}

void io_thread_stop(struct io_thread *t)
{
	if (t->started)
		loop_stop(t->loop);
	io_thread_join(t);
}

void io_thread_free(struct io_thread *t)
{
	if (!t)
		return;
	io_thread_stop(t);
	loop_free(t->loop);
	free(t);
}

struct loop *io_thread_loop(struct io_thread *t)
{
	return t->loop;
}

static void run_sync(struct loop_call *call)
{
	struct sync_call *c = container_of(call, struct sync_call, call);

	c->fn(c->arg);
	AUTO_LOCK(&c->lock);
	c->done = true;
	pthread_cond_signal(&c->changed);
}

static void call_and_wait(struct io_thread *t, struct sync_call *c)
{
	loop_post(t->loop, &c->call);
	AUTO_LOCK(&c->lock);
	while (!c->done)
		pthread_cond_wait(&c->changed, &c->lock);
}

void io_thread_call(struct io_thread *t, void (*fn)(void *arg), void *arg)
{
	struct sync_call c = {.call.run = run_sync, .fn = fn, .arg = arg};

	if (!t->started) {
		fn(arg);
		return;
	}
	pthread_mutex_init(&c.lock, NULL);
	pthread_cond_init(&c.changed, NULL);
	call_and_wait(t, &c);
	pthread_cond_destroy(&c.changed);
	pthread_mutex_destroy(&c.lock);
}
