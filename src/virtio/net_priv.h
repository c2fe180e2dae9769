/* net_priv: what the files of the network card share.
 *
 *   net.c         the device: features, life, state, transmit
 *   net_rx.c      receive
 *   net_filter.c  which frames the driver wants
 *   net_ctrl.c    the control queue
 *
 * Threads: the I/O thread. */
#pragma once

#include "net/offload.h"
#include "virtio/net.h"

#define F_CSUM                BIT(0)
#define F_GUEST_CSUM          BIT(1)
#define F_CTRL_GUEST_OFFLOADS BIT(2)
#define F_MTU                 BIT(3)
#define F_MAC                 BIT(5)
#define F_GUEST_TSO4          BIT(7)
#define F_GUEST_TSO6          BIT(8)
#define F_GUEST_ECN           BIT(9)
#define F_HOST_TSO4           BIT(11)
#define F_HOST_TSO6           BIT(12)
#define F_HOST_ECN            BIT(13)
#define F_MRG_RXBUF           BIT(15)
#define F_STATUS              BIT(16)
#define F_CTRL_VQ             BIT(17)
#define F_CTRL_RX             BIT(18)
#define F_CTRL_VLAN           BIT(19)
#define F_CTRL_RX_EXTRA       BIT(20)
#define F_GUEST_ANNOUNCE      BIT(21)
#define F_MQ                  BIT(22)
#define F_CTRL_MAC_ADDR       BIT(23)
#define F_HOST_USO            BIT(56)

/* What the driver can switch on and off while it runs (5.1.6.5.6.1). */
#define GUEST_OFFLOADS (F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN)

#define CONFIG_MAC    0 /* offsets in the configuration space */
#define CONFIG_STATUS 6
#define CONFIG_PAIRS  8
#define CONFIG_MTU    10
#define CONFIG_LEN    12

#define STATUS_LINK_UP  1
#define STATUS_ANNOUNCE 2

#define MAC_TABLE_MAX 64u
#define VLANS         4096u
#define RX_CHAINS_MAX 256u /* buffers that one frame may take */
#define STEER_SLOTS   256u

struct net_filter_table { /* 5.1.6.5.1 to 5.1.6.5.3 */
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	bool too_many_uni, too_many_multi; /* the driver had more than fit */
	uint8_t count, first_multi;        /* of mac[] */
	uint8_t mac[MAC_TABLE_MAX][6];
	uint8_t vlan[VLANS / 8];
};

/* The receive side of a pair. Buffers that were popped for a frame which needs more than there
 * are yet stay here: only when a queue is empty does the driver's kick tell of the next. */
struct net_rx {
	struct virtq_chain chain[RX_CHAINS_MAX];
	struct iovec iov[2 * VIRTQ_IOV_MAX];
	unsigned count, pieces; /* in use of the two above */
	size_t room;            /* bytes that the chains hold */
	bool dirty;             /* pushed and not published */
	bool waits;             /* the wire waits for buffers */
};

struct virtio_net {
	struct virtio_device vd;
	struct net_port port;
	uint16_t pairs, active;     /* pairs: there are; active: the driver uses */
	uint16_t mtu;               /* 0: not told */
	uint8_t mac[6], own_mac[6]; /* the driver's choice, and what it has after a reset */
	bool link_up, announce;
	bool begun; /* the driver has set what follows, since the last reset */
	struct net_filter_table filter;
	uint64_t offloads; /* GUEST_OFFLOADS that the driver has on */

	struct net_rx *rx;          /* [pairs] */
	uint8_t steer[STEER_SLOTS]; /* by hash of the flow: the pair it was last sent from */
	bool tx_blocked;            /* the wire had no room */
	struct loop_call again;     /* goes on with queues after others had their turn */
	bool again_posted, stopping;

	/* Written by the I/O thread, read by any. */
	struct net_count {
		_Atomic uint64_t frames, bytes;
	} rx_count, tx_count;

	struct iovec tx_iov[VIRTQ_IOV_MAX];
	uint8_t scratch[NET_FRAME_MAX];
};

static inline struct virtq *net_rxq(struct virtio_net *c, unsigned pair)
{
	return c->vd.queue[pair * 2];
}

static inline struct virtq *net_txq(struct virtio_net *c, unsigned pair)
{
	return c->vd.queue[pair * 2 + 1];
}

/* net.c */
void net_update_caps(struct virtio_net *c);
void net_update_status(struct virtio_net *c);

void net_count(struct net_count *c, size_t len);

/* net_rx.c: the port's side */
bool net_rx_take(struct net_port *p, const struct net_hdr *h, const struct iovec *iov, unsigned n);
void net_rx_flush(struct net_port *p);
void net_rx_kick(struct virtio_net *c, unsigned pair);
void net_rx_stop(struct virtio_net *c); /* gives back what it holds of the queues */
/* Notes that a flow's frames come from this pair: answers go there (5.1.6.5.5). */
void net_rx_steer(struct virtio_net *c, unsigned pair, const uint8_t *head, size_t len);

/* net_filter.c */
void net_filter_reset(struct net_filter_table *f);
/* head: the frame's first len bytes, at least an Ethernet header. */
bool net_filter_wants(const struct virtio_net *c, const uint8_t *head, size_t len);

/* A queue has more than its share of one kick: go on after others. */
void net_again(struct virtio_net *c);

/* net_ctrl.c */
void net_ctrl_kick(struct virtio_net *c, struct virtq *q);
