/* io_threads: the I/O engine over a pool of threads, for where io_uring is forbidden, and for
 * what io_uring cannot do. Operations queue in one list; finished ones gather in another, and
 * an eventfd tells the loop when that was empty before.
 *
 * Threads are detached and leave after IDLE_SECONDS; io_pool_free waits until all have left. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/thread.h"
#include "block/io.h"

#define THREADS_MAX  16
#define IDLE_SECONDS 10
#define STACK_BYTES  KIB(256)

struct list {
	struct io_op *first, *last;
};

struct io_pool {
	struct loop *loop;
	struct loop_fd fd; /* the eventfd */
	bool watched;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t work, gone;
	struct list todo, done;
	unsigned threads, idle, queued;
	bool stop;
};

static void push(struct list *l, struct io_op *op)
{
	op->next = NULL;
	if (l->last)
		l->last->next = op;
	else
		l->first = op;
	l->last = op;
}

static struct io_op *pop(struct list *l)
{
	struct io_op *op = l->first;

	if (op) {
		l->first = op->next;
		if (!l->first)
			l->last = NULL;
	}
	return op;
}

int64_t io_op_run(const struct io_op *op)
{
	int64_t r = -1;

	switch (op->kind) {
	case IO_READ: r = preadv(op->fd, op->iov, op->n, op->offset); break;
	case IO_WRITE: r = pwritev(op->fd, op->iov, op->n, op->offset); break;
	case IO_SYNC: r = fdatasync(op->fd); break;
	case IO_ALLOCATE: r = fallocate(op->fd, op->mode, op->offset, op->len); break;
	case IO_CALL: return op->fn(op->arg);
	}
	return r < 0 ? -errno : r;
}

/* Called with p->lock held. False: time to leave. */
static bool wait_for_work(struct io_pool *p)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_SECONDS;
	p->idle++;
	while (!p->todo.first && !p->stop && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&p->work, &p->lock, &until);
	p->idle--;
	return p->todo.first;
}

/* Called with p->lock held. */
static void finish(struct io_pool *p, struct io_op *op)
{
	bool tell = !p->done.first;
	uint64_t one = 1;

	push(&p->done, op);
	if (tell && write(p->fd.fd, &one, sizeof one) < 0) {
		/* The count is full: the loop is woken already. */
	}
}

static void *worker(void *arg)
{
	struct io_pool *p = arg;

	AUTO_LOCK(&p->lock);
	while (wait_for_work(p)) {
		struct io_op *op = pop(&p->todo);

		p->queued--;
		pthread_mutex_unlock(&p->lock);
		op->result = io_op_run(op);
		pthread_mutex_lock(&p->lock);
		finish(p, op);
	}
	p->threads--;
	pthread_cond_signal(&p->gone);
	return NULL;
}

/* Called with p->lock held. Signals are for other threads. */
static int add_thread(struct io_pool *p)
{
	const struct thread_opts o = {.role = THREAD_WORKER,
				      .name = "worker",
				      .stack_bytes = STACK_BYTES,
				      .no_signals = true,
				      .detached = true};
	pthread_t thread;
	int r = thread_start(&thread, &o, worker, p);

	if (r == 0)
		p->threads++;
	return r;
}

static void on_done(struct loop_fd *f, uint32_t events)
{
	struct io_pool *p = container_of(f, struct io_pool, fd);
	struct list done;
	struct io_op *op;
	uint64_t n;

	if (read(f->fd, &n, sizeof n) < 0)
		return;
	pthread_mutex_lock(&p->lock);
	done = p->done;
	p->done = (struct list){0};
	pthread_mutex_unlock(&p->lock);
	while ((op = pop(&done)))
		coro_wake(op->waiter);
}

static void init_locks(struct io_pool *p)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->work, &attr);
	pthread_condattr_destroy(&attr);
	pthread_cond_init(&p->gone, NULL);
	pthread_mutex_init(&p->lock, NULL);
}

int io_pool_new(struct io_pool **out, struct loop *l, struct err *e)
{
	struct io_pool *p = calloc(1, sizeof *p);
	int r;

	if (!p)
		return err_sys(e, ENOMEM, "thread pool");
	init_locks(p);
	p->loop = l;
	p->fd = (struct loop_fd){eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), on_done};
	r = p->fd.fd < 0 ? err_sys(e, errno, "thread pool: eventfd")
			 : loop_add(l, &p->fd, EPOLLIN, e);
	p->watched = r == 0;
	if (r < 0)
		io_pool_free(p);
	else
		*out = p;
	return r;
}

void io_pool_free(struct io_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->work);
	while (p->threads)
		pthread_cond_wait(&p->gone, &p->lock);
	pthread_mutex_unlock(&p->lock);
	if (p->watched)
		loop_del(p->loop, &p->fd);
	if (p->fd.fd >= 0)
		close(p->fd.fd);
	pthread_cond_destroy(&p->work);
	pthread_cond_destroy(&p->gone);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

int io_pool_submit(struct io_pool *p, struct io_op *op)
{
	int r;

	AUTO_LOCK(&p->lock);
	if (p->queued >= p->idle && p->threads < THREADS_MAX) {
		r = add_thread(p);
		if (r < 0 && !p->threads)
			return r; /* nobody would ever do it */
	}
	push(&p->todo, op);
	p->queued++;
	pthread_cond_signal(&p->work);
	return 0;
}
