#include "virtio/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define QUEUE_SIZE  64
#define CHAIN_BYTES 4096u /* at most, in answer to one chain */
#define PIECES      16
#define SECOND_NS   1000000000u

struct virtio_rng {
	struct virtio_device vd;
	/* The loop's clock, not the guest's: it counts work of the I/O thread. */
	struct clock *clock;
	struct timer refill;
	uint64_t bytes, refilled_ns; /* what may be given out; as of when */
};

static struct virtio_rng *to_rng(struct virtio_device *d)
{
	return container_of(d, struct virtio_rng, vd);
}

static void count_refill(struct virtio_rng *g)
{
	uint64_t now = clock_now(g->clock);
	uint64_t more = mul_div(now - g->refilled_ns, RNG_BYTES_PER_S, SECOND_NS);

	if (!more)
		return;
	g->bytes = min_u64(g->bytes + more, RNG_BURST);
	g->refilled_ns = now;
}

/* Less than what was asked for is an answer too (5.4.6.1: at least one byte). */
static uint32_t fill(struct virtio_rng *g, const struct virtq_chain *c)
{
	uint32_t done = 0;

	for (unsigned i = c->out; i < c->out + c->in && done < CHAIN_BYTES; i++) {
		size_t want = min_u64(c->iov[i].iov_len, CHAIN_BYTES - done);
		/* Does not block: by the time that VMs run, the host's pool is ready. Pieces of
		 * up to 256 bytes come whole. */
		ssize_t got = getrandom(c->iov[i].iov_base, want, 0);

		if (got > 0)
			done += got;
		if (got < (ssize_t)want)
			break;
	}
	g->bytes -= min_u64(g->bytes, done);
	return done;
}

static void serve(struct virtio_rng *g)
{
	struct virtq *q = g->vd.queue[0];
	struct iovec iov[PIECES];
	struct virtq_chain c = {.iov = iov, .iov_max = PIECES};
	int r = 0;

	count_refill(g);
	while (g->bytes && (r = virtq_pop(q, &c)) > 0)
		virtq_push(q, &c, fill(g, &c));
	virtq_publish(q);
	if (r < 0)
		virtio_broken(&g->vd, "a bad chain of buffers");
	else if (!g->bytes)
		timer_arm(g->clock, &g->refill,
			  g->refilled_ns + mul_div(CHAIN_BYTES, SECOND_NS, RNG_BYTES_PER_S));
}

static void kick(struct virtio_device *d, unsigned n)
{
	struct virtio_rng *g = to_rng(d);

	do
		serve(g);
	while (g->bytes && virtq_kicks_on(d->queue[0]));
}

static void refilled(struct timer *t)
{
	struct virtio_rng *g = container_of(t, struct virtio_rng, refill);

	if (g->vd.started && !g->vd.stopping)
		kick(&g->vd, 0);
}

static void stop(struct virtio_device *d)
{
	timer_cancel(to_rng(d)->clock, &to_rng(d)->refill);
	virtio_stopped(d);
}

static void rng_free(struct virtio_device *d)
{
	if (!d)
		return;
	timer_cancel(to_rng(d)->clock, &to_rng(d)->refill);
	virtio_done(d);
	free(to_rng(d));
}

const struct virtio_type virtio_rng_type = {
	.name = "virtio-rng",
	.id = VIRTIO_ID_RNG,
	.pci_class = 0x00ff00, /* one that fits no other */
	.stop = stop,
	.kick = kick,
	.free = rng_free,
};

int virtio_rng_new(struct virtio_device **out, const struct virtio_env *env, struct err *e)
{
	static const uint16_t size[] = {QUEUE_SIZE};
	struct virtio_rng *g = calloc(1, sizeof *g);
	int r;

	if (!g)
		return err_set(e, ENOMEM, "virtio-rng");
	g->clock = loop_clock(env->loop);
	g->refill.fire = refilled;
	g->bytes = RNG_BURST;
	r = virtio_init(&g->vd, &virtio_rng_type, env, 0, 1, size, e);
	if (r < 0)
		rng_free(&g->vd);
	else
		*out = &g->vd;
	return r;
}
