/* blk: the device around the requests.
 *
 * A kick makes the queue's turn: up to TURN chains are taken out and begun; what is left then
 * waits until the other queues and descriptors of the thread had theirs. Answers are collected,
 * and shown to the driver before the thread looks for other work or sleeps.
 *
 * No space: the request goes to the end of b->waiting, and the owner is told with the first.
 * After retry_ns the oldest is tried alone; when it went through, all the others are. The
 * owner hears that there is space when none is left. A stop gives those up that wait. */
#include "virtio/blk_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

#define TURN             64u
#define RETRY_DEFAULT_NS UINT64_C(1000000000)

/* --- requests of a queue --- */

static struct blk_request *request_get(struct virtio_blk *b, unsigned n)
{
	struct blk_queue *q = &b->queue[n];
	struct blk_request *r = q->free;

	/* There is always one: a queue gives no more chains than it has entries. */
	if (r)
		q->free = r->next;
	else
		r = &q->request[q->fresh++];
	r->b = b;
	r->queue = n;
	r->chain.iov = r->iov;
	r->chain.iov_max = REQUEST_IOV_MAX;
	return r;
}

static void request_put(struct blk_request *r)
{
	struct blk_queue *q = &r->b->queue[r->queue];

	r->next = q->free;
	q->free = r;
}

static bool show_answers(struct loop_prepare *p)
{
	struct virtio_blk *b = container_of(p, struct virtio_blk, prepare);

	for (unsigned n = 0; n < b->vd.queues; n++)
		if (b->queue[n].pushed) {
			b->queue[n].pushed = false;
			virtq_publish(b->vd.queue[n]);
		}
	return false;
}

static void one_less(struct virtio_blk *b)
{
	if (--b->in_flight > 0 || !b->vd.stopping)
		return;
	show_answers(&b->prepare);
	virtio_stopped(&b->vd);
}

/* --- the queues' turns --- */

/* Posts b->more for a queue that cannot go on now. */
static void later(struct virtio_blk *b, unsigned n)
{
	b->queue[n].later = true;
	if (b->more_posted)
		return;
	b->more_posted = true;
	b->in_flight++;
	loop_post(b->vd.env.loop, &b->more);
}

/* Takes chains out while there are any, *turn of them at most. False: the queue is not empty. */
static bool take_chains(struct virtio_blk *b, unsigned n, unsigned *turn)
{
	struct virtq *q = b->vd.queue[n];

	for (; *turn; --*turn) {
		struct blk_request *r = request_get(b, n);
		int got = virtq_pop(q, &r->chain);

		if (got <= 0) {
			request_put(r);
			if (got < 0)
				virtio_broken(&b->vd, "queue %u: a chain that is built wrongly", n);
			return true;
		}
		b->in_flight++;
		if (blk_request_begin(r) < 0) {
			virtio_broken(&b->vd, "queue %u: a request without %s", n,
				      "header or status");
			request_put(r);
			one_less(b);
			return true;
		}
	}
	later(b, n);
	return false;
}

static void serve(struct virtio_blk *b, unsigned n)
{
	struct virtq *q = b->vd.queue[n];
	unsigned turn = TURN;
	bool empty;

	b->in_flight++; /* no end of a stop in the middle of it */
	do {
		virtq_kicks_off(q);
		empty = take_chains(b, n, &turn);
	} while (empty && virtq_kicks_on(q));
	one_less(b);
}

static void more_run(struct loop_call *c)
{
	struct virtio_blk *b = container_of(c, struct virtio_blk, more);

	b->more_posted = false;
	for (unsigned n = 0; n < b->vd.queues; n++)
		if (b->queue[n].later) {
			b->queue[n].later = false;
			if (!b->vd.stopping)
				serve(b, n);
		}
	one_less(b);
}

/* --- answers --- */

static void check_space_made(struct virtio_blk *b)
{
	if (!b->full || b->waiting || b->retrying)
		return;
	b->full = false;
	if (b->space)
		b->space(b->ctx, false);
}

static void arm_retry(struct virtio_blk *b, uint64_t after_ns)
{
	struct clock *c = loop_clock(b->vd.env.loop);

	timer_arm(c, &b->retry, clock_now(c) + after_ns);
}

static void retried_with_success(struct virtio_blk *b)
{
	b->retrying--;
	b->try_all = true;
	if (b->waiting)
		arm_retry(b, 0);
	check_space_made(b);
}

void blk_finished(struct blk_request *r, uint8_t status)
{
	struct virtio_blk *b = r->b;
	struct blk_queue *q = &b->queue[r->queue];
	unsigned n = r->queue;

	virtq_push(b->vd.queue[n], &r->chain, blk_request_end(r, status));
	q->pushed = true;
	if (r->retried)
		retried_with_success(b);
	request_put(r);
	one_less(b);
}

/* --- no space --- */

void blk_no_space(struct blk_request *r)
{
	struct virtio_blk *b = r->b;

	if (b->vd.stopping) {
		blk_finished(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (r->retried)
		b->retrying--;
	r->retried = false;
	r->next = NULL;
	*b->waiting_end = r;
	b->waiting_end = &r->next;
	b->try_all = false;
	arm_retry(b, b->retry_ns);
	if (b->full)
		return;
	b->full = true;
	if (b->space)
		b->space(b->ctx, true);
}

static struct blk_request *waiting_get(struct virtio_blk *b)
{
	struct blk_request *r = b->waiting;

	b->waiting = r->next;
	if (!b->waiting)
		b->waiting_end = &b->waiting;
	return r;
}

static void retry_fire(struct timer *t)
{
	struct virtio_blk *b = container_of(t, struct virtio_blk, retry);

	while (b->waiting) {
		struct blk_request *r = waiting_get(b);

		r->retried = true;
		b->retrying++;
		blk_request_run(r);
		if (!b->try_all)
			break;
	}
}

/* The driver, or the machine, gives up on them. */
static void fail_waiting(struct virtio_blk *b)
{
	timer_cancel(loop_clock(b->vd.env.loop), &b->retry);
	while (b->waiting)
		blk_finished(waiting_get(b), VIRTIO_BLK_S_IOERR);
	check_space_made(b);
}

/* --- the device --- */

static void blk_stop(struct virtio_device *d)
{
	struct virtio_blk *b = to_blk(d);

	b->in_flight++;
	fail_waiting(b);
	one_less(b);
}

static void blk_kick(struct virtio_device *d, unsigned n)
{
	serve(to_blk(d), n);
}

/* What the host says; the driver's part is left alone. */
static void fill_config(struct virtio_blk *b)
{
	uint8_t *c = b->vd.config;

	store_le(c + CFG_CAPACITY, block_size(b->block) >> SECTOR_SHIFT, 8);
	store_le(c + CFG_SEG_MAX, SEG_MAX, 4);
	store_le(c + CFG_BLK_SIZE, SECTOR_BYTES, 4);
	c[CFG_PHYSICAL_BLOCK_EXP] = PHYSICAL_BLOCK_EXP;
	store_le(c + CFG_MIN_IO_SIZE, PHYSICAL_BLOCK_SECTS, 2);
	store_le(c + CFG_NUM_QUEUES, b->vd.queues, 2);
	if (b->read_only)
		return;
	store_le(c + CFG_MAX_DISCARD_SECTORS, DISCARD_SECTORS_MAX, 4);
	store_le(c + CFG_MAX_DISCARD_SEG, RANGES_MAX, 4);
	store_le(c + CFG_DISCARD_SECTOR_ALIGNMENT, PHYSICAL_BLOCK_SECTS, 4);
	store_le(c + CFG_MAX_WRITE_ZEROES_SECTORS, ZEROES_SECTORS_MAX, 4);
	store_le(c + CFG_MAX_WRITE_ZEROES_SEG, RANGES_MAX, 4);
	c[CFG_WRITE_ZEROES_MAY_UNMAP] = (b->vd.offered & VIRTIO_BLK_F_DISCARD) != 0;
}

static void blk_config_written(struct virtio_device *d, unsigned offset, unsigned len)
{
	atomic_store_explicit(&to_blk(d)->write_through, !d->config[CFG_WRITEBACK],
			      memory_order_relaxed);
}

/* The driver's wish about flushes ends with it. */
static void blk_reset(struct virtio_device *d)
{
	struct virtio_blk *b = to_blk(d);

	AUTO_LOCK(&d->config_lock);
	d->config[CFG_WRITEBACK] = !b->write_through_at_first;
	blk_config_written(d, CFG_WRITEBACK, 1);
}

static void blk_state(struct virtio_device *d, struct state *s)
{
	/* Nothing is in flight when this is called. Of the configuration, which the base loads,
	 * only the driver's part is of interest. */
	if (!state_loading(s))
		return;
	fill_config(to_blk(d));
	blk_config_written(d, CFG_WRITEBACK, 1);
}

static void blk_free(struct virtio_device *d)
{
	struct virtio_blk *b;

	if (!d)
		return;
	b = to_blk(d);
	timer_cancel(loop_clock(d->env.loop), &b->retry);
	loop_del_prepare(d->env.loop, &b->prepare);
	for (unsigned n = 0; n < BLK_QUEUES_MAX; n++)
		free(b->queue[n].request);
	virtio_done(d);
	free(b);
}

const struct virtio_type virtio_blk_type = {
	.name = "virtio-blk",
	.id = VIRTIO_ID_BLOCK,
	.pci_class = 0x010000, /* mass storage, SCSI: what such devices have always said */
	.stop = blk_stop,
	.kick = blk_kick,
	.config_written = blk_config_written,
	.reset = blk_reset,
	.state = blk_state,
	.free = blk_free,
};

/* --- making one --- */

static uint64_t features(const struct virtio_blk *b, const struct virtio_blk_opts *o)
{
	uint64_t f = VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_TOPOLOGY |
		     VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_CONFIG_WCE;

	if (o->queues > 1)
		f |= VIRTIO_BLK_F_MQ;
	if (b->read_only)
		return f | VIRTIO_BLK_F_RO;
	f |= VIRTIO_BLK_F_WRITE_ZEROES;
	return o->discard ? f | VIRTIO_BLK_F_DISCARD : f;
}

static int make_queues(struct virtio_blk *b, const struct virtio_env *env,
		       const struct virtio_blk_opts *o, struct err *e)
{
	uint16_t size[BLK_QUEUES_MAX];
	int r;

	for (unsigned n = 0; n < o->queues; n++)
		size[n] = BLK_QUEUE_SIZE;
	r = virtio_init(&b->vd, &virtio_blk_type, env, features(b, o), o->queues, size, e);
	if (r < 0)
		return r;
	for (unsigned n = 0; n < o->queues; n++) {
		b->queue[n].request = calloc(BLK_QUEUE_SIZE, sizeof(struct blk_request));
		if (!b->queue[n].request)
			return err_sys(e, ENOMEM, "requests");
	}
	return 0;
}

static int check(const struct virtio_blk_opts *o, struct err *e)
{
	if (o->queues < 1 || o->queues > BLK_QUEUES_MAX)
		return err_set(e, EINVAL, "%u queues: between 1 and %u are possible", o->queues,
			       BLK_QUEUES_MAX);
	if (o->serial && strlen(o->serial) > BLK_SERIAL_MAX)
		return err_set(e, EINVAL, "the serial '%s' is longer than %u bytes", o->serial,
			       BLK_SERIAL_MAX);
	return 0;
}

int virtio_blk_new(struct virtio_device **out, const struct virtio_env *env,
		   const struct virtio_blk_opts *o, struct err *e)
{
	struct virtio_blk *b;
	int r = check(o, e);

	if (r < 0)
		return r;
	b = calloc(1, sizeof *b);
	if (!b)
		return err_sys(e, ENOMEM, "virtio-blk");
	b->block = o->block;
	b->read_only = block_read_only(o->block);
	b->space = o->space;
	b->failed = o->failed;
	b->ctx = o->ctx;
	b->retry_ns = o->retry_ns ? o->retry_ns : RETRY_DEFAULT_NS;
	b->waiting_end = &b->waiting;
	b->more.run = more_run;
	b->retry.fire = retry_fire;
	b->prepare.run = show_answers;
	loop_add_prepare(env->loop, &b->prepare);
	b->write_through_at_first = o->write_through;
	if (o->serial)
		memcpy(b->serial, o->serial, strlen(o->serial));
	r = make_queues(b, env, o, e);
	if (r < 0) {
		blk_free(&b->vd);
		return r;
	}
	b->vd.config_len = CFG_LEN;
	b->vd.config_writable = BIT(CFG_WRITEBACK);
	fill_config(b);
	blk_reset(&b->vd);
	*out = &b->vd;
	return 0;
}

void virtio_blk_resized(struct virtio_device *d)
{
	uint8_t sectors[8];

	store_le(sectors, block_size(to_blk(d)->block) >> SECTOR_SHIFT, 8);
	virtio_config_set(d, CFG_CAPACITY, sectors, sizeof sectors);
}

void virtio_blk_set_image(struct virtio_device *d, struct block *b)
{
	to_blk(d)->block = b;
	virtio_blk_resized(d);
}
