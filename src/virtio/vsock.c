/* vsock: the queues of the socket device, and the packet header. Queue 0 takes packets to the
 * guest, 1 from the guest, 2 events. See vsock.h. */
#include "virtio/vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/vsock_priv.h"

enum { RX, TX, EVENT, QUEUES };

#define FEATURE_STREAM BIT(0)
#define TURN           256 /* packets before others of the loop have theirs */

struct virtio_vsock {
	struct virtio_device vd;
	struct vsock_conns conns;
	struct vsock_host host;
	bool reset_due;            /* the driver must hear that its connections are gone */
	struct loop_call turn;     /* goes on where the last turn ended */
	bool turn_posted, working; /* working: what gets ready is taken up without a turn */
	struct iovec iov[VIRTQ_IOV_MAX], payload[VIRTQ_IOV_MAX];
};

static struct virtio_vsock *to_vsock(struct virtio_device *d)
{
	return container_of(d, struct virtio_vsock, vd);
}

/* --- the header (5.10.6) --- */

static void header_read(struct vsock_packet *p, const uint8_t *h)
{
	*p = (struct vsock_packet){
		.src_cid = load_le(h, 8),
		.dst_cid = load_le(h + 8, 8),
		.src_port = (uint32_t)load_le(h + 16, 4),
		.dst_port = (uint32_t)load_le(h + 20, 4),
		.len = (uint32_t)load_le(h + 24, 4),
		.type = (uint16_t)load_le(h + 28, 2),
		.op = (uint16_t)load_le(h + 30, 2),
		.flags = (uint32_t)load_le(h + 32, 4),
		.buf_alloc = (uint32_t)load_le(h + 36, 4),
		.fwd_cnt = (uint32_t)load_le(h + 40, 4),
	};
}

static void header_write(uint8_t *h, const struct vsock_packet *p)
{
	store_le(h, p->src_cid, 8);
	store_le(h + 8, p->dst_cid, 8);
	store_le(h + 16, p->src_port, 4);
	store_le(h + 20, p->dst_port, 4);
	store_le(h + 24, p->len, 4);
	store_le(h + 28, p->type, 2);
	store_le(h + 30, p->op, 2);
	store_le(h + 32, p->flags, 4);
	store_le(h + 36, p->buf_alloc, 4);
	store_le(h + 40, p->fwd_cnt, 4);
}

int vsock_iov_skip(struct iovec *to, const struct iovec *from, unsigned n, uint64_t len)
{
	int m = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t part = min_u64(len, from[i].iov_len);

		len -= part;
		if (part == from[i].iov_len)
			continue;
		to[m++] =
			(struct iovec){(uint8_t *)from[i].iov_base + part, from[i].iov_len - part};
	}
	return m;
}

/* Between the header and the first pieces of a chain, which hold that many bytes. */
static void header_copy(uint8_t *h, const struct iovec *iov, bool to_guest)
{
	for (uint64_t done = 0, part; done < VSOCK_HEADER_LEN; done += part, iov++) {
		part = min_u64(iov->iov_len, VSOCK_HEADER_LEN - done);
		if (to_guest)
			memcpy(iov->iov_base, h + done, part);
		else
			memcpy(h + done, iov->iov_base, part);
	}
}

/* --- to the guest --- */

/* One packet into chain c; false: there is none. */
static bool put_packet(struct virtio_vsock *v, const struct virtq_chain *c, uint32_t *written)
{
	struct vsock_packet p;
	uint8_t h[VSOCK_HEADER_LEN];
	int n = vsock_iov_skip(v->payload, c->iov + c->out, c->in, VSOCK_HEADER_LEN);

	if (!vsock_conns_next(&v->conns, &p, v->payload, n))
		return false;
	header_write(h, &p);
	header_copy(h, c->iov + c->out, true);
	*written = VSOCK_HEADER_LEN + p.len;
	return true;
}

static struct virtq_chain chain(struct virtio_vsock *v)
{
	return (struct virtq_chain){.iov = v->iov, .iov_max = VIRTQ_IOV_MAX};
}

/* The next buffer for the guest's packets: 1; none: 0, and its coming will kick us. */
static int next_buffer(struct virtio_vsock *v, struct virtq_chain *c)
{
	struct virtq *q = v->vd.queue[RX];
	int r = virtq_pop(q, c);

	if (r == 0 && virtq_kicks_on(q))
		r = virtq_pop(q, c);
	if (r < 0)
		virtio_broken(&v->vd, "a receive buffer that is none");
	else if (r > 0 && (c->out || c->in_len < VSOCK_HEADER_LEN))
		virtio_broken(&v->vd, "a receive buffer of %u bytes", (unsigned)c->in_len);
	else
		return r;
	return 0;
}

static void again(struct virtio_vsock *v)
{
	if (v->turn_posted)
		return;
	v->turn_posted = true;
	loop_post(v->vd.env.loop, &v->turn);
}

static bool active(const struct virtio_vsock *v)
{
	return v->vd.started && !v->vd.stopping;
}

static void to_guest(struct virtio_vsock *v)
{
	struct virtq *q = v->vd.queue[RX];
	struct virtq_chain c = chain(v);
	unsigned n = 0;

	virtq_kicks_off(q);
	while (vsock_conns_have(&v->conns) && next_buffer(v, &c) > 0) {
		uint32_t written;

		if (!put_packet(v, &c, &written)) {
			virtq_unpop(q, &c);
			break;
		}
		virtq_push(q, &c, written);
		if (++n == TURN) {
			again(v);
			break;
		}
	}
	if (n)
		virtq_publish(q);
}

/* --- from the guest --- */

static bool take_packet(struct virtio_vsock *v, const struct virtq_chain *c)
{
	struct vsock_packet p;
	uint8_t h[VSOCK_HEADER_LEN];
	int n;

	if (c->in || c->out_len < VSOCK_HEADER_LEN)
		return false;
	header_copy(h, c->iov, false);
	header_read(&p, h);
	if (p.len != c->out_len - VSOCK_HEADER_LEN)
		return false;
	n = vsock_iov_skip(v->payload, c->iov, c->out, VSOCK_HEADER_LEN);
	vsock_conns_packet(&v->conns, &p, v->payload, n);
	return true;
}

/* Stops while answers could not be kept: the guest must take some first. */
static void from_guest(struct virtio_vsock *v)
{
	struct virtq *q = v->vd.queue[TX];
	struct virtq_chain c = chain(v);
	unsigned n = 0;
	int r = 0;

	do {
		while (n < TURN && vsock_conns_can_take(&v->conns) && (r = virtq_pop(q, &c)) > 0) {
			if (!take_packet(v, &c)) {
				r = -1;
				break;
			}
			virtq_push(q, &c, 0);
			n++;
		}
		if (r < 0) {
			virtio_broken(&v->vd, "a packet that is none");
			return;
		}
	} while (n < TURN && vsock_conns_can_take(&v->conns) && virtq_kicks_on(q));
	if (n)
		virtq_publish(q);
	if (n == TURN)
		again(v);
}

static void tell_reset(struct virtio_vsock *v)
{
	static const uint8_t transport_reset[4]; /* event 0 */
	struct virtq *q = v->vd.queue[EVENT];
	struct virtq_chain c = chain(v);
	int r;

	if (!v->reset_due)
		return;
	r = virtq_pop(q, &c);
	if (r < 0 || (r > 0 && (c.out || !c.in || c.iov[0].iov_len < sizeof transport_reset))) {
		virtio_broken(&v->vd, "an event buffer that is none");
	} else if (r > 0) {
		memcpy(c.iov[0].iov_base, transport_reset, sizeof transport_reset);
		virtq_push(q, &c, sizeof transport_reset);
		virtq_publish(q);
		v->reset_due = false;
	}
}

static void work(struct virtio_vsock *v)
{
	bool full;

	v->working = true;
	from_guest(v);
	full = !vsock_conns_can_take(&v->conns);
	to_guest(v);
	v->working = false;
	if (full && vsock_conns_can_take(&v->conns))
		again(v); /* the guest's packets waited for that */
}

static void next_turn(struct loop_call *call)
{
	struct virtio_vsock *v = container_of(call, struct virtio_vsock, turn);

	v->turn_posted = false;
	if (active(v))
		work(v);
}

static void ready(struct vsock_conns *c)
{
	struct virtio_vsock *v = container_of(c, struct virtio_vsock, conns);

	if (!v->working)
		again(v);
}

static void kick(struct virtio_device *d, unsigned n)
{
	if (n == EVENT)
		tell_reset(to_vsock(d));
	else
		work(to_vsock(d));
}

static void reset(struct virtio_device *d)
{
	struct virtio_vsock *v = to_vsock(d);

	vsock_conns_drop(&v->conns);
	v->reset_due = false;
}

static void state(struct virtio_device *d, struct state *s)
{
	struct virtio_vsock *v = to_vsock(d);

	state_bool(s, "reset_due", &v->reset_due);
	if (!state_loading(s))
		return;
	/* Its connections are those of another process, or another time. */
	vsock_conns_drop(&v->conns);
	v->reset_due = true;
	v->conns.guest_cid = load_le(d->config, 8);
}

static void vsock_free(struct virtio_device *d)
{
	struct virtio_vsock *v;

	if (!d)
		return;
	v = to_vsock(d);
	vsock_host_done(&v->host);
	vsock_conns_drop(&v->conns);
	virtio_done(d);
	free(v);
}

const struct virtio_type virtio_vsock_type = {
	.name = "virtio-vsock",
	.id = VIRTIO_ID_VSOCK,
	.pci_class = 0x028000, /* network, other */
	.kick = kick,
	.reset = reset,
	.state = state,
	.free = vsock_free,
};

static int init(struct virtio_vsock *v, const struct virtio_env *env, const char *path,
		uint64_t cid, struct err *e)
{
	int r;

	if (cid < VSOCK_CID_MIN || cid > VSOCK_CID_MAX)
		return err_set(e, EINVAL, "CID %llu: %u to %u are possible",
			       (unsigned long long)cid, VSOCK_CID_MIN, VSOCK_CID_MAX);
	store_le(v->vd.config, cid, 8);
	v->vd.config_len = 8;
	v->turn.run = next_turn;
	v->conns.loop = env->loop;
	v->conns.guest_cid = cid;
	v->conns.ready = ready;
	r = vsock_host_init(&v->host, &v->conns, path, e);
	if (r == 0)
		strcpy(v->conns.path, path);
	return r;
}

int virtio_vsock_new(struct virtio_device **out, const struct virtio_env *env, const char *path,
		     uint64_t cid, struct err *e)
{
	static const uint16_t size[QUEUES] = {256, 256, 16};
	struct virtio_vsock *v = calloc(1, sizeof *v);
	int r;

	if (!v)
		return err_set(e, ENOMEM, "vsock device");
	r = virtio_init(&v->vd, &virtio_vsock_type, env, FEATURE_STREAM, QUEUES, size, e);
	if (r == 0)
		r = init(v, env, path, cid, e);
	if (r < 0)
		vsock_free(&v->vd);
	else
		*out = &v->vd;
	return r;
}
