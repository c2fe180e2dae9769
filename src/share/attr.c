/* attr: attributes of files, and of the file system. */
#include "share/share_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/auto.h"

/* As Linux encodes it: 20 bits of minor number around 12 of major. */
static uint32_t encode_device(uint32_t major, uint32_t minor)
{
	return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

void attr_fill(const struct share *s, const struct statx *st, struct fuse_attr *a)
{
	*a = (struct fuse_attr){
		.ino = st->stx_ino,
		.size = st->stx_size,
		.blocks = st->stx_blocks,
		.atime = (uint64_t)st->stx_atime.tv_sec,
		.mtime = (uint64_t)st->stx_mtime.tv_sec,
		.ctime = (uint64_t)st->stx_ctime.tv_sec,
		.atimensec = st->stx_atime.tv_nsec,
		.mtimensec = st->stx_mtime.tv_nsec,
		.ctimensec = st->stx_ctime.tv_nsec,
		.mode = st->stx_mode,
		.nlink = st->stx_nlink,
		.uid = ids_guest_uid(s, st->stx_uid),
		.gid = ids_guest_gid(s, st->stx_gid),
		.rdev = encode_device(st->stx_rdev_major, st->stx_rdev_minor),
		.blksize = st->stx_blksize,
	};
}

void attr_entry(const struct share *s, const struct node *dir, const struct node *n,
		const struct statx *st, struct fuse_entry_out *o)
{
	*o = (struct fuse_entry_out){
		.nodeid = n->id, .entry_valid = SHARE_VALID_S, .attr_valid = SHARE_VALID_S};
	attr_fill(s, st, &o->attr);
	/* Another file system, whose numbers may be those of files here: the guest mounts it. */
	if (n->type == S_IFDIR && n->dev != dir->dev)
		o->attr.flags |= FUSE_ATTR_SUBMOUNT;
}

static int answer_attr(struct share *s, struct call *c, int fd)
{
	struct fuse_attr_out o = {.attr_valid = SHARE_VALID_S};
	struct statx st;
	int r = node_stat(fd, &st);

	if (r < 0)
		return r;
	attr_fill(s, &st, &o.attr);
	return share_answer(c, &o, sizeof o);
}

int do_getattr(struct share *s, struct call *c)
{
	const struct fuse_getattr_in *in = c->args;
	struct handle *h = NULL;
	int fd;

	if (in->getattr_flags & FUSE_GETATTR_FH)
		h = handle_get(s, in->fh);
	fd = h ? h->fd : node_fd(s, c->node);
	return fd < 0 ? fd : answer_attr(s, c, fd);
}

void attr_kill_ids(int fd)
{
	struct statx st;
	mode_t mode;

	if (node_stat(fd, &st) < 0 || !S_ISREG(st.stx_mode))
		return;
	mode = st.stx_mode & 07777 & ~S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~S_ISGID;
	if (mode != (st.stx_mode & 07777))
		(void)!fchmod(fd, mode);
}

/* --- SETATTR --- */

static int set_size(struct share *s, struct call *c, const struct fuse_setattr_in *in)
{
	struct handle *h = in->valid & FATTR_FH ? handle_get(s, in->fh) : NULL;
	AUTO_CLOSE int opened = -1;
	int fd = h ? h->fd : -1;

	if (in->size > INT64_MAX)
		return -EFBIG;
	if (fd < 0) {
		fd = opened = share_file_open(s, c->node, O_WRONLY);
		if (fd < 0)
			return fd;
	}
	if (in->valid & FATTR_KILL_SUIDGID)
		attr_kill_ids(fd);
	return ftruncate(fd, (off_t)in->size) < 0 ? -errno : 0;
}

static int set_owner(struct share *s, int fd, const struct fuse_setattr_in *in)
{
	uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
	gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;
	int r = ids_host(s, &uid, &gid);

	if (r < 0)
		return r;
	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static struct timespec time_to_set(uint32_t valid, uint32_t set, uint32_t now, uint64_t s,
				   uint32_t ns)
{
	if (!(valid & set))
		return (struct timespec){0, UTIME_OMIT};
	if (valid & now)
		return (struct timespec){0, UTIME_NOW};
	return (struct timespec){(time_t)s, ns};
}

static int set_times(int fd, const struct fuse_setattr_in *in)
{
	const struct timespec t[2] = {
		time_to_set(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
		time_to_set(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
	};

	return utimensat(fd, "", t, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

int do_setattr(struct share *s, struct call *c)
{
	const struct fuse_setattr_in *in = c->args;
	int fd = node_fd(s, c->node), r = 0;

	if (fd < 0)
		return fd;
	if (in->valid & FATTR_MODE) {
		/* There is no such call for O_PATH before Linux 6.6; and the mode of a link is
		 * nothing that can be set. */
		if (c->node->type == S_IFLNK)
			return -EOPNOTSUPP;
		if (fchmodat(s->proc, fd_name(fd).text, in->mode & 07777, 0) < 0)
			return -errno;
	}
	if (in->valid & (FATTR_UID | FATTR_GID))
		r = set_owner(s, fd, in);
	if (r == 0 && in->valid & FATTR_SIZE)
		r = set_size(s, c, in);
	if (r == 0 && in->valid & (FATTR_ATIME | FATTR_MTIME))
		r = set_times(fd, in);
	return r < 0 ? r : answer_attr(s, c, fd);
}

int do_statfs(struct share *s, struct call *c)
{
	int fd = node_fd(s, c->node);
	struct statvfs v;

	if (fd < 0)
		return fd;
	if (fstatvfs(fd, &v) < 0)
		return -errno;
	return share_answer(c,
			    &(struct fuse_statfs_out){{
				    .blocks = v.f_blocks,
				    .bfree = v.f_bfree,
				    .bavail = v.f_bavail,
				    .files = v.f_files,
				    .ffree = v.f_ffree,
				    .bsize = (uint32_t)v.f_bsize,
				    .namelen = (uint32_t)v.f_namemax,
				    .frsize = (uint32_t)v.f_frsize,
			    }},
			    sizeof(struct fuse_statfs_out));
}
