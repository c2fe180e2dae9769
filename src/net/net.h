/* net: where a network card's wire leads. A struct net_port is one end of a wire; the card
 * (virtio-net) has one, and a backend (user-mode NAT, tap, switch) has the other. Filters
 * between them (capture, rate limits) are pairs of ports: each knows only its peer.
 *
 * Frames carry a header as virtio-net has it (virtio 1.2, 5.1.6), so that checksums and
 * segmentation can be left undone end to end: whoever cannot take that, says so in caps, and
 * the sender does it first (net/offload.h). Every receiver treats frames as hostile: they may lie
 * in guest memory and change while they are read, and their header has been checked by nobody.
 *
 * Threads: all ports of a wire belong to one I/O thread. Nothing here takes a lock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/loop.h"

#define NET_FRAME_MAX 65553u /* 64 KiB of IP and an Ethernet header with a VLAN tag */
#define NET_MTU       1500u

#define NET_CAP_CSUM 1u /* takes frames whose transport checksum is not done */
#define NET_CAP_TSO4 2u /* and TCP segments over IPv4 larger than the MTU */
#define NET_CAP_TSO6 4u
#define NET_CAP_ECN  8u  /* TSO with CWR set */
#define NET_CAP_USO  16u /* UDP datagrams joined */
#define NET_CAP_ALL  31u

#define NET_HDR_NEEDS_CSUM 1u /* flags */
#define NET_HDR_DATA_VALID 2u
#define NET_GSO_NONE       0u /* gso_type */
#define NET_GSO_TCPV4      1u
#define NET_GSO_TCPV6      4u
#define NET_GSO_UDP_L4     5u
#define NET_GSO_ECN        0x80u

struct net_hdr { /* struct virtio_net_hdr_v1 */
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};

struct net_port {
	const struct net_port_ops *ops;
	struct net_port *peer; /* frames from here go to peer->ops->take; NULL: a loose end */
	unsigned caps; /* NET_CAP_: what ops->take can take; may change with the guest's driver */
};

/* All but take and free may be NULL. */
struct net_port_ops {
	/* A frame arrives from the peer; it is the callee's only during the call. Returns true
	 * when taken (or dropped for good: a wire loses frames), false when there is no room:
	 * the sender keeps it, or stops reading its source, until the peer's ops->room. */
	bool (*take)(struct net_port *p, const struct net_hdr *h, const struct iovec *iov,
		     unsigned n);
	void (*flush)(struct net_port *p);         /* the peer has sent all that it had for now */
	void (*room)(struct net_port *p);          /* the peer has room again */
	void (*caps_changed)(struct net_port *p);  /* the peer's */
	void (*link)(struct net_port *p, bool up); /* the other end's link */
	/* The other end moved to another place of its network: the guest shall announce itself. */
	void (*announce)(struct net_port *p);
	void (*start)(struct net_port *p); /* the card's driver is ready: open what takes time */
	void (*free)(struct net_port *p);
};

/* Makes two ports each other's peer; either may be NULL: the other becomes a loose end. */
void net_connect(struct net_port *a, struct net_port *b);

/* What p's owner calls to reach the other end of its wire. */
bool net_send(struct net_port *p, const struct net_hdr *h, const struct iovec *iov, unsigned n);
void net_flush(struct net_port *p);
void net_room(struct net_port *p);
void net_link(struct net_port *p, bool up);
void net_announce(struct net_port *p);
void net_start(struct net_port *p);
void net_set_caps(struct net_port *p, unsigned caps); /* p's own have changed */
unsigned net_peer_caps(const struct net_port *p);

/* --- what a backend is made from; texts are copied --- */

enum net_kind { NET_USER, NET_TAP, NET_BRIDGE, NET_SWITCH };

struct net_forward { /* host -> guest, for NET_USER */
	bool udp;
	uint32_t host_addr; /* IPv4, host order; 0: any */
	uint16_t host_port, guest_port;
};

struct net_rate {       /* a token bucket */
	uint64_t rate;  /* a second; 0: no limit */
	uint64_t burst; /* what may pass at once; 0: what the rate gives in a moment */
	uint64_t once;  /* what passes before any of that is counted */
};
struct net_limits { /* of one direction */
	struct net_rate bytes, frames;
};

/* A server inside the wire (service.h). */
struct net_service {
	uint32_t address; /* IPv4, host order */
	uint16_t port;
	/* bytes[0..len) have come of a connection. 0: that is no whole request yet. Else the request's
	 * length, or -1: the connection ends behind this answer; *answer is malloc'ed, or NULL. On the
	 * I/O threads of all cards that have the service. */
	long (*serve)(void *ctx, char *bytes, size_t len, char **answer, size_t *answer_len);
	void *ctx;
};

#define NET_FORWARDS_MAX 64u

/* "[ADDR:]HOST:GUEST[/udp|/tcp]" */
WARN_UNUSED int net_forward_parse(const char *text, struct net_forward *out, struct err *e);

struct net_opts {
	enum net_kind kind;
	const char *name; /* tap interface (NULL: any), bridge, or switch */
	bool has_tap_fd;  /* NET_TAP: tap_fd is one already (net_tap_fd); it stays the caller's */
	int tap_fd;
	const struct net_forward *forward;
	unsigned forwards;
	bool restricted;      /* NET_USER: no way out of the guest but the forwards */
	const char *tftp;     /* NET_USER: a directory whose files guests get by TFTP; or NULL */
	const char *bootfile; /* NET_USER: which of them DHCP names for those that boot; or NULL */
	bool uplink;          /* NET_SWITCH: the switch also leads to user-mode NAT */
	uint16_t mtu;         /* the guest's; 0: NET_MTU */
	struct net_limits rx, tx;          /* as the guest sees it */
	const char *capture;               /* pcapng file; NULL: none */
	const struct net_service *service; /* NULL: none */
	const char *vm; /* the VM's name: for DHCP and the capture; may be NULL */
	/* Something went wrong while it runs, in words for people. I/O thread. May be NULL. */
	void (*warn)(void *ctx, const char *text);
	void *warn_ctx;
};

/* Makes the backend with the filters that o asks for and connects it to card. l: the I/O
 * thread's loop; it may not run yet. *out is freed before card, with net_backend_free. */
WARN_UNUSED int net_backend_new(struct net_port **out, struct net_port *card,
				const struct net_opts *o, struct loop *l, struct err *e);
void net_backend_free(struct net_port *p); /* accepts NULL */
/* Other limits from now on. I/O thread. */
void net_backend_set_limits(struct net_port *p, const struct net_limits *rx,
			    const struct net_limits *tx);

/* For a tap or a bridge: the tap's descriptor, set up for a backend of any process; or -errno. */
WARN_UNUSED int net_tap_fd(const struct net_opts *o, struct err *e);

/* A MAC address for card number n of the VM of that name: locally administered, the same each
 * time on this host for this user. */
void net_mac(uint8_t mac[6], const char *vm, unsigned n);
/* "52:54:00:12:34:56"; multicast and zero addresses are refused. */
WARN_UNUSED int net_mac_parse(const char *text, uint8_t mac[6], struct err *e);
