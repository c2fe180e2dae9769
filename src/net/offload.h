/* offload: what a network card's driver leaves to the hardware, done in software: transport
 * checksums, and cutting a large TCP or UDP frame into ones that fit the MTU; and IPv4
 * fragmentation. Frames and headers are a guest's or a peer's: whatever they say, nothing
 * outside of the frame is touched, and the work is bounded (NET_SEGMENTS_MAX).
 *
 * Works on frames in one piece (net_gather makes one): a frame is copied out of guest memory
 * once, and only then looked at. */
#pragma once

#include <stddef.h>

#include "net/net.h"

#define NET_SEGMENTS_MAX 1024u

#define ETH_HEADER 14u
#define ETH_VLAN   18u /* with a tag */

/* Copies a frame into to[0..max). Its length, or 0 when it is longer than max. */
size_t net_gather(void *to, size_t max, const struct iovec *iov, unsigned n);

/* The Internet checksum's sum over bytes, added to sum: 16 bits, big-endian order kept, not
 * inverted (RFC 1071). */
uint16_t net_sum(const void *bytes, size_t len, uint16_t sum);
/* Sum of the pseudo-header of an IPv4 (20 bytes) or IPv6 (40 bytes) header; l4_len: bytes from
 * the transport header on. */
uint16_t net_pseudo_sum(const uint8_t *ip, bool v6, uint8_t proto, size_t l4_len);

/* Where a frame's headers are. */
struct net_layout {
	bool v6;
	uint8_t proto; /* IPPROTO_; 0: no transport header here (a later fragment, other protocol) */
	bool fragment; /* of an IP datagram */
	uint16_t l3;   /* offsets of the IP header, */
	uint16_t l4;   /* of the transport header, */
	uint16_t data; /* and of what follows it (TCP and UDP) */
	uint32_t end;  /* of the IP datagram; the frame may be longer (padding) */
};

/* false: no IP, or headers that are cut off or contradict the frame's length. */
bool net_layout(const uint8_t *frame, size_t len, struct net_layout *out);

/* Whether a header makes sense for a frame of len bytes that lies at frame (all of it). Where
 * not, the frame is to be dropped. */
bool net_hdr_valid(const struct net_hdr *h, const uint8_t *frame, size_t len);

/* What a receiver must be able to do to get this frame as it is (NET_CAP_). */
unsigned net_hdr_needs(const struct net_hdr *h);

/* Fills in the checksum that h leaves open, if any. h was found valid for this frame. */
void net_finish_csum(const struct net_hdr *h, uint8_t *frame, size_t len);

/* emit: called for each frame that comes of it; n pieces, which are only there during the
 * call. Returns false to stop (no room). */
typedef bool net_emit_fn(void *ctx, const struct net_hdr *h, const struct iovec *iov, unsigned n);

/* Emits to the peer of a port: ctx is a struct net_port. */
bool net_emit_to_peer(void *port, const struct net_hdr *h, const struct iovec *iov, unsigned n);

/* Cuts a valid frame with a gso_type into frames with all checksums done. false: emit said
 * so, or the frame is none that can be cut (dropped). Changes frame. */
bool net_segment(const struct net_hdr *h, uint8_t *frame, size_t len, net_emit_fn *emit, void *ctx);

/* Sends an IPv4 frame of a datagram longer than mtu as fragments. The same returns. */
bool net_fragment4(uint8_t *frame, size_t len, unsigned mtu, net_emit_fn *emit, void *ctx);

/* Does to a frame what caps lacks, and emits what comes of it. A frame that is not valid is
 * dropped. Returns what emit said for the first frame; after one that was taken, the rest of
 * a segmented frame may be lost. */
bool net_finish_offload(unsigned caps, const struct net_hdr *h, uint8_t *frame, size_t len,
			net_emit_fn *emit, void *ctx);
