/* net: the network card (virtio 1.2, 5.1). It moves frames between the driver's queues and
 * one net_port, in both directions without looking into them more than it must: checksums and
 * segmentation that the driver leaves undone are passed on where the other end takes that,
 * and done here where it does not.
 *
 * Queues: receive and transmit of each pair, then control. */
#pragma once

#include "net/net.h"
#include "virtio/virtio.h"

#define VIRTIO_NET_PAIRS_MAX 16u

struct virtio_net_opts {
	uint8_t mac[6];
	uint16_t pairs; /* 0: 1 */
	uint16_t mtu;   /* told to the driver; 0: not */
};

WARN_UNUSED int virtio_net_new(struct virtio_device **out, const struct virtio_env *env,
			       const struct virtio_net_opts *o, struct err *e);
/* The card's end of the wire, to connect a backend to. It stays the card's. */
struct net_port *virtio_net_port(struct virtio_device *d);

/* Frames since the card was made, as the guest sees it. Any thread. */
struct virtio_net_counts {
	uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes;
};
void virtio_net_get_counts(struct virtio_device *d, struct virtio_net_counts *to);

extern const struct virtio_type virtio_net_type;
