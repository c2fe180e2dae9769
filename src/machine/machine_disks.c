/* The images behind the disks. Each has a block context; a virtio disk has its own I/O thread,
 * ATA disks share that of their controller.
 *
 * When a disk's requests wait for space on the host, its I/O thread says so to the loop thread,
 * which pauses the machine until no disk waits any more. The I/O threads go on trying. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ata/ahci.h"
#include "base/log.h"
#include "virtio/blk.h"

#define DEFAULT_QUEUES_MAX 4u
#define TELL_AGAIN_NS      UINT64_C(60000000000)

struct machine_image {
	struct machine *m;
	char name[MACHINE_ID_LEN]; /* as Linux calls it: "vda", "sda" */
	char *file;
	unsigned slot; /* of a virtio disk; 0: an ATA one */
	uint64_t size;
	bool read_only;
	bool leaving; /* the loop thread keeps off its block */
	struct block_ctx *ctx;
	struct block *block;
	struct block_opts opts; /* by which it was opened; its texts are gone */

	atomic_bool full;
	struct loop_call call; /* to the machine's loop, while posted: full changed */
	atomic_bool posted;
	bool known_full; /* loop thread's own */

	bool failed_before; /* I/O thread's own, and the time when that was told */
	uint64_t told_ns;
};

/* --- no space: on the loop thread --- */

static void look_at_space(struct loop_call *c)
{
	struct machine_image *d = container_of(c, struct machine_image, call);
	struct machine *m = d->m;
	bool full;

	atomic_store(&d->posted, false);
	full = atomic_load(&d->full);
	if (full == d->known_full)
		return;
	d->known_full = full;
	if (full) {
		log_warn("%s: disk %s: the host has no space left for '%s'; paused. "
			 "Make space, and it goes on by itself",
			 m->name, d->name, d->file);
		m->full_disks++;
		machine_pause(m, MACHINE_PAUSE_NO_SPACE);
		return;
	}
	log_warn("%s: disk %s: there was space again, nothing is lost", m->name, d->name);
	if (--m->full_disks == 0)
		machine_resume(m, MACHINE_PAUSE_NO_SPACE);
}

/* --- from the device: on the disk's I/O thread --- */

static void space_changed(void *ctx, bool full)
{
	struct machine_image *d = ctx;

	atomic_store(&d->full, full);
	if (!atomic_exchange(&d->posted, true))
		loop_post(d->m->loop, &d->call);
}

/* A guest that tries again and again must not fill the log. */
static void request_failed(void *ctx, enum block_op op, int error)
{
	static const char *const doing[] = {
		[BLOCK_READ] = "read",       [BLOCK_WRITE] = "write",      [BLOCK_FLUSH] = "flush",
		[BLOCK_DISCARD] = "discard", [BLOCK_ZERO] = "write zeros",
	};
	struct machine_image *d = ctx;
	uint64_t now = clock_now(loop_clock(block_ctx_loop(d->ctx)));

	if (d->failed_before && now - d->told_ns < TELL_AGAIN_NS)
		return;
	d->failed_before = true;
	d->told_ns = now;
	log_warn("%s: disk %s: %s '%s': %s; the guest is told", d->m->name, d->name, doing[op],
		 d->file, strerror(error));
}

/* --- making them --- */

static unsigned queues_for(const struct machine *m, const struct machine_disk *c)
{
	if (c->queues)
		return c->queues;
	return m->cpus < DEFAULT_QUEUES_MAX ? m->cpus : DEFAULT_QUEUES_MAX;
}

static int open_image(struct machine_image *d, struct loop *l, const struct machine_disk *c,
		      struct err *e)
{
	int r = block_ctx_new(&d->ctx, l, c->aio, e);

	if (r == 0 && !d->m->disks_handed_over)
		block_ctx_set_up(d->ctx);
	if (r == 0)
		r = block_open(&d->block, d->ctx, &c->image, e);
	if (r < 0)
		return r;
	d->size = block_size(d->block);
	d->read_only = block_read_only(d->block);
	d->file = strdup(block_file(d->block));
	return d->file ? 0 : err_sys(e, ENOMEM, "disk");
}

int machine_image_open(struct machine_image **out, struct machine *m, struct loop *l,
		       const struct machine_disk *c, struct err *e)
{
	struct machine_image *d = calloc(1, sizeof *d);
	int r;

	if (!d)
		return err_sys(e, ENOMEM, "disk");
	d->m = m;
	d->opts = c->image;
	d->opts.given = NULL;
	d->call.run = look_at_space;
	r = open_image(d, l, c, e);
	if (r < 0)
		machine_image_free(d);
	else
		*out = d;
	return r;
}

void machine_image_close(struct machine_image *d)
{
	struct err err;

	if (d && block_close(d->block, &err) < 0)
		log_error("%s: disk %s: %s", d->m->name, d->name, err.text);
	if (d)
		d->block = NULL;
}

void machine_image_free(struct machine_image *d)
{
	if (!d)
		return;
	machine_image_close(d);
	block_ctx_free(d->ctx);
	free(d->file);
	free(d);
}

static void place_image(struct machine_image *d, unsigned index, unsigned slot, const char *prefix,
			unsigned nth)
{
	d->m->image[index] = d;
	d->slot = slot;
	snprintf(d->name, sizeof d->name, "%s%c", prefix, 'a' + (int)nth);
}

int machine_image_place(struct machine_image *d, unsigned slot, struct err *e)
{
	for (unsigned i = 0; i < MACHINE_DISKS_MAX; i++)
		if (!d->m->image[i]) {
			place_image(d, i, slot, "vd", slot - SLOT_DISK);
			return 0;
		}
	return err_set(e, EBUSY, "%u disks are the most", MACHINE_DISKS_MAX);
}

struct machine_image *machine_image_in(const struct machine *m, unsigned slot)
{
	for (unsigned i = 0; i < MACHINE_DISKS_MAX; i++)
		if (m->image[i] && m->image[i]->slot == slot)
			return m->image[i];
	return NULL;
}

unsigned machine_image_slot(const struct machine_image *d)
{
	return d->slot;
}

void machine_image_leaves(struct machine_image *d)
{
	d->leaving = true;
}

void machine_image_forget(struct machine_image *d)
{
	for (unsigned i = 0; i < MACHINE_DISKS_MAX; i++)
		if (d->m->image[i] == d)
			d->m->image[i] = NULL;
}

void machine_image_tell(const struct machine_image *d, struct machine_part *to)
{
	strcpy(to->id, d->name);
	to->kind = MACHINE_DISK;
	to->file = d->file;
	to->size = d->size;
	to->read_only = d->read_only;
}

/* It is the machine's at once, if it can be opened. */
static int make_image(struct machine_image **out, const struct machine_disk_arg *a,
		      const char *prefix, struct loop *l, struct err *e)
{
	int r = machine_image_open(out, a->m, l, a->config, e);

	if (r < 0)
		return err_wrap(e, "disk %s%c", prefix, 'a' + (int)a->nth);
	place_image(*out, a->index, a->config->bus == DISK_VIRTIO ? SLOT_DISK + a->nth : 0, prefix,
		    a->nth);
	return 0;
}

void machine_hand_over_disks(struct machine *m)
{
	for (unsigned i = 0; i < ARRAY_SIZE(m->image); i++)
		if (m->image[i])
			block_ctx_hand_over(m->image[i]->ctx);
	m->disks_handed_over = true;
}

void machine_each_disk_file(struct machine *m, void (*each)(void *ctx, const char *file), void *ctx)
{
	for (unsigned i = 0; i < ARRAY_SIZE(m->image); i++)
		for (struct block *b = m->image[i] ? m->image[i]->block : NULL; b;
		     b = block_backing(b))
			each(ctx, block_file(b));
}

int machine_make_disk(struct virtio_device **out, const struct virtio_env *env, const void *arg,
		      struct err *e)
{
	const struct machine_disk_arg *a = arg;
	struct machine_image *d;
	int r = make_image(&d, a, "vd", env->loop, e);

	return r < 0 ? r : machine_image_device(out, env, d, a->config, e);
}

int machine_image_device(struct virtio_device **out, const struct virtio_env *env,
			 struct machine_image *d, const struct machine_disk *c, struct err *e)
{
	struct virtio_blk_opts o;
	int r;

	o = (struct virtio_blk_opts){
		.block = d->block,
		.serial = c->serial,
		.queues = queues_for(d->m, c),
		.discard = c->image.discard,
		.write_through = c->image.cache == BLOCK_CACHE_WRITETHROUGH,
		.space = space_changed,
		.failed = request_failed,
		.ctx = d,
	};
	r = virtio_blk_new(out, env, &o, e);
	return r < 0 ? err_wrap(e, "disk %s", d->name) : 0;
}

int machine_make_ata_disk(struct ahci_drive *out, struct loop *l, const struct machine_disk_arg *a,
			  struct err *e)
{
	const struct machine_disk *c = a->config;
	struct machine_image *d;
	int r = make_image(&d, a, "sd", l, e);

	if (r < 0)
		return r;
	if (block_read_only(d->block))
		return err_set(e, EINVAL, "disk %s: ATA has no read-only disks; use bus=virtio",
			       d->name);
	*out = (struct ahci_drive){
		.kind = ATA_DISK,
		.image = d->block,
		.serial = c->serial,
		.discard = c->image.discard,
		.write_through = c->image.cache == BLOCK_CACHE_WRITETHROUGH,
		.space = space_changed,
		.failed = request_failed,
		.ctx = d,
	};
	return 0;
}

void machine_disk_counts(struct machine *m, struct machine_stats *to)
{
	for (unsigned i = 0; i < MACHINE_DISKS_MAX; i++) {
		struct machine_disk_stats *d = &to->disk[to->disks];
		struct block_counts n;

		if (!m->image[i] || m->image[i]->leaving)
			continue;
		to->disks++;

		block_get_counts(m->image[i]->block, &n);
		*d = (struct machine_disk_stats){.reads = n.reads,
						 .writes = n.writes,
						 .read_bytes = n.read_bytes,
						 .write_bytes = n.write_bytes};
		strcpy(d->name, m->image[i]->name);
	}
}

struct new_limits {
	struct loop_call call;
	struct block *block;
	struct block_limits limits;
};

static void set_limits(struct loop_call *call)
{
	struct new_limits *n = container_of(call, struct new_limits, call);

	block_set_limits(n->block, &n->limits);
	free(n);
}

static struct machine_image *find_disk(struct machine *m, const char *disk, struct err *e)
{
	for (unsigned i = 0; i < MACHINE_DISKS_MAX; i++)
		if (m->image[i] && !m->image[i]->leaving && !strcmp(m->image[i]->name, disk))
			return m->image[i];
	err_set(e, ENOENT, "there is no disk '%s'; holon inspect names them", disk);
	return NULL;
}

/* On the disk's I/O thread, which nobody waits for: it may be busy. */
int machine_set_disk_limits(struct machine *m, const char *disk, const struct block_limits *l,
			    struct err *e)
{
	struct new_limits *n;
	struct machine_image *d = find_disk(m, disk, e);

	if (!d)
		return -ENOENT;
	n = calloc(1, sizeof *n);
	if (!n)
		return err_set(e, ENOMEM, "out of memory");
	*n = (struct new_limits){{.run = set_limits}, d->block, *l};
	d->opts.limits = *l;
	loop_post(block_ctx_loop(d->ctx), &n->call);
	return 0;
}

/* --- another image --- */

struct new_image {
	struct machine_image *d;
	struct virtio_device *device;
	const char *file;
	struct err *err;
	int result;
};

static bool is_same_file(const char *a, const char *b)
{
	struct stat sa, sb;

	return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

/* The one before ends when what is under way there is done. */
static void put_image(struct machine_image *d, struct virtio_device *device, struct block *b)
{
	static const struct block_limits none;
	struct block *old = d->block;
	struct err err;

	d->block = b;
	virtio_blk_set_image(device, b);
	block_set_limits(old, &none);
	if (block_close(old, &err) < 0)
		log_error("%s: disk %s: %s", d->m->name, d->name, err.text);
}

static int open_other(struct block **out, const struct new_image *n, bool lock)
{
	struct machine_image *d = n->d;
	struct block_opts o = d->opts;

	o.file = n->file;
	o.format = block_format(d->block);
	o.snapshot = NULL;
	o.no_lock = !lock;
	o.read_only = block_read_only(d->block);
	return block_open(out, d->ctx, &o, n->err);
}

/* On the disk's I/O thread. Locks are the process's images' each: the same file cannot be opened
 * with one before it is closed; without one it can, so that a failure leaves the disk as it was. */
static void change_image(void *arg)
{
	struct new_image *n = arg;
	struct machine_image *d = n->d;
	bool same = is_same_file(n->file, block_file(d->block));
	struct block *b;

	n->result = open_other(&b, n, !same);
	if (n->result < 0)
		return;
	put_image(d, n->device, b);
	if (!same)
		return;
	if (open_other(&b, n, true) < 0) {
		log_warn("%s: disk %s: it has no lock any more: %s", d->m->name, d->name,
			 n->err->text);
		return;
	}
	put_image(d, n->device, b);
}

static struct io_thread *thread_of(struct machine *m, const struct loop *l)
{
	for (unsigned i = 0; i < m->ios; i++)
		if (io_thread_loop(m->io[i]) == l)
			return m->io[i];
	return NULL;
}

int machine_set_disk_image(struct machine *m, const char *disk, const char *file, struct err *e)
{
	struct machine_image *d = find_disk(m, disk, e);
	struct new_image n = {.d = d, .err = e};
	struct io_thread *t = d ? thread_of(m, block_ctx_loop(d->ctx)) : NULL;
	char *name;

	if (!d)
		return -ENOENT;
	if (!d->slot || !t)
		return err_set(e, ENOTSUP, "disk %s is no virtio disk", disk);
	name = strdup(file);
	if (!name)
		return err_sys(e, ENOMEM, "disk");
	n.file = file;
	n.device = virtio_pci_virtio(m->virtio[d->slot]);
	io_thread_call(t, change_image, &n);
	if (n.result < 0) {
		free(name);
		return err_wrap(e, "disk %s", disk);
	}
	free(d->file);
	d->file = name;
	d->size = block_size(d->block);
	return 0;
}

void machine_close_disks(struct machine *m)
{
	for (unsigned i = 0; i < MACHINE_DISKS_MAX; i++) {
		machine_image_free(m->image[i]);
		m->image[i] = NULL;
	}
}
