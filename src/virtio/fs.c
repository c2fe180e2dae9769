#include "virtio/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "share/share.h"

enum { HIPRIO, REQUESTS, QUEUES };

/* What the thread does before the loop looks for something else (a stop). */
#define TURN 64

_Static_assert(VIRTQ_IOV_MAX <= SHARE_IOV_MAX, "a request in pieces that share cannot take");

struct virtio_fs {
	struct virtio_device vd;
	struct share *share;
	struct loop_call turn; /* goes on where the last turn ended */
	bool turn_posted;
	struct iovec iov[VIRTQ_IOV_MAX];
};

static struct virtio_fs *to_fs(struct virtio_device *d)
{
	return container_of(d, struct virtio_fs, vd);
}

/* At most *left chains. */
static void serve(struct virtio_fs *f, struct virtq *q, unsigned *left)
{
	struct virtq_chain c = {.iov = f->iov, .iov_max = VIRTQ_IOV_MAX};
	bool any = false;
	int r = 0;

	virtq_kicks_off(q);
	do {
		while (*left && (r = virtq_pop(q, &c)) > 0) {
			virtq_push(q, &c, share_serve(f->share, c.iov, c.out, c.iov + c.out, c.in));
			any = true;
			--*left;
		}
		/* The driver waits for these: now, not behind what it sends meanwhile. */
		if (any)
			virtq_publish(q);
		any = false;
	} while (r >= 0 && *left && virtq_kicks_on(q));
	if (r < 0)
		virtio_broken(&f->vd, "a bad chain of buffers");
}

static void work(struct virtio_fs *f)
{
	unsigned left = TURN;

	for (unsigned n = 0; n < QUEUES; n++)
		if (virtq_running(f->vd.queue[n]))
			serve(f, f->vd.queue[n], &left);
	if (!left && !f->turn_posted) {
		f->turn_posted = true;
		loop_post(f->vd.env.loop, &f->turn);
	}
}

static void next_turn(struct loop_call *call)
{
	struct virtio_fs *f = container_of(call, struct virtio_fs, turn);

	f->turn_posted = false;
	if (f->vd.started && !f->vd.stopping)
		work(f);
}

static void start(struct virtio_device *d)
{
	int r = share_begin(to_fs(d)->share);

	if (r < 0)
		log_warn("%s %u: extended attributes and owners of files may be wrong: %s",
			 d->type->name, d->instance, strerror(-r));
}

static void kick(struct virtio_device *d, unsigned n)
{
	work(to_fs(d));
}

static void reset(struct virtio_device *d)
{
	share_reset(to_fs(d)->share);
}

static void state(struct virtio_device *d, struct state *s)
{
	struct share_counts n;

	share_get_counts(to_fs(d)->share, &n);
	if (state_loading(s))
		share_reset(to_fs(d)->share);
	else if (n.mounted)
		state_fail(s, "the guest has a share mounted; it can be saved when that is "
			      "unmounted");
}

static void fs_free(struct virtio_device *d)
{
	struct virtio_fs *f;

	if (!d)
		return;
	f = to_fs(d);
	share_free(f->share);
	virtio_done(d);
	free(f);
}

const struct virtio_type virtio_fs_type = {
	.name = "virtio-fs",
	.id = VIRTIO_ID_FS,
	.pci_class = 0x018000, /* mass storage, other */
	.start = start,
	.kick = kick,
	.reset = reset,
	.state = state,
	.free = fs_free,
};

int virtio_fs_new(struct virtio_device **out, const struct virtio_env *env, struct share *s,
		  const char *tag, struct err *e)
{
	static const uint16_t size[QUEUES] = {128, 1024};
	struct virtio_fs *f = calloc(1, sizeof *f);
	size_t len = strlen(tag);
	int r;

	if (!f) {
		share_free(s);
		return err_set(e, ENOMEM, "virtio-fs");
	}
	f->share = s;
	f->turn.run = next_turn;
	r = virtio_init(&f->vd, &virtio_fs_type, env, 0, QUEUES, size, e);
	if (r == 0 && (!len || len > VIRTIO_FS_TAG_MAX))
		r = err_set(e, EINVAL, "share: the tag '%s' should have 1 to %d bytes", tag,
			    VIRTIO_FS_TAG_MAX);
	if (r < 0) {
		fs_free(&f->vd);
		return r;
	}
	memcpy(f->vd.config, tag, len); /* zeros behind it */
	store_le(f->vd.config + VIRTIO_FS_TAG_MAX, QUEUES - REQUESTS, 4);
	f->vd.config_len = VIRTIO_FS_TAG_MAX + 4;
	*out = &f->vd;
	return 0;
}
