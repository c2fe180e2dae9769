/* rng: the entropy device (virtio 1.2, 5.4): one queue of buffers that are filled from the
 * host's getrandom. A guest gets RNG_BYTES_PER_S and no more, so that it cannot keep the shared
 * I/O thread busy. */
#pragma once

#include "virtio/virtio.h"

#define RNG_BYTES_PER_S 1000000u
#define RNG_BURST       1000000u

extern const struct virtio_type virtio_rng_type;

WARN_UNUSED int virtio_rng_new(struct virtio_device **out, const struct virtio_env *env,
			       struct err *e);
