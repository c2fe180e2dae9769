/* mmds_fuzz: a guest that says anything to the metadata service: raw frames, segments of a connection
 * whose numbers are right or not, requests whole and in pieces. Each record of the input is a kind, a
 * length, and so many bytes. */
#include <stdlib.h>
#include <string.h>

#include "firecracker/mmds.h"
#include "net/frames.h"
#include "net/service.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ADDRESS 0xa9fea9feu
#define HEAD    54u

static struct keeper card, far;
static uint32_t seq, ack;

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16), put16(p + 2, v & 0xffff);
}

static void send_segment(unsigned flags, const uint8_t *bytes, size_t len)
{
	uint8_t f[HEAD + 255] = {6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 8, 0, 0x45};

	put16(f + 16, (unsigned)(HEAD - 14 + len));
	f[23] = 6;
	put32(f + 26, 0xac100002u);
	put32(f + 30, ADDRESS);
	put16(f + 34, 1000 + (flags >> 6));
	put16(f + 36, MMDS_PORT);
	put32(f + 38, seq);
	put32(f + 42, ack);
	f[46] = 5 << 4;
	f[47] = flags & 0x1f;
	put16(f + 48, 4000);
	memcpy(f + HEAD, bytes, len);
	(void)!keeper_send(&card, NULL, f, HEAD + len);
	seq += (uint32_t)len + !!(flags & 2) + (flags & 1);
}

/* What came acknowledges the last of it. */
static void look(void)
{
	for (unsigned i = 0; i < card.frames; i++) {
		const uint8_t *f = card.frame[i];
		size_t len = card.len[i];

		if (len >= HEAD && f[12] == 8 && f[13] == 0)
			ack = ((uint32_t)f[38] << 24 | (uint32_t)f[39] << 16 |
			       (uint32_t)f[40] << 8 | f[41]) +
			      (uint32_t)(len - HEAD) + !!(f[47] & 3);
	}
	keeper_clear(&card);
	keeper_clear(&far);
}

static void play(const uint8_t *data, size_t size)
{
	while (size >= 2) {
		unsigned kind = data[0];
		size_t len = min_u64(data[1], size - 2);
		uint8_t *copy;

		if (kind & 0x20) {
			/* of just its size, so that the sanitizer sees each step outside */
			copy = malloc(len + !len);
			if (!copy)
				return;
			memcpy(copy, data + 2, len);
			if (len)
				(void)!keeper_send(&card, NULL, copy, len);
			free(copy);
		} else {
			send_segment(kind, data + 2, len);
		}
		look();
		data += 2 + len;
		size -= 2 + len;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct net_service s;
	struct net_filter *f;
	struct loop *l;
	struct mmds *m;
	json_t *doc;

	if (size < 2 || mmds_new(&m, 4096, NULL) < 0)
		return 0;
	doc = json_pack("{s:{s:s, s:[i, i], s:{s:s}}}", "latest", "a", "b", "list", 1, 2, "d",
			"e/f", "g");
	if (mmds_put(m, doc, NULL) < 0 || loop_new(&l, NULL) < 0) {
		json_decref(doc);
		mmds_free(m);
		return 0;
	}
	json_decref(doc);
	mmds_configure(m, data[0] & 1, data[0] & 2);
	mmds_service(m, &s);
	s.address = ADDRESS;
	s.port = MMDS_PORT;
	keeper_init(&card, NET_CAP_ALL);
	keeper_init(&far, NET_CAP_ALL);
	seq = ack = 0;
	if (service_new(&f, &s, l, NULL) == 0) {
		net_connect(&f->side[NET_CARD_SIDE], &card.port);
		net_connect(&f->side[NET_WIRE_SIDE], &far.port);
		send_segment(2, data, 0);
		look();
		send_segment(16, data, 0);
		play(data + 1, size - 1);
		f->ops->free(f);
	}
	look();
	loop_free(l);
	mmds_free(m);
	return 0;
}
