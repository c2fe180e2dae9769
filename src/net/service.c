#include "net/service.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "net/offload.h"

#define ETH_ARP   0x0806u
#define ETH_IPV4  0x0800u
#define ARP_LEN   28u
#define IP_LEN    20u
#define TCP_LEN   20u
#define TCP_AT    (ETH_HEADER + IP_LEN)
#define DATA_AT   (TCP_AT + TCP_LEN)
#define DATA_MAX  1460u
#define MSS_LEAST 88u

#define FIN 0x01u
#define SYN 0x02u
#define RST 0x04u
#define PSH 0x08u
#define ACK 0x10u

#define NS_PER_MS   UINT64_C(1000000)
#define NS_PER_S    UINT64_C(1000000000)
#define RESEND_MS   200u
#define RESENDS_MAX 7u /* each waits twice as long as the one before */

/* The wire's end at the service; locally administered. */
static const uint8_t own_mac[6] = {0x06, 0x01, 0x23, 0x45, 0x67, 0x01};

/* Numbers of bytes wrap around: a and b are compared by their distance. */
static bool is_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

struct segment { /* from the guest */
	uint8_t mac[6];
	uint32_t address; /* host order, as all here */
	uint16_t port, to_port, window, mss;
	uint32_t seq, ack;
	uint8_t flags;
	const uint8_t *data;
	uint32_t len;
};

struct conn {
	bool used, synced; /* synced: our SYN is acknowledged */
	uint8_t mac[6];
	uint32_t address;
	uint16_t port, mss, window;
	uint64_t heard_ns;

	uint32_t next_in; /* the number of the next byte from the guest */
	char *in;         /* [SERVICE_IN_MAX] */
	uint32_t in_len;
	bool guest_done; /* it has sent its FIN */

	uint32_t una;  /* the first of our bytes that is not acknowledged */
	uint32_t next; /* the next to be sent, */
	uint32_t top;  /* and the one behind all that were ever sent */
	char *out;     /* an answer whose first byte that is not acknowledged has number una */
	size_t out_len, out_at;
	bool last; /* a FIN comes behind it */
	unsigned resends;
	uint64_t resend_ns; /* 0: nothing is to be sent again */
};

struct service {
	struct net_filter filter;
	struct net_service s;
	struct loop *loop;
	struct timer timer; /* for resends, and for those that are quiet */
	struct conn conn[SERVICE_CONNS];
	uint8_t from_guest[NET_FRAME_MAX];
};

static uint64_t now_of(const struct service *s)
{
	return clock_now(loop_clock(s->loop));
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* --- to the guest --- */

static bool send_frame(struct service *s, uint8_t *frame, size_t len)
{
	const struct net_hdr h = {.num_buffers = 1};
	struct iovec iov = {frame, len};

	return net_send(&s->filter.side[NET_CARD_SIDE], &h, &iov, 1);
}

static void put_eth(uint8_t *f, const uint8_t to[6], unsigned type)
{
	memcpy(f, to, 6);
	memcpy(f + 6, own_mac, 6);
	put16(f + 12, type);
}

static void put_ip(uint8_t *ip, uint32_t from, uint32_t to, size_t len)
{
	ip[0] = 0x45;
	put16(ip + 2, (unsigned)len);
	put16(ip + 6, 0x4000); /* never in fragments */
	ip[8] = 64;
	ip[9] = IPPROTO_TCP;
	put32(ip + 12, from);
	put32(ip + 16, to);
	put16(ip + 10, (uint16_t)~net_sum(ip, IP_LEN, 0));
}

/* options: of a SYN, the segment size. */
static bool send_tcp(struct service *s, const struct segment *to, uint32_t seq, uint32_t ack,
		     unsigned flags, uint32_t window, const void *data, size_t len)
{
	uint8_t f[DATA_AT + DATA_MAX] = {0};
	size_t head = TCP_LEN + (flags & SYN ? 4 : 0), tcp_len = head + len;
	uint8_t *ip = f + ETH_HEADER, *tcp = f + TCP_AT;

	put_eth(f, to->mac, ETH_IPV4);
	put_ip(ip, s->s.address, to->address, IP_LEN + tcp_len);
	put16(tcp, to->to_port);
	put16(tcp + 2, to->port);
	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = (uint8_t)(head / 4 << 4);
	tcp[13] = (uint8_t)flags;
	put16(tcp + 14, (unsigned)min_u64(window, 65535));
	if (flags & SYN) {
		tcp[20] = 2, tcp[21] = 4;
		put16(tcp + 22, DATA_MAX);
	}
	if (len)
		memcpy(tcp + head, data, len);
	put16(tcp + 16,
	      (uint16_t)~net_sum(tcp, tcp_len, net_pseudo_sum(ip, false, IPPROTO_TCP, tcp_len)));
	return send_frame(s, f, TCP_AT + tcp_len);
}

static void refuse(struct service *s, const struct segment *g)
{
	if (g->flags & RST)
		return;
	if (g->flags & ACK)
		(void)!send_tcp(s, g, g->ack, 0, RST, 0, NULL, 0);
	else
		(void)!send_tcp(s, g, 0, g->seq + g->len + !!(g->flags & SYN) + !!(g->flags & FIN),
				RST | ACK, 0, NULL, 0);
}

/* --- connections --- */

static bool send_conn(struct service *s, struct conn *c, uint32_t seq, unsigned flags,
		      const void *data, size_t len)
{
	struct segment to = {.address = c->address, .port = c->port, .to_port = s->s.port};

	memcpy(to.mac, c->mac, sizeof to.mac);
	return send_tcp(s, &to, seq, c->next_in, flags | ACK, SERVICE_IN_MAX - c->in_len, data,
			len);
}

static void conn_drop(struct conn *c)
{
	free(c->in);
	free(c->out);
	*c = (struct conn){0};
}

static struct conn *conn_find(struct service *s, const struct segment *g)
{
	for (unsigned i = 0; i < SERVICE_CONNS; i++)
		if (s->conn[i].used && s->conn[i].address == g->address &&
		    s->conn[i].port == g->port)
			return &s->conn[i];
	return NULL;
}

static struct conn *conn_room(struct service *s)
{
	struct conn *c = &s->conn[0];

	for (unsigned i = 0; i < SERVICE_CONNS; i++) {
		if (!s->conn[i].used)
			return &s->conn[i];
		if (s->conn[i].heard_ns < c->heard_ns)
			c = &s->conn[i];
	}
	conn_drop(c);
	return c;
}

static void arm(struct service *s)
{
	uint64_t at = UINT64_MAX;

	for (unsigned i = 0; i < SERVICE_CONNS; i++) {
		const struct conn *c = &s->conn[i];

		if (!c->used)
			continue;
		at = min_u64(at, c->heard_ns + SERVICE_QUIET_S * NS_PER_S);
		if (c->resend_ns)
			at = min_u64(at, c->resend_ns);
	}
	if (at == UINT64_MAX)
		timer_cancel(loop_clock(s->loop), &s->timer);
	else
		timer_arm(loop_clock(s->loop), &s->timer, at);
}

static void resend_later(struct service *s, struct conn *c)
{
	c->resend_ns = now_of(s) + ((uint64_t)RESEND_MS << c->resends) * NS_PER_MS;
}

static void conn_new(struct service *s, const struct segment *g)
{
	struct conn *c = conn_room(s);
	char *in = malloc(SERVICE_IN_MAX);
	uint32_t first;

	if (!in || getrandom(&first, sizeof first, 0) != sizeof first) {
		free(in);
		return;
	}
	*c = (struct conn){
		.used = true,
		.address = g->address,
		.port = g->port,
		.mss = (uint16_t)min_u64(max_u64(g->mss, MSS_LEAST), DATA_MAX),
		.window = g->window,
		.heard_ns = now_of(s),
		.next_in = g->seq + 1,
		.in = in,
		.una = first,
		.next = first + 1,
		.top = first + 1,
	};
	memcpy(c->mac, g->mac, sizeof c->mac);
	(void)!send_conn(s, c, first, SYN, NULL, 0);
	resend_later(s, c);
}

/* --- requests and answers --- */

/* Has the next request answered, if it is whole and the answer before is out. */
static void answer(struct service *s, struct conn *c)
{
	long used;

	if (c->out || c->last || !c->in_len)
		return;
	used = s->s.serve(s->s.ctx, c->in, c->in_len, &c->out, &c->out_len);
	c->out_at = 0;
	if (used == 0) {
		c->last = c->guest_done || c->in_len == SERVICE_IN_MAX;
		return;
	}
	c->last = used < 0;
	c->in_len -= used < 0 ? c->in_len : (uint32_t)used;
	memmove(c->in, c->in + (used < 0 ? 0 : used), c->in_len);
}

/* Our bytes are numbered from una; behind the answer comes the FIN. */
static uint32_t end_of(const struct conn *c)
{
	return c->una + (uint32_t)(c->out_len - c->out_at) + c->last;
}

/* Sends what there is and the guest has room for. Returns whether anything went out. */
static bool send_out(struct service *s, struct conn *c, bool probe)
{
	bool sent = false;

	while (c->synced && is_before(c->next, end_of(c))) {
		uint32_t flying = c->next - c->una;
		size_t left = c->out_len - c->out_at;
		size_t n = flying < left ? left - flying : 0;
		uint32_t room = c->window > flying ? c->window - flying : 0;
		unsigned flags;

		if (probe && !room)
			room = 1; /* whose window is closed tells so when it is asked */
		if (n > c->mss)
			n = c->mss;
		if (n > room)
			n = room;
		/* The FIN needs no room, but goes behind all. */
		flags = c->last && flying + n == left ? FIN : 0;
		if ((!n && !flags) || !send_conn(s, c, c->next, flags | (n ? PSH : 0),
						 c->out ? c->out + c->out_at + flying : NULL, n))
			break;
		c->next += (uint32_t)n + !!flags;
		if (is_before(c->top, c->next))
			c->top = c->next;
		sent = true;
		probe = false;
	}
	if (is_before(c->una, end_of(c)) && !c->resend_ns)
		resend_later(s, c);
	return sent;
}

/* Returns false when all is acknowledged, and the FIN behind it. */
static bool acknowledged(struct conn *c, const struct segment *g)
{
	uint32_t n = g->ack - c->una;
	bool over = c->synced && c->last && g->ack == end_of(c);

	c->window = g->window;
	if (!n || is_before(c->top, g->ack) || is_before(g->ack, c->una))
		return true;
	c->resends = 0;
	c->resend_ns = 0;
	c->una = g->ack;
	if (is_before(c->next, c->una))
		c->next = c->una;
	if (!c->synced) {
		c->synced = true;
		n--;
	}
	c->out_at += min_u64(n, c->out_len - c->out_at);
	if (c->out_at < c->out_len || over)
		return !over;
	free(c->out);
	c->out = NULL;
	c->out_len = c->out_at = 0;
	return true;
}

/* Returns whether the guest is to be told what we have. */
static bool take_data(struct conn *c, const struct segment *g)
{
	uint32_t old = c->next_in - g->seq, n;

	if (!g->len && !(g->flags & FIN))
		return false;
	/* Before or behind what is expected: told where we are. */
	if (is_before(c->next_in, g->seq) || old > g->len || c->guest_done)
		return true;
	n = (uint32_t)min_u64(g->len - old, SERVICE_IN_MAX - c->in_len);
	memcpy(c->in + c->in_len, g->data + old, n);
	c->in_len += n;
	c->next_in += n;
	if (g->flags & FIN && n == g->len - old) {
		c->guest_done = true;
		c->next_in++;
	}
	return true;
}

static void take_segment(struct service *s, const struct segment *g)
{
	struct conn *c = conn_find(s, g);
	bool tell;

	if (c && g->flags & RST) {
		if (g->seq == c->next_in)
			conn_drop(c);
		return;
	}
	if (g->flags & SYN && !(g->flags & ACK)) {
		if (c && c->next_in == g->seq + 1 && !c->synced) {
			(void)!send_conn(s, c, c->una, SYN, NULL, 0);
			return;
		}
		if (c)
			conn_drop(c);
		conn_new(s, g);
		return;
	}
	if (!c || !(g->flags & ACK) || g->flags & SYN) {
		refuse(s, g);
		return;
	}
	c->heard_ns = now_of(s);
	if (!acknowledged(c, g)) {
		if (take_data(c, g))
			(void)!send_conn(s, c, c->next, 0, NULL, 0);
		conn_drop(c);
		return;
	}
	tell = take_data(c, g);
	answer(s, c);
	if (c->guest_done && !c->out)
		c->last = true;
	if (!send_out(s, c, false) && tell)
		(void)!send_conn(s, c, c->next, 0, NULL, 0);
}

/* --- time --- */

static void resend(struct service *s, struct conn *c)
{
	if (c->resends++ == RESENDS_MAX) {
		conn_drop(c);
		return;
	}
	c->resend_ns = 0;
	if (!c->synced) {
		(void)!send_conn(s, c, c->una, SYN, NULL, 0);
	} else {
		c->next = c->una;
		send_out(s, c, true);
	}
	if (!c->resend_ns)
		resend_later(s, c);
}

static void time_is_up(struct timer *t)
{
	struct service *s = container_of(t, struct service, timer);
	uint64_t now = now_of(s);

	for (unsigned i = 0; i < SERVICE_CONNS; i++) {
		struct conn *c = &s->conn[i];

		if (!c->used)
			continue;
		if (now >= c->heard_ns + SERVICE_QUIET_S * NS_PER_S)
			conn_drop(c);
		else if (c->resend_ns && now >= c->resend_ns)
			resend(s, c);
	}
	net_flush(&s->filter.side[NET_CARD_SIDE]);
	arm(s);
}

/* The guest has made room. */
static void room(struct net_filter *f, int from)
{
	struct service *s = container_of(f, struct service, filter);

	if (from != NET_CARD_SIDE)
		return;
	for (unsigned i = 0; i < SERVICE_CONNS; i++)
		if (s->conn[i].used)
			send_out(s, &s->conn[i], false);
	net_flush(&s->filter.side[NET_CARD_SIDE]);
	arm(s);
}

/* --- from the guest --- */

static void answer_arp(struct service *s, const uint8_t *f)
{
	uint8_t reply[ETH_HEADER + ARP_LEN] = {0};
	uint8_t *a = reply + ETH_HEADER;

	if (get16(f + ETH_HEADER + 6) != 1)
		return;
	put_eth(reply, f + ETH_HEADER + 8, ETH_ARP);
	memcpy(a, f + ETH_HEADER, 8);
	put16(a + 6, 2);
	memcpy(a + 8, own_mac, 6);
	put32(a + 14, s->s.address);
	memcpy(a + 18, f + ETH_HEADER + 8, 10);
	(void)!send_frame(s, reply, sizeof reply);
}

static uint16_t mss_of_syn(const uint8_t *options, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t n = options[i] == 1 ? 1 : i + 1 < len ? options[i + 1] : 0;

		if (options[i] == 0 || !n || n > len - i)
			break;
		if (options[i] == 2 && n == 4)
			return get16(options + i + 2);
		i += n < 2 && options[i] != 1 ? len : n;
	}
	return 536;
}

static void take_ip(struct service *s, const uint8_t *f, size_t len)
{
	struct segment g = {0};
	struct net_layout l;
	const uint8_t *tcp;

	if (!net_layout(f, len, &l) || l.proto != IPPROTO_TCP || l.fragment)
		return;
	tcp = f + l.l4;
	memcpy(g.mac, f + 6, 6);
	g.address = get32(f + l.l3 + 12);
	g.port = get16(tcp);
	g.to_port = get16(tcp + 2);
	g.seq = get32(tcp + 4);
	g.ack = get32(tcp + 8);
	g.flags = tcp[13];
	g.window = get16(tcp + 14);
	g.mss = g.flags & SYN ? mss_of_syn(tcp + TCP_LEN, l.data - l.l4 - TCP_LEN) : 0;
	g.data = f + l.data;
	g.len = l.end - l.data;
	if (g.to_port == s->s.port)
		take_segment(s, &g);
	else
		refuse(s, &g);
}

/* Whether the frame is the service's: by no more than its head. */
static bool is_ours(const struct service *s, const uint8_t *f, size_t len)
{
	if (len < ETH_HEADER + ARP_LEN && len < ETH_HEADER + IP_LEN)
		return false;
	if (get16(f + 12) == ETH_ARP)
		return len >= ETH_HEADER + ARP_LEN && get32(f + ETH_HEADER + 24) == s->s.address;
	return get16(f + 12) == ETH_IPV4 && len >= ETH_HEADER + IP_LEN &&
	       get32(f + ETH_HEADER + 16) == s->s.address;
}

static bool takes(struct net_filter *filter, int from, const struct net_hdr *h,
		  const struct iovec *iov, unsigned n)
{
	struct service *s = container_of(filter, struct service, filter);
	uint8_t head[ETH_HEADER + ARP_LEN];
	struct iovec first = {head, 0};
	size_t len;

	if (from != NET_CARD_SIDE)
		return false;
	/* Most frames are others': no more is copied of them than tells that. */
	for (unsigned i = 0; i < n && first.iov_len < sizeof head; i++) {
		size_t k = min_u64(iov[i].iov_len, sizeof head - first.iov_len);

		memcpy(head + first.iov_len, iov[i].iov_base, k);
		first.iov_len += k;
	}
	if (!is_ours(s, head, first.iov_len))
		return false;
	len = net_gather(s->from_guest, sizeof s->from_guest, iov, n);
	if (!len || !is_ours(s, s->from_guest, len))
		return true;
	if (get16(s->from_guest + 12) == ETH_ARP)
		answer_arp(s, s->from_guest);
	else if (net_hdr_valid(h, s->from_guest, len))
		take_ip(s, s->from_guest, len);
	net_flush(&s->filter.side[NET_CARD_SIDE]);
	arm(s);
	return true;
}

static void service_free(struct net_filter *f)
{
	struct service *s = container_of(f, struct service, filter);

	timer_cancel(loop_clock(s->loop), &s->timer);
	for (unsigned i = 0; i < SERVICE_CONNS; i++)
		conn_drop(&s->conn[i]);
	free(s);
}

static const struct net_filter_ops ops = {.takes = takes, .room = room, .free = service_free};

int service_new(struct net_filter **out, const struct net_service *config, struct loop *l,
		struct err *e)
{
	struct service *s = calloc(1, sizeof *s);

	if (!s)
		return err_sys(e, ENOMEM, "a service in the network");
	net_filter_init(&s->filter, &ops);
	s->s = *config;
	s->loop = l;
	s->timer.fire = time_is_up;
	*out = &s->filter;
	return 0;
}
