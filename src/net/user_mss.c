/* user_mss: large TCP segments through libslirp, which knows no segmentation offload. It
 * sends segments as large as the other end announced; so it is told that the guest takes
 * nearly 64 KiB, and what it then sends goes to the guest as one frame to be cut at the
 * size that the guest did announce. That size is kept here, per connection. */
#include "net/user_priv.h"

#include <netinet/in.h>
#include <string.h>

#define TCP_SYN     0x02
#define OPT_END     0
#define OPT_NOP     1
#define OPT_MSS     2
#define MSS_LARGEST 65495 /* 64 KiB less the headers of IPv4 */
#define MSS_ANY     536   /* what every host takes (RFC 9293, 3.7.1) */

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* The key of frame's connection; the guest is its source or its destination. */
static struct mss_slot key_of(const uint8_t *frame, const struct net_layout *l, bool from_guest)
{
	const uint8_t *ip = frame + l->l3, *tcp = frame + l->l4;
	unsigned src = l->v6 ? 8 + 12 : 12, dst = l->v6 ? 24 + 12 : 16;
	struct mss_slot k = {0};

	k.guest = (uint32_t)load_le(ip + (from_guest ? src : dst), 4);
	k.remote = (uint32_t)load_le(ip + (from_guest ? dst : src), 4);
	k.guest_port = get16(tcp + (from_guest ? 0 : 2));
	k.remote_port = get16(tcp + (from_guest ? 2 : 0));
	return k;
}

static unsigned place_of(const struct mss_slot *k)
{
	uint32_t h = k->guest ^ k->remote * 0x9e3779b1u;

	h ^= ((uint32_t)k->guest_port << 16 | k->remote_port) * 0x85ebca6bu;
	return (h ^ h >> 15) % MSS_SLOTS;
}

/* The value of the MSS option, or NULL. */
static uint8_t *find_mss(uint8_t *frame, const struct net_layout *l)
{
	unsigned at = l->l4 + 20u;

	while (at + 1 < l->data && frame[at] != OPT_END) {
		if (frame[at] == OPT_NOP) {
			at++;
			continue;
		}
		if (frame[at + 1] < 2 || at + frame[at + 1] > l->data)
			return NULL;
		if (frame[at] == OPT_MSS && frame[at + 1] == 4)
			return frame + at + 2;
		at += frame[at + 1];
	}
	return NULL;
}

/* The checksum after a 16-bit word at an even place changed (RFC 1624). */
static void adjust(uint8_t *sum, uint16_t from, uint16_t to)
{
	uint32_t s = (uint16_t)~get16(sum) + (uint32_t)(uint16_t)~from + to;

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	put16(sum, (uint16_t)~s);
}

static uint16_t swapped(uint16_t v)
{
	return (uint16_t)(v << 8 | v >> 8);
}

void mss_raise(struct mss_table *t, uint8_t *frame, const struct net_layout *l, bool undone)
{
	uint8_t *tcp = frame + l->l4, *option;
	struct mss_slot key;
	uint16_t was;

	if (l->proto != IPPROTO_TCP || l->fragment || !(tcp[13] & TCP_SYN))
		return;
	option = find_mss(frame, l);
	if (!option)
		return;
	was = get16(option);
	key = key_of(frame, l, true);
	key.mss = (uint16_t)max_u64(was, 64);
	t->slot[place_of(&key)] = key;
	put16(option, MSS_LARGEST);
	if (undone)
		return;
	/* At an odd place the bytes stand the other way round in the sum's words. */
	if ((option - tcp) & 1)
		adjust(tcp + 16, swapped(was), swapped(MSS_LARGEST));
	else
		adjust(tcp + 16, was, MSS_LARGEST);
}

uint16_t mss_of(const struct mss_table *t, const uint8_t *frame, const struct net_layout *l)
{
	struct mss_slot key = key_of(frame, l, false);
	const struct mss_slot *s = &t->slot[place_of(&key)];

	if (s->guest == key.guest && s->remote == key.remote && s->guest_port == key.guest_port &&
	    s->remote_port == key.remote_port && s->mss)
		return s->mss;
	return MSS_ANY;
}
