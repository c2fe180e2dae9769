/* offload: see the header. Layout of the work:
 *
 *   net_layout     finds the headers, with every length checked against the frame
 *   net_sum        the checksum's inner loop: 32 bytes a turn in an add-with-carry chain
 *   net_segment    headers are copied per segment and patched; the data is not copied
 *
 * A driver's partial checksum (NEEDS_CSUM) has the pseudo-header's sum in the field already,
 * so finishing is one sum from csum_start to the end. For segments it is made anew, as the
 * length that went into it is the whole frame's. */
#include "net/offload.h"

#include <immintrin.h>
#include <netinet/in.h>
#include <string.h>

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define HEADERS_MAX    (ETH_VLAN + 60 + 60)
#define TCP_FIN        0x01
#define TCP_PSH        0x08
#define TCP_CWR        0x80
#define IP_MF          0x2000
#define IP_DF          0x4000
#define CSUM_OF_TCP    16 /* offsets of the checksum field */
#define CSUM_OF_UDP    6

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)(v >> 16));
	put16(p + 2, (uint16_t)v);
}

size_t net_gather(void *to, size_t max, const struct iovec *iov, unsigned n)
{
	size_t len = 0;

	for (unsigned i = 0; i < n; i++) {
		if (iov[i].iov_len > max - len)
			return 0;
		memcpy((uint8_t *)to + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	return len;
}

/* --- checksums --- */

static uint16_t fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Ones' complement addition does not mind the byte order, so words are added as they lie in
 * memory, and the result is swapped once. */
static uint64_t sum_words(const uint8_t *p, size_t blocks, uint64_t start)
{
	unsigned long long sum = start;

	for (; blocks; blocks--, p += 32) {
		unsigned long long w[4];
		unsigned char carry;

		memcpy(w, p, sizeof w);
		carry = _addcarry_u64(0, sum, w[0], &sum);
		carry = _addcarry_u64(carry, sum, w[1], &sum);
		carry = _addcarry_u64(carry, sum, w[2], &sum);
		carry = _addcarry_u64(carry, sum, w[3], &sum);
		_addcarry_u64(carry, sum, 0, &sum);
	}
	return sum;
}

uint16_t net_sum(const void *bytes, size_t len, uint16_t start)
{
	const uint8_t *p = bytes;
	uint64_t rest = 0, sum = sum_words(p, len / 32, 0);

	sum = fold(sum);
	for (p += len & ~(size_t)31, len &= 31; len >= 4; p += 4, len -= 4)
		sum += load_le(p, 4);
	memcpy(&rest, p, len);
	sum += rest;
	return fold((uint64_t)__builtin_bswap16(fold(sum)) + start);
}

uint16_t net_pseudo_sum(const uint8_t *ip, bool v6, uint8_t proto, size_t l4_len)
{
	uint64_t sum = proto + (l4_len & 0xffff) + (l4_len >> 16);

	return v6 ? net_sum(ip + 8, 32, fold(sum)) : net_sum(ip + 12, 8, fold(sum));
}

/* --- where things are --- */

static bool layout_v4(const uint8_t *frame, size_t len, struct net_layout *l)
{
	const uint8_t *ip = frame + l->l3;
	unsigned header, total, frag;

	if (len - l->l3 < 20 || ip[0] >> 4 != 4)
		return false;
	header = (ip[0] & 15u) * 4;
	total = get16(ip + 2);
	if (header < 20 || total < header || total > len - l->l3)
		return false;
	frag = get16(ip + 6);
	l->fragment = frag & 0x3fff;
	l->l4 = (uint16_t)(l->l3 + header);
	l->end = l->l3 + total;
	l->proto = frag & 0x1fff ? 0 : ip[9];
	return true;
}

/* Extension headers are not walked: what stands behind them has no transport header here. */
static bool layout_v6(const uint8_t *frame, size_t len, struct net_layout *l)
{
	const uint8_t *ip = frame + l->l3;
	unsigned payload;

	if (len - l->l3 < 40 || ip[0] >> 4 != 6)
		return false;
	payload = get16(ip + 4);
	if (payload > len - l->l3 - 40)
		return false;
	l->v6 = true;
	l->l4 = (uint16_t)(l->l3 + 40);
	l->end = l->l4 + payload;
	l->proto = ip[6];
	return true;
}

/* Sets data. A transport header that is not whole is none. */
static void layout_l4(const uint8_t *frame, struct net_layout *l)
{
	unsigned have = l->end - l->l4, header = 0;

	if (l->proto == IPPROTO_TCP && have >= 20)
		header = (frame[l->l4 + 12] >> 4) * 4u;
	else if (l->proto == IPPROTO_UDP)
		header = 8;
	if (header > have || (l->proto == IPPROTO_TCP && header < 20))
		l->proto = 0;
	l->data = (uint16_t)(l->l4 + (l->proto ? header : 0));
}

bool net_layout(const uint8_t *frame, size_t len, struct net_layout *out)
{
	struct net_layout l = {.l3 = ETH_HEADER};
	unsigned type;
	bool ok;

	if (len < ETH_HEADER || len > NET_FRAME_MAX)
		return false;
	type = get16(frame + 12);
	if (type == ETHERTYPE_VLAN && len >= ETH_VLAN) {
		type = get16(frame + 16);
		l.l3 = ETH_VLAN;
	}
	if (type == ETHERTYPE_IPV4)
		ok = layout_v4(frame, len, &l);
	else
		ok = type == ETHERTYPE_IPV6 && layout_v6(frame, len, &l);
	if (!ok)
		return false;
	layout_l4(frame, &l);
	*out = l;
	return true;
}

/* --- headers of frames --- */

static bool gso_fits(const struct net_hdr *h, const struct net_layout *l)
{
	switch (h->gso_type & ~NET_GSO_ECN) {
	case NET_GSO_TCPV4: return l->proto == IPPROTO_TCP && !l->v6 && !l->fragment;
	case NET_GSO_TCPV6: return l->proto == IPPROTO_TCP && l->v6;
	case NET_GSO_UDP_L4:
		return l->proto == IPPROTO_UDP && !l->fragment && h->gso_type == NET_GSO_UDP_L4;
	default: return false;
	}
}

static bool gso_valid(const struct net_hdr *h, const uint8_t *frame, size_t len)
{
	struct net_layout l;
	unsigned csum = h->gso_type == NET_GSO_UDP_L4 ? CSUM_OF_UDP : CSUM_OF_TCP;

	return h->flags & NET_HDR_NEEDS_CSUM && h->gso_size && net_layout(frame, len, &l) &&
	       gso_fits(h, &l) && h->csum_start == l.l4 && h->csum_offset == csum &&
	       l.end - l.data <= (uint32_t)h->gso_size * NET_SEGMENTS_MAX;
}

bool net_hdr_valid(const struct net_hdr *h, const uint8_t *frame, size_t len)
{
	if (len < ETH_HEADER || len > NET_FRAME_MAX)
		return false;
	if (h->flags & NET_HDR_NEEDS_CSUM &&
	    (h->csum_start < ETH_HEADER || (size_t)h->csum_start + h->csum_offset + 2 > len))
		return false;
	return !h->gso_type || gso_valid(h, frame, len);
}

unsigned net_hdr_needs(const struct net_hdr *h)
{
	unsigned needs = h->flags & NET_HDR_NEEDS_CSUM ? NET_CAP_CSUM : 0;

	switch (h->gso_type & ~NET_GSO_ECN) {
	case NET_GSO_TCPV4: needs |= NET_CAP_TSO4; break;
	case NET_GSO_TCPV6: needs |= NET_CAP_TSO6; break;
	case NET_GSO_UDP_L4: needs |= NET_CAP_USO; break;
	default: break;
	}
	return h->gso_type & NET_GSO_ECN ? needs | NET_CAP_ECN : needs;
}

void net_finish_csum(const struct net_hdr *h, uint8_t *frame, size_t len)
{
	struct net_layout l;
	uint16_t sum;

	if (!(h->flags & NET_HDR_NEEDS_CSUM))
		return;
	/* Bytes behind the datagram are padding and no part of the sum. */
	if (net_layout(frame, len, &l) && l.end >= h->csum_start + h->csum_offset + 2u)
		len = l.end;
	sum = (uint16_t)~net_sum(frame + h->csum_start, len - h->csum_start, 0);
	/* For UDP, 0 means that there is none; the other zero of ones' complement is the same. */
	put16(frame + h->csum_start + h->csum_offset, sum ? sum : 0xffff);
}

/* --- cutting --- */

static void finish_ip(uint8_t *ip, const struct net_layout *l, unsigned len, unsigned nth)
{
	if (l->v6) {
		put16(ip + 4, (uint16_t)(len - 40));
		return;
	}
	put16(ip + 2, (uint16_t)len);
	put16(ip + 4, (uint16_t)(get16(ip + 4) + nth));
	put16(ip + 10, 0);
	put16(ip + 10, (uint16_t)~net_sum(ip, l->l4 - l->l3, 0));
}

/* Of one segment's headers, a copy of the whole frame's: at bytes of its data go before. */
static void finish_tcp(uint8_t *tcp, uint32_t at, bool last)
{
	put32(tcp + 4, get32(tcp + 4) + at);
	if (!last)
		tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	if (at)
		tcp[13] &= (uint8_t)~TCP_CWR;
}

static void finish_l4(uint8_t *head, const struct net_layout *l, const uint8_t *data, unsigned len)
{
	unsigned header = l->data - l->l4;
	uint8_t *l4 = head + l->l4, *field = l4 + (l->proto == IPPROTO_TCP ? 16 : 6);
	uint16_t sum = net_pseudo_sum(head + l->l3, l->v6, l->proto, header + len);

	if (l->proto == IPPROTO_UDP)
		put16(l4 + 4, (uint16_t)(header + len));
	put16(field, 0);
	sum = (uint16_t)~net_sum(data, len, net_sum(l4, header, sum));
	put16(field, sum ? sum : 0xffff);
}

bool net_segment(const struct net_hdr *h, uint8_t *frame, size_t len, net_emit_fn *emit, void *ctx)
{
	const struct net_hdr plain = {.flags = NET_HDR_DATA_VALID};
	uint8_t head[HEADERS_MAX];
	struct net_layout l;
	uint32_t at = 0, size;

	if (!gso_valid(h, frame, len) || !net_layout(frame, len, &l))
		return false;
	size = l.end - l.data;
	for (unsigned nth = 0; !at || at < size; nth++) {
		unsigned part = (unsigned)min_u64(h->gso_size, size - at);
		struct iovec iov[] = {{head, l.data}, {frame + l.data + at, part}};

		memcpy(head, frame, l.data);
		finish_ip(head + l.l3, &l, l.data - l.l3 + part, nth);
		if (l.proto == IPPROTO_TCP)
			finish_tcp(head + l.l4, at, at + part == size);
		finish_l4(head, &l, frame + l.data + at, part);
		if (!emit(ctx, &plain, iov, part ? 2 : 1))
			return false;
		if (!part)
			break;
		at += part;
	}
	return true;
}

bool net_fragment4(uint8_t *frame, size_t len, unsigned mtu, net_emit_fn *emit, void *ctx)
{
	const struct net_hdr plain = {0};
	struct net_layout l;
	unsigned header, step, size, field;

	if (!net_layout(frame, len, &l) || l.v6)
		return false;
	header = l.l4 - l.l3;
	field = get16(frame + l.l3 + 6);
	if (mtu < header + 8 || field & IP_DF)
		return false;
	step = (mtu - header) & ~7u;
	size = l.end - l.l4;
	for (unsigned at = 0; at < size; at += step) {
		unsigned part = (unsigned)min_u64(step, size - at);
		struct iovec iov[] = {{frame, l.l4}, {frame + l.l4 + at, part}};
		bool more = field & IP_MF || at + part < size;

		put16(frame + l.l3 + 6,
		      (uint16_t)(((field & 0x1fff) + at / 8) | (more ? IP_MF : 0)));
		finish_ip(frame + l.l3, &l, header + part, 0);
		if (!emit(ctx, &plain, iov, 2))
			return false;
	}
	return true;
}

bool net_emit_to_peer(void *port, const struct net_hdr *h, const struct iovec *iov, unsigned n)
{
	return net_send(port, h, iov, n);
}

/* --- all of it --- */

/* Remembers what was said about the first frame. */
struct first {
	net_emit_fn *emit;
	void *ctx;
	bool any, taken;
};

static bool emit_first(void *ctx, const struct net_hdr *h, const struct iovec *iov, unsigned n)
{
	struct first *f = ctx;
	bool taken = f->emit(f->ctx, h, iov, n);

	if (!f->any)
		f->taken = taken;
	f->any = true;
	return taken;
}

bool net_finish_offload(unsigned caps, const struct net_hdr *h, uint8_t *frame, size_t len,
			net_emit_fn *emit, void *ctx)
{
	struct first first = {emit, ctx, .taken = true};
	struct net_hdr done = *h;
	struct iovec iov = {frame, len};
	unsigned lacks = net_hdr_needs(h) & ~caps;

	if (!net_hdr_valid(h, frame, len))
		return true;
	if (lacks & ~NET_CAP_CSUM) {
		/* Nothing emitted: dropped. */
		(void)net_segment(h, frame, len, emit_first, &first);
		return first.taken;
	}
	if (lacks) {
		net_finish_csum(h, frame, len);
		done = (struct net_hdr){.flags = NET_HDR_DATA_VALID};
	}
	return emit(ctx, &done, &iov, 1);
}
