/* fs: the file system device (virtio 1.2, 5.11): a folder of the host, which the guest mounts by
 * its tag. Queue 0 takes what must not wait (forgotten files), queue 1 all other requests; what
 * they say is FUSE, which share/share.h serves, on this device's own I/O thread.
 *
 * A driver's reset, or an unmount, forgets all that the guest had open. A guest that has a share
 * mounted cannot be saved: what it knows of files are descriptors of this process. */
#pragma once

#include "virtio/virtio.h"

#define VIRTIO_FS_TAG_MAX 36 /* bytes */

struct share;

extern const struct virtio_type virtio_fs_type;

/* Takes s over, also on failure. tag: 1 to VIRTIO_FS_TAG_MAX bytes. */
WARN_UNUSED int virtio_fs_new(struct virtio_device **out, const struct virtio_env *env,
			      struct share *s, const char *tag, struct err *e);
