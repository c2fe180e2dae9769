/* balloon: the memory balloon (virtio 1.2, 5.5), by which memory that the guest does not need
 * goes back to the host: pages that its driver puts into the balloon, as many as the target
 * says, and pages that it reports as free, which it may use again at any time. Both read as
 * zeros when touched again.
 *
 * The driver also tells how it stands with its memory (statistics), each time it is asked. */
#pragma once

#include "virtio/virtio.h"

/* What a driver may tell (5.5.6.4.1); others are ignored. */
enum balloon_stat {
	BALLOON_SWAP_IN, /* bytes, since the guest booted */
	BALLOON_SWAP_OUT,
	BALLOON_MAJOR_FAULTS, /* counts, likewise */
	BALLOON_MINOR_FAULTS,
	BALLOON_FREE, /* bytes now */
	BALLOON_TOTAL,
	BALLOON_AVAILABLE, /* without swapping */
	BALLOON_CACHES,
	BALLOON_STATS
};

struct balloon_report {
	uint64_t target, actual; /* bytes in the balloon: wished, and as the driver says */
	uint64_t reported;       /* bytes of free pages that went back to the host, ever */
	bool have[BALLOON_STATS];
	uint64_t stat[BALLOON_STATS];
	uint64_t age_ns; /* of the statistics, in guest time */
};

/* inflate_bytes: what the guest is asked to do without from the start. */
WARN_UNUSED int virtio_balloon_new(struct virtio_device **out, const struct virtio_env *env,
				   uint64_t inflate_bytes, struct err *e);

/* Any thread. Rounded down to 4 KiB. */
void virtio_balloon_set_target(struct virtio_device *d, uint64_t inflate_bytes);
/* What is known now; any thread. */
void virtio_balloon_report(struct virtio_device *d, struct balloon_report *to);
/* I/O thread: asks the driver for new statistics, which come when it gets to it. */
void virtio_balloon_ask(struct virtio_device *d);

extern const struct virtio_type virtio_balloon_type;
