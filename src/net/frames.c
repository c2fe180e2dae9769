#include "net/frames.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static unsigned get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

uint16_t slow_sum(const uint8_t *p, size_t len, uint32_t sum)
{
	for (size_t i = 0; i < len; i++) {
		sum += i & 1 ? p[i] : (unsigned)p[i] << 8;
		if (sum > 0xffff)
			sum -= 0xffff;
	}
	return (uint16_t)sum;
}

static uint16_t slow_pseudo(const uint8_t *ip, bool v6, unsigned proto, size_t l4_len)
{
	uint8_t tail[8] = {(uint8_t)(l4_len >> 24),
			   (uint8_t)(l4_len >> 16),
			   (uint8_t)(l4_len >> 8),
			   (uint8_t)l4_len,
			   0,
			   0,
			   0,
			   (uint8_t)proto};
	uint16_t sum = v6 ? slow_sum(ip + 8, 32, 0) : slow_sum(ip + 12, 8, 0);

	return slow_sum(tail, 8, sum);
}

static unsigned put_ip(uint8_t *ip, const struct frame_spec *s, unsigned l4_len)
{
	unsigned proto = s->udp ? IPPROTO_UDP : IPPROTO_TCP;

	if (s->v6) {
		ip[0] = 0x60;
		put16(ip + 4, l4_len);
		ip[6] = (uint8_t)proto;
		ip[7] = 64;
		ip[8] = 0xfe, ip[9] = 0xc0, ip[23] = 0x15;
		ip[24] = 0xfe, ip[25] = 0xc0, ip[39] = 2;
		return 40;
	}
	ip[0] = 0x45;
	put16(ip + 2, 20 + l4_len);
	put16(ip + 4, 0x1234);
	ip[8] = 64;
	ip[9] = (uint8_t)proto;
	memcpy(ip + 12, (const uint8_t[]){10, 0, 2, 15, 10, 0, 2, 2}, 8);
	put16(ip + 10, (uint16_t)~slow_sum(ip, 20, 0));
	return 20;
}

static unsigned put_l4(uint8_t *l4, const struct frame_spec *s)
{
	unsigned len = s->udp ? 8 : 20 + s->options;

	put16(l4, s->guest_port ? s->guest_port : 1000);
	put16(l4 + 2, 80);
	if (s->udp) {
		put16(l4 + 4, len + s->data);
		return len;
	}
	put16(l4 + 4, 0xffff); /* the sequence number wraps within a large frame */
	put16(l4 + 6, 0xff00);
	l4[12] = (uint8_t)(len / 4 << 4);
	l4[13] = s->tcp_flags ? s->tcp_flags : 0x10;
	put16(l4 + 14, 0x4000);
	memset(l4 + 20, 1, s->options);
	return len;
}

size_t frame_make(uint8_t *to, const struct frame_spec *s)
{
	unsigned l4_len = (s->udp ? 8 : 20 + s->options) + s->data, l3 = s->vlan ? 18 : 14;
	unsigned seed = s->seed, l4, data, field;
	uint16_t sum;

	memset(to, 0, l3 + 120);
	memcpy(to, (const uint8_t[]){0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56}, 12);
	if (s->vlan)
		put16(to + 12, 0x8100), put16(to + 14, 7);
	put16(to + l3 - 2, s->v6 ? 0x86dd : 0x0800);
	l4 = l3 + put_ip(to + l3, s, l4_len);
	data = l4 + put_l4(to + l4, s);
	for (unsigned i = 0; i < s->data; i++) {
		seed = seed * 1103515245u + 12345u;
		to[data + i] = (uint8_t)(seed >> 16);
	}
	field = l4 + (s->udp ? 6 : 16);
	sum = slow_pseudo(to + l3, s->v6, s->udp ? IPPROTO_UDP : IPPROTO_TCP, l4_len);
	if (!s->partial) {
		sum = (uint16_t)~slow_sum(to + l4, l4_len, sum);
		sum = sum ? sum : 0xffff;
	}
	put16(to + field, sum);
	return l4 + l4_len;
}

struct net_hdr frame_gso(const struct frame_spec *s, const uint8_t *frame, size_t len,
			 uint16_t size)
{
	struct net_layout l;
	bool ok = net_layout(frame, len, &l);
	uint8_t type = s->udp ? NET_GSO_UDP_L4 : s->v6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4;

	assert(ok);
	return (struct net_hdr){.flags = NET_HDR_NEEDS_CSUM,
				.gso_type = type,
				.hdr_len = l.data,
				.gso_size = size,
				.csum_start = l.l4,
				.csum_offset = s->udp ? 6 : 16};
}

bool frame_is_right(const uint8_t *frame, size_t len)
{
	unsigned l3 = get16(frame + 12) == 0x8100 ? 18 : 14, type = get16(frame + l3 - 2);
	const uint8_t *ip = frame + l3, *l4;
	size_t l4_len;
	bool v6 = type == 0x86dd;

	if (v6) {
		l4 = ip + 40;
		l4_len = get16(ip + 4);
	} else {
		l4 = ip + 20;
		l4_len = get16(ip + 2) - 20u;
		if (slow_sum(ip, 20, 0) != 0xffff)
			return false;
	}
	if ((size_t)(l4 - frame) + l4_len != len)
		return false;
	if ((v6 ? ip[6] : ip[9]) == IPPROTO_UDP && get16(l4 + 4) != l4_len)
		return false;
	return slow_sum(l4, l4_len, slow_pseudo(ip, v6, v6 ? ip[6] : ip[9], l4_len)) == 0xffff;
}

/* --- the port --- */

bool keeper_emit(void *ctx, const struct net_hdr *h, const struct iovec *iov, unsigned n)
{
	struct keeper *k = ctx;
	size_t len = 0;

	if (k->full || k->frames == KEEP_MAX)
		return false;
	for (unsigned i = 0; i < n; i++)
		len += iov[i].iov_len;
	k->hdr[k->frames] = *h;
	k->len[k->frames] = len;
	k->frame[k->frames] = malloc(len + 1);
	assert(k->frame[k->frames]);
	net_gather(k->frame[k->frames++], len, iov, n);
	return true;
}

static bool keeper_take(struct net_port *p, const struct net_hdr *h, const struct iovec *iov,
			unsigned n)
{
	return keeper_emit(container_of(p, struct keeper, port), h, iov, n);
}

static void keeper_flush(struct net_port *p)
{
	container_of(p, struct keeper, port)->flushes++;
}

static void keeper_room(struct net_port *p)
{
	container_of(p, struct keeper, port)->rooms++;
}

static void keeper_caps(struct net_port *p)
{
	container_of(p, struct keeper, port)->caps_changes++;
}

static void keeper_link(struct net_port *p, bool up)
{
	struct keeper *k = container_of(p, struct keeper, port);

	k->links++;
	k->link_up = up;
}

static void keeper_announce(struct net_port *p)
{
	container_of(p, struct keeper, port)->announces++;
}

static void keeper_start(struct net_port *p)
{
	container_of(p, struct keeper, port)->starts++;
}

static const struct net_port_ops ops = {keeper_take, keeper_flush,    keeper_room,  keeper_caps,
					keeper_link, keeper_announce, keeper_start, NULL};

void keeper_init(struct keeper *k, unsigned caps)
{
	memset(k, 0, sizeof *k);
	k->port.ops = &ops;
	k->port.caps = caps;
	k->link_up = true;
}

void keeper_clear(struct keeper *k)
{
	while (k->frames)
		free(k->frame[--k->frames]);
}

bool keeper_send(struct keeper *k, const struct net_hdr *h, void *frame, size_t len)
{
	static const struct net_hdr plain;
	struct iovec iov = {frame, len};

	return net_send(&k->port, h ? h : &plain, &iov, 1);
}
