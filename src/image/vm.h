/* vm: what a VM keeps between its runs: a thin disk over an image, and by which identity its
 * guest knows itself. It lives in the store, under vms/NAME/. */
#pragma once

#include "block/block.h"
#include "image/seed.h"
#include "image/store.h"

struct vm_place {
	char disk[PATH_MAX / 2]; /* a qcow2 file over the image's */
	char instance_id[80];
	bool made;               /* just now */
	char work[PATH_MAX / 2]; /* of a throw-away VM: its directory; else empty */
	int work_lock;
};

struct vm_wish {
	const char *name; /* a VM's */
	const struct store_image *image;
	bool fresh;     /* from the image again, whatever is there */
	bool ephemeral; /* gone after vm_done */
};

/* Finds the VM's disk, or makes it. The context is idle. An existing VM of another image goes
 * on with that one, unless fresh is wished; the error of a VM whose image is gone says so. */
WARN_UNUSED int vm_open(struct vm_place *out, const struct store *st, struct block_ctx *c,
			const struct vm_wish *w, struct err *e);
/* An ephemeral VM over any disk, without a store's image. */
WARN_UNUSED int vm_open_over(struct vm_place *out, const struct store *st, struct block_ctx *c,
			     const char *disk, const char *format, struct err *e);
void vm_done(struct vm_place *v);

/* The instance id for what the seed says: a new one whenever that changes, so that cloud-init
 * applies it. Keeps what it needs for that in the VM's directory. */
WARN_UNUSED int vm_identify(struct vm_place *v, const struct store *st, const char *name,
			    const struct seed_opts *o, struct err *e);
