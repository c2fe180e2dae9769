/* net: where a network card's wire leads. A struct net_port is one end of a wire; the card
 * (virtio-net) has one, and a backend (user-mode NAT, tap, switch) has the other. Filters
 * between them (capture, rate limits) are ports too: each knows only its peer.
 *
 * Frames carry a header as virtio-net has it (virtio 1.2, 5.1.6), so that checksums and
 * segmentation can be left undone end to end: whoever cannot take that, says so in caps, and
 * the sender calls net_finish_offload first.
 *
 * Threads: all ports of a wire belong to one I/O thread. Nothing here takes a lock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/loop.h"

#define NET_FRAME_MAX 65550u /* 64 KiB of IP and an Ethernet header with a VLAN tag */
#define NET_CAP_CSUM  1u     /* takes frames whose transport checksum is not done */
#define NET_CAP_TSO4  2u     /* and TCP segments over IPv4 larger than the MTU */
#define NET_CAP_TSO6  4u
#define NET_CAP_USO   8u

struct net_hdr { /* struct virtio_net_hdr_v1 */
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};

struct net_port {
	const struct net_port_ops *ops;
	struct net_port *peer; /* frames from here go to peer->ops->take */
	unsigned caps; /* NET_CAP_: what ops->take can take; may change with the guest's driver */
};

struct net_port_ops {
	/* A frame arrives from the peer; it is the callee's only during the call. Returns true
	 * when taken (or dropped for good: a wire loses frames), false when there is no room:
	 * the sender keeps it, or stops reading its source, until the peer's ops->room. */
	bool (*take)(struct net_port *p, const struct net_hdr *h, const struct iovec *iov,
		     unsigned n);
	void (*room)(struct net_port *p);          /* the peer has room again */
	void (*caps_changed)(struct net_port *p);  /* the peer's; may be NULL */
	void (*link)(struct net_port *p, bool up); /* the other end's link; may be NULL */
	void (*free)(struct net_port *p);
};

/* --- what a backend is made from; texts are copied --- */

enum net_kind { NET_USER, NET_TAP, NET_BRIDGE, NET_SWITCH };

struct net_forward { /* host -> guest, for NET_USER */
	bool udp;
	uint32_t host_addr; /* IPv4, host order; 0: any */
	uint16_t host_port, guest_port;
};

struct net_opts {
	enum net_kind kind;
	const char *name; /* tap interface (NULL: any), bridge, or switch */
	const struct net_forward *forward;
	unsigned forwards;
	bool restricted;         /* NET_USER: no way out of the guest but the forwards */
	bool uplink;             /* NET_SWITCH: the switch also leads to user-mode NAT */
	uint16_t queues;         /* pairs; 0: 1 */
	uint64_t rx_bps, tx_bps; /* bytes a second; 0: no limit */
	const char *capture;     /* pcapng file; NULL: none */
};

/* Makes the backend with the filters that o asks for and connects it to card. l: the I/O
 * thread's loop; it may not run yet. *out is freed before card. */
WARN_UNUSED int net_backend_new(struct net_port **out, struct net_port *card,
				const struct net_opts *o, struct loop *l, struct err *e);

void net_connect(struct net_port *a, struct net_port *b);
