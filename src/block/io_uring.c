/* io_uring: the I/O engine over the kernel's ring. Submissions gather in the ring's memory until
 * the loop is about to sleep; one io_uring_enter then submits them and takes up what is complete.
 *
 * The ring is made so that completions are worked on only inside our own io_uring_enter
 * (DEFER_TASKRUN), which interrupts nothing else; a kernel that cannot do that gets a plain one.
 * DEFER_TASKRUN ties a ring to one thread (see owner).
 *
 * While the loop sleeps, the kernel tells of completions by an eventfd. It is edge-triggered, so
 * nobody needs to read it, and switched off while the thread is awake and looks by itself. */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "block/io.h"

#define ENTRIES 256
#define BATCH   32

struct io_ring {
	struct io_uring ring;
	bool open, waits; /* waits: for its thread to switch it on */
	pthread_t owner;  /* the only thread that may use it */
	struct loop *loop;
	struct loop_fd fd;
	struct loop_prepare prepare;
	unsigned unsubmitted, in_flight;      /* in_flight counts the unsubmitted, too */
	struct io_op *full_first, *full_last; /* found no room in the ring */
};

/* Returns how many were complete. */
static unsigned reap(struct io_ring *u)
{
	struct io_uring_cqe *cqe[BATCH];
	struct coro *waiter[BATCH];
	unsigned total = 0, n;

	do {
		n = io_uring_peek_batch_cqe(&u->ring, cqe, BATCH);
		for (unsigned i = 0; i < n; i++) {
			struct io_op *op = io_uring_cqe_get_data(cqe[i]);

			op->result = cqe[i]->res;
			waiter[i] = op->waiter;
		}
		/* Give the entries back before anybody submits more. */
		io_uring_cq_advance(&u->ring, n);
		u->in_flight -= n;
		total += n;
		for (unsigned i = 0; i < n; i++)
			coro_wake(waiter[i]);
	} while (n == BATCH);
	return total;
}

static void on_ready(struct loop_fd *f, uint32_t events)
{
	/* before_sleep does it all. */
}

static bool fill_sqe(struct io_ring *u, struct io_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	if (!sqe)
		return false;
	switch (op->kind) {
	case IO_READ:
		if (op->n == 1)
			io_uring_prep_read(sqe, op->fd, op->iov->iov_base, op->iov->iov_len,
					   op->offset);
		else
			io_uring_prep_readv(sqe, op->fd, op->iov, op->n, op->offset);
		break;
	case IO_WRITE:
		if (op->n == 1)
			io_uring_prep_write(sqe, op->fd, op->iov->iov_base, op->iov->iov_len,
					    op->offset);
		else
			io_uring_prep_writev(sqe, op->fd, op->iov, op->n, op->offset);
		break;
	case IO_SYNC: io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC); break;
	case IO_ALLOCATE:
		io_uring_prep_fallocate(sqe, op->fd, op->mode, op->offset, op->len);
		break;
	case IO_CALL:
		io_uring_prep_nop(sqe); /* io_ring_submit lets none through */
		break;
	}
	io_uring_sqe_set_data(sqe, op);
	u->unsubmitted++;
	return true;
}

static void refill(struct io_ring *u)
{
	while (u->full_first && fill_sqe(u, u->full_first)) {
		u->full_first = u->full_first->next;
		if (!u->full_first)
			u->full_last = NULL;
	}
}

/* Submits; EBUSY, EAGAIN and EINTR leave some for the next time. */
static void enter(struct io_ring *u)
{
	int r = io_uring_submit_and_get_events(&u->ring);

	if (r > 0)
		u->unsubmitted -= min_u64(r, u->unsubmitted);
}

/* Something is complete, or the kernel waits for us to come and complete it. */
static bool completed(struct io_ring *u)
{
	return io_uring_cq_ready(&u->ring) ||
	       (__atomic_load_n(u->ring.sq.kflags, __ATOMIC_SEQ_CST) & IORING_SQ_TASKRUN);
}

static void tell_of_completions(struct io_ring *u, bool on)
{
	io_uring_cq_eventfd_toggle(&u->ring, on);
	/* The kernel must see this before we look for what it would not have told of. */
	atomic_thread_fence(memory_order_seq_cst);
}

static bool before_sleep(struct loop_prepare *p)
{
	struct io_ring *u = container_of(p, struct io_ring, prepare);

	if (!u->in_flight)
		return false;
	tell_of_completions(u, false);
	refill(u);
	if (u->unsubmitted || completed(u))
		enter(u);
	if (reap(u) > 0 || u->unsubmitted || u->full_first)
		return true;
	tell_of_completions(u, true);
	return completed(u);
}

static void close_ring(struct io_ring *u)
{
	if (!u->open)
		return;
	loop_del(u->loop, &u->fd);
	loop_del_prepare(u->loop, &u->prepare);
	io_uring_queue_exit(&u->ring);
	close(u->fd.fd);
	u->open = u->waits = false;
}

static int setup(struct io_uring *ring, unsigned more)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CLAMP,
		IORING_SETUP_CLAMP,
	};
	int r = -EINVAL;

	for (unsigned i = 0; r == -EINVAL && i < ARRAY_SIZE(flags); i++) {
		struct io_uring_params p = {.flags = flags[i] | more};

		r = io_uring_queue_init_params(ENTRIES, ring, &p);
	}
	return r;
}

static int watch(struct io_ring *u, struct err *e)
{
	int r;

	u->fd = (struct loop_fd){eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), on_ready};
	if (u->fd.fd < 0)
		return err_sys(e, errno, "io_uring: eventfd");
	r = io_uring_register_eventfd(&u->ring, u->fd.fd);
	r = r < 0 ? err_sys(e, -r, "io_uring: eventfd")
		  : loop_add(u->loop, &u->fd, EPOLLIN | EPOLLET, e);
	if (r < 0)
		close(u->fd.fd);
	return r;
}

/* Of a ring that is off. A confined process could open files and connect by a ring, where no filter of
 * system calls looks. */
static int restrict_ring(struct io_uring *ring)
{
	static const uint8_t used[] = {
		IORING_OP_NOP,   IORING_OP_READV, IORING_OP_WRITEV,    IORING_OP_READ,
		IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_FALLOCATE,
	};
	struct io_uring_restriction rule[ARRAY_SIZE(used)] = {0};

	for (unsigned i = 0; i < ARRAY_SIZE(used); i++) {
		rule[i].opcode = IORING_RESTRICTION_SQE_OP;
		rule[i].sqe_op = used[i];
	}
	return io_uring_register_restrictions(ring, rule, ARRAY_SIZE(rule));
}

/* off: it waits for its thread, and is restricted from then on. */
static int open_ring(struct io_ring *u, bool off, struct err *e)
{
	int r = setup(&u->ring, off ? IORING_SETUP_R_DISABLED : 0);

	if (r < 0)
		return err_sys(e, -r, "io_uring");
	r = watch(u, e);
	if (r == 0 && off && (r = restrict_ring(&u->ring)) < 0) {
		loop_del(u->loop, &u->fd);
		close(u->fd.fd);
	}
	if (r < 0) {
		io_uring_queue_exit(&u->ring);
		return r;
	}
	u->prepare.run = before_sleep;
	loop_add_prepare(u->loop, &u->prepare);
	u->owner = pthread_self();
	u->open = true;
	u->waits = off;
	return 0;
}

void io_ring_hand_over(struct io_ring *u)
{
	assert(u->in_flight == 0);
	close_ring(u);
	/* One that fails is made by the thread, as after any other change of threads. */
	(void)!open_ring(u, true, NULL);
}

static int take_over(struct io_ring *u)
{
	int r = io_uring_enable_rings(&u->ring);

	u->waits = r < 0;
	u->owner = pthread_self();
	return r;
}

int io_ring_new(struct io_ring **out, struct loop *l, struct err *e)
{
	struct io_ring *u = calloc(1, sizeof *u);
	int r;

	if (!u)
		return err_sys(e, ENOMEM, "io_uring");
	u->loop = l;
	r = open_ring(u, false, e);
	if (r < 0)
		io_ring_free(u);
	else
		*out = u;
	return r;
}

void io_ring_free(struct io_ring *u)
{
	if (!u)
		return;
	assert(u->in_flight == 0);
	close_ring(u);
	free(u);
}

int io_ring_submit(struct io_ring *u, struct io_op *op)
{
	if (op->kind == IO_CALL)
		return -ENOTSUP;
	if (u->waits && take_over(u) < 0)
		return -EPERM;
	if (!pthread_equal(u->owner, pthread_self()) || !u->open) {
		int r;

		assert(u->in_flight == 0);
		close_ring(u);
		r = open_ring(u, false, NULL);
		if (r < 0)
			return r;
	}
	u->in_flight++;
	if (!u->full_first && fill_sqe(u, op))
		return 0;
	enter(u);
	op->next = NULL;
	if (u->full_last)
		u->full_last->next = op;
	else
		u->full_first = op;
	u->full_last = op;
	refill(u);
	return 0;
}
