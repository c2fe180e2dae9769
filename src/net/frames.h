/* frames: Ethernet frames made for tests, and a slow and simple look at what comes out. */
#pragma once

#include "net/offload.h"

struct frame_spec {
	bool v6, udp, vlan;
	unsigned data;     /* bytes of payload; pseudo-random, by seed */
	unsigned options;  /* bytes of TCP options, a multiple of 4 */
	uint8_t tcp_flags; /* 0: ACK */
	unsigned seed;
	uint16_t guest_port; /* the source's; 0: 1000 */
	bool partial;        /* checksum field holds the pseudo-header's sum only */
};

/* Makes one in to[NET_FRAME_MAX]; its length. The IP and transport checksums are right. */
size_t frame_make(uint8_t *to, const struct frame_spec *s);
/* The header with which a driver sends such a frame as one to be cut at size. */
struct net_hdr frame_gso(const struct frame_spec *s, const uint8_t *frame, size_t len,
			 uint16_t size);

/* The Internet checksum over the bytes, 16 bits at a time; 0xffff over what has a right one. */
uint16_t slow_sum(const uint8_t *p, size_t len, uint32_t sum);
/* Whether all lengths and checksums in it are right, as another program would see them. */
bool frame_is_right(const uint8_t *frame, size_t len);

/* A port that keeps what arrives. */
#define KEEP_MAX 1100
struct keeper {
	struct net_port port;
	unsigned frames, rooms, flushes, links, announces, caps_changes, starts;
	bool full, link_up;
	struct net_hdr hdr[KEEP_MAX];
	size_t len[KEEP_MAX];
	uint8_t *frame[KEEP_MAX];
};
void keeper_init(struct keeper *k, unsigned caps);
void keeper_clear(struct keeper *k);
bool keeper_emit(void *keeper, const struct net_hdr *h, const struct iovec *iov, unsigned n);
/* As if the keeper sent it; what the other end said. */
bool keeper_send(struct keeper *k, const struct net_hdr *h, void *frame, size_t len);
