/* balloon: see balloon.h. Queue 0 has pages that go into the balloon, 1 pages that come out; what
 * the driver calls the statistics queue and the reporting queue follow without a gap, each if its
 * feature was agreed on (so Linux counts; the specification's fixed numbers come to the same
 * here, but for a reporting queue after one that we do not offer: its number is taken as well).
 *
 * Statistics: the driver's buffer lies in its queue until we ask; it is read where it lies, taken
 * when we ask, and comes back filled. */
#include "virtio/balloon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

#define FEATURE_MUST_TELL_HOST BIT(0)
#define FEATURE_STATS          BIT(1)
#define FEATURE_DEFLATE_ON_OOM BIT(2)
#define FEATURE_PAGE_POISON    BIT(4)
#define FEATURE_PAGE_REPORTING BIT(5)

enum { INFLATE, DEFLATE, THIRD, FOURTH, FIFTH, QUEUES };

#define PAGE         4096u
#define PFNS_MAX     16384u /* of one chain; Linux has 256 */
#define PFNS_AT_ONCE 256u
#define STAT_LEN     10u                   /* tag and value */
#define TURN         32                    /* chains before others of the loop have theirs */
#define ASK_NS       UINT64_C(10000000000) /* between two questions for statistics */

/* The configuration space (5.5.4) */
#define CONFIG_NUM_PAGES 0
#define CONFIG_ACTUAL    4
#define CONFIG_POISON    12
#define CONFIG_LEN       16

struct virtio_balloon {
	struct virtio_device vd;
	struct loop_call turn;
	bool turn_posted;
	struct clock *clock; /* the loop's: it counts work of the I/O thread */
	struct timer ask;
	bool stats_fresh; /* the buffer at the head of the statistics queue has been read */
	bool ask_due;     /* no buffer was there to ask with */
	struct iovec iov[VIRTQ_IOV_MAX];

	pthread_mutex_t lock; /* guards what follows */
	uint64_t reported;
	bool have[BALLOON_STATS];
	uint64_t stat[BALLOON_STATS];
	uint64_t stats_ns; /* guest time */
};

static struct virtio_balloon *to_balloon(struct virtio_device *d)
{
	return container_of(d, struct virtio_balloon, vd);
}

static uint32_t config_get(struct virtio_balloon *b, unsigned offset)
{
	AUTO_LOCK(&b->vd.config_lock);
	return (uint32_t)load_le(b->vd.config + offset, 4);
}

static void bad_chain(struct virtio_balloon *b, const char *what)
{
	virtio_broken(&b->vd, "a bad chain of %s", what);
}

/* --- pages into the balloon --- */

/* Neighbours go back together; numbers that are no RAM are the guest's mistake, and nothing. */
static void discard_pfns(struct virtio_balloon *b, const uint32_t *pfn, unsigned n)
{
	for (unsigned first = 0, i = 1; i <= n; i++) {
		if (i < n && pfn[i] == pfn[i - 1] + 1)
			continue;
		(void)!mem_discard(b->vd.env.mem, (gpa_t)pfn[first] * PAGE,
				   (uint64_t)(i - first) * PAGE);
		first = i;
	}
}

/* Bytes [at, at + len) of what the chain has for the device. */
static void copy_out(const struct virtq_chain *c, uint64_t at, void *to, uint64_t len)
{
	uint8_t *p = to;

	for (unsigned i = 0; i < c->out && len; i++) {
		uint64_t part;

		if (at >= c->iov[i].iov_len) {
			at -= c->iov[i].iov_len;
			continue;
		}
		part = min_u64(c->iov[i].iov_len - at, len);
		memcpy(p, (const uint8_t *)c->iov[i].iov_base + at, part);
		p += part;
		len -= part;
		at = 0;
	}
}

static int compare_pfns(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void inflate(struct virtio_balloon *b, const struct virtq_chain *c)
{
	uint32_t pfn[PFNS_AT_ONCE];

	for (uint64_t at = 0; at + 4 <= c->out_len;) {
		unsigned n = (unsigned)min_u64((c->out_len - at) / 4, PFNS_AT_ONCE);

		copy_out(c, at, pfn, n * 4u);
		qsort(pfn, n, sizeof *pfn, compare_pfns);
		discard_pfns(b, pfn, n);
		at += n * 4u;
	}
}

/* --- free pages, reported --- */

static void discard_reported(struct virtio_balloon *b, const struct virtq_chain *c)
{
	uint64_t total = 0;

	/* The guest wants its poison back, which zeros are not. */
	if (virtio_has(&b->vd, FEATURE_PAGE_POISON) && config_get(b, CONFIG_POISON))
		return;
	for (unsigned i = c->out; i < c->out + c->in; i++) {
		const struct iovec *v = &c->iov[i];

		if (mem_discard(b->vd.env.mem, mem_gpa(b->vd.env.mem, v->iov_base), v->iov_len) ==
		    0)
			total += v->iov_len;
	}
	AUTO_LOCK(&b->lock);
	b->reported += total;
}

/* --- statistics --- */

static void read_stats(struct virtio_balloon *b, const struct virtq_chain *c)
{
	uint8_t s[STAT_LEN * 32];
	uint64_t len = min_u64(c->out_len, sizeof s);

	copy_out(c, 0, s, len);
	AUTO_LOCK(&b->lock);
	memset(b->have, 0, sizeof b->have);
	for (uint64_t at = 0; at + STAT_LEN <= len; at += STAT_LEN) {
		unsigned tag = (unsigned)load_le(s + at, 2);

		if (tag >= BALLOON_STATS)
			continue;
		b->have[tag] = true;
		b->stat[tag] = load_le(s + at + 2, 8);
	}
	b->stats_ns = clock_now(b->vd.env.clock);
}

static struct virtq_chain chain(struct virtio_balloon *b)
{
	return (struct virtq_chain){.iov = b->iov, .iov_max = VIRTQ_IOV_MAX};
}

static struct virtq *stats_queue(struct virtio_balloon *b)
{
	return virtio_has(&b->vd, FEATURE_STATS) ? b->vd.queue[THIRD] : NULL;
}

/* Reads the buffer that lies in the queue, if it is a new one. */
static void look_at_stats(struct virtio_balloon *b)
{
	struct virtq *q = stats_queue(b);
	struct virtq_chain c = chain(b);
	int r = b->stats_fresh ? 0 : virtq_pop(q, &c);

	if (r < 0) {
		bad_chain(b, "statistics");
	} else if (r > 0) {
		read_stats(b, &c);
		b->stats_fresh = true;
		virtq_unpop(q, &c);
		if (b->ask_due)
			virtio_balloon_ask(&b->vd);
	}
}

void virtio_balloon_ask(struct virtio_device *d)
{
	struct virtio_balloon *b = to_balloon(d);
	struct virtq *q = stats_queue(b);
	struct virtq_chain c = chain(b);

	if (!q || !d->started || d->stopping)
		return;
	b->ask_due = !b->stats_fresh || virtq_pop(q, &c) <= 0;
	if (b->ask_due)
		return;
	b->stats_fresh = false;
	virtq_push(q, &c, 0);
	virtq_publish(q);
	if (virtq_kicks_on(q))
		look_at_stats(b);
}

/* --- the queues --- */

static void again(struct virtio_balloon *b)
{
	if (b->turn_posted)
		return;
	b->turn_posted = true;
	loop_post(b->vd.env.loop, &b->turn);
}

static const char *what_of(unsigned n)
{
	return n == INFLATE ? "pages" : n == DEFLATE ? "pages to give back" : "free pages";
}

static bool fits(unsigned n, const struct virtq_chain *c)
{
	if (n >= THIRD)
		return !c->out;
	return !c->in && c->out_len % 4 == 0 && c->out_len <= PFNS_MAX * 4;
}

/* Deflating needs no work: what is touched again is there, and zero. */
static void serve(struct virtio_balloon *b, unsigned n)
{
	struct virtq *q = b->vd.queue[n];
	struct virtq_chain c = chain(b);
	unsigned done = 0;
	int r = 0;

	do {
		while (done < TURN && (r = virtq_pop(q, &c)) > 0 && fits(n, &c)) {
			if (n == INFLATE)
				inflate(b, &c);
			else if (n >= THIRD)
				discard_reported(b, &c);
			virtq_push(q, &c, 0);
			done++;
		}
	} while (r == 0 && done < TURN && virtq_kicks_on(q));
	if (done < TURN && r)
		bad_chain(b, what_of(n));
	virtq_publish(q);
	if (done == TURN)
		again(b);
}

static void kick(struct virtio_device *d, unsigned n)
{
	struct virtio_balloon *b = to_balloon(d);

	if (d->queue[n] == stats_queue(b))
		look_at_stats(b);
	else
		serve(b, n);
}

static void next_turn(struct loop_call *call)
{
	struct virtio_balloon *b = container_of(call, struct virtio_balloon, turn);

	b->turn_posted = false;
	for (unsigned n = 0; n < QUEUES; n++)
		virtio_kick(&b->vd, n);
}

static void ask_later(struct virtio_balloon *b)
{
	timer_arm(b->clock, &b->ask, clock_now(b->clock) + ASK_NS);
}

static void time_to_ask(struct timer *t)
{
	struct virtio_balloon *b = container_of(t, struct virtio_balloon, ask);

	if (!b->vd.started || b->vd.stopping)
		return;
	virtio_balloon_ask(&b->vd);
	ask_later(b);
}

static void start(struct virtio_device *d)
{
	struct virtio_balloon *b = to_balloon(d);

	b->stats_fresh = false;
	if (virtio_has(d, FEATURE_STATS))
		ask_later(b);
}

static void stop(struct virtio_device *d)
{
	timer_cancel(to_balloon(d)->clock, &to_balloon(d)->ask);
	virtio_stopped(d);
}

static void reset(struct virtio_device *d)
{
	struct virtio_balloon *b = to_balloon(d);

	b->ask_due = b->stats_fresh = false;
	pthread_mutex_lock(&d->config_lock);
	store_le(d->config + CONFIG_ACTUAL, 0, 4);
	store_le(d->config + CONFIG_POISON, 0, 4);
	pthread_mutex_unlock(&d->config_lock);
	AUTO_LOCK(&b->lock);
	memset(b->have, 0, sizeof b->have);
}

/* --- for the host --- */

void virtio_balloon_set_target(struct virtio_device *d, uint64_t inflate_bytes)
{
	uint8_t pages[4];

	store_le(pages, min_u64(inflate_bytes / PAGE, UINT32_MAX), 4);
	virtio_config_set(d, CONFIG_NUM_PAGES, pages, sizeof pages);
}

void virtio_balloon_report(struct virtio_device *d, struct balloon_report *to)
{
	struct virtio_balloon *b = to_balloon(d);

	*to = (struct balloon_report){
		.target = (uint64_t)config_get(b, CONFIG_NUM_PAGES) * PAGE,
		.actual = (uint64_t)config_get(b, CONFIG_ACTUAL) * PAGE,
	};
	AUTO_LOCK(&b->lock);
	to->reported = b->reported;
	memcpy(to->have, b->have, sizeof to->have);
	memcpy(to->stat, b->stat, sizeof to->stat);
	to->age_ns = clock_now(d->env.clock) - b->stats_ns;
}

static void state(struct virtio_device *d, struct state *s)
{
	struct virtio_balloon *b = to_balloon(d);

	state_bool(s, "ask_due", &b->ask_due);
	if (state_loading(s))
		b->stats_fresh = false;
}

static void balloon_free(struct virtio_device *d)
{
	struct virtio_balloon *b;

	if (!d)
		return;
	b = to_balloon(d);
	timer_cancel(b->clock, &b->ask);
	pthread_mutex_destroy(&b->lock);
	virtio_done(d);
	free(b);
}

const struct virtio_type virtio_balloon_type = {
	.name = "virtio-balloon",
	.id = VIRTIO_ID_BALLOON,
	.pci_class = 0x00ff00, /* one that fits no other */
	.start = start,
	.stop = stop,
	.kick = kick,
	.reset = reset,
	.state = state,
	.free = balloon_free,
};

int virtio_balloon_new(struct virtio_device **out, const struct virtio_env *env,
		       uint64_t inflate_bytes, struct err *e)
{
	static const uint16_t size[QUEUES] = {128, 128, 64, 64, 64};
	static const uint64_t features = FEATURE_MUST_TELL_HOST | FEATURE_STATS |
					 FEATURE_DEFLATE_ON_OOM | FEATURE_PAGE_POISON |
					 FEATURE_PAGE_REPORTING;
	struct virtio_balloon *b = calloc(1, sizeof *b);
	int r;

	if (!b)
		return err_set(e, ENOMEM, "balloon");
	pthread_mutex_init(&b->lock, NULL);
	b->turn.run = next_turn;
	b->clock = loop_clock(env->loop);
	b->ask.fire = time_to_ask;
	r = virtio_init(&b->vd, &virtio_balloon_type, env, features, QUEUES, size, e);
	if (r < 0) {
		balloon_free(&b->vd);
		return r;
	}
	b->vd.config_len = CONFIG_LEN;
	b->vd.config_writable = UINT64_C(0xf) << CONFIG_ACTUAL | UINT64_C(0xf) << CONFIG_POISON;
	store_le(b->vd.config + CONFIG_NUM_PAGES, min_u64(inflate_bytes / PAGE, UINT32_MAX), 4);
	*out = &b->vd;
	return 0;
}
