/* file: open files. */
#include "share/share_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- handles: a slot, and above it which use of it this is --- */

struct handle *handle_get(struct share *s, uint64_t id)
{
	uint32_t i = (uint32_t)id;
	struct handle *h = i < s->handles.slots ? s->handles.slot[i] : NULL;

	return h && h->id == id ? h : NULL;
}

static int grow(struct handle_table *t)
{
	uint32_t n = t->slots ? t->slots * 2 : 64;
	struct handle **slot = realloc(t->slot, n * sizeof *slot);

	if (!slot)
		return -ENOMEM;
	for (uint32_t i = t->slots; i < n; i++)
		slot[i] = NULL;
	t->slot = slot;
	t->next = t->slots;
	t->slots = n;
	return 0;
}

int handle_new(struct share *s, int fd, uint64_t *id)
{
	struct handle_table *t = &s->handles;
	struct handle *h;
	int r = share_room_for_fd(s);

	if (r == 0 && t->open == t->slots)
		r = grow(t);
	if (r < 0)
		return r;
	h = calloc(1, sizeof *h);
	if (!h)
		return -ENOMEM;
	while (t->slot[t->next])
		t->next = (t->next + 1) % t->slots;
	*h = (struct handle){.id = t->next | (++t->made << 32), .fd = fd};
	t->slot[t->next] = h;
	t->open++;
	s->fds++;
	*id = h->id;
	return 0;
}

void handle_close(struct share *s, struct handle *h)
{
	s->handles.slot[(uint32_t)h->id] = NULL;
	s->handles.next = (uint32_t)h->id;
	s->handles.open--;
	s->fds--;
	close(h->fd);
	free(h);
}

void handles_done(struct share *s)
{
	for (uint32_t i = 0; i < s->handles.slots; i++)
		if (s->handles.slot[i])
			handle_close(s, s->handles.slot[i]);
	free(s->handles.slot);
	s->handles = (struct handle_table){.made = s->handles.made};
}

/* --- opening --- */

/* Of the guest's flags those that mean something here. The guest's cache is not the host's, so
 * direct access is only the guest's affair. */
int share_file_flags(const struct share *s, uint32_t flags)
{
	int host = (int)(flags & (O_ACCMODE | O_TRUNC | O_DSYNC | O_SYNC | O_NOATIME));

	if (!s->opts.writeback)
		return host | (int)(flags & O_APPEND) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	/* The guest reads pages that are written in part, and knows where the end is. */
	if ((host & O_ACCMODE) == O_WRONLY)
		host = (host & ~O_ACCMODE) | O_RDWR;
	return host | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
}

int share_file_open(struct share *s, struct node *n, uint32_t flags)
{
	int path, fd, host = share_file_flags(s, flags);
	bool writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;

	if (n->type != S_IFREG)
		return n->type == S_IFDIR ? -EISDIR : n->type == S_IFLNK ? -ELOOP : -ENXIO;
	if (s->opts.read_only && writes)
		return -EROFS;
	path = node_fd(s, n);
	if (path < 0)
		return path;
	fd = openat(s->proc, fd_name(path).text, host);
	if (fd < 0 && errno == EPERM && host & O_NOATIME) /* another's file */
		fd = openat(s->proc, fd_name(path).text, host & ~O_NOATIME);
	if (fd < 0 && errno == EACCES && s->opts.writeback && (flags & O_ACCMODE) == O_WRONLY)
		fd = openat(s->proc, fd_name(path).text, (host & ~O_ACCMODE) | O_WRONLY);
	return fd < 0 ? -errno : fd;
}

static int answer_open(struct share *s, struct call *c, int fd)
{
	struct fuse_open_out o = {0};
	int r = handle_new(s, fd, &o.fh);

	if (r < 0) {
		close(fd);
		return r;
	}
	r = share_answer(c, &o, sizeof o);
	if (r < 0)
		handle_close(s, handle_get(s, o.fh));
	return r;
}

int do_open(struct share *s, struct call *c)
{
	const struct fuse_open_in *in = c->args;
	int fd;

	fd = share_file_open(s, c->node, in->flags & ~(uint32_t)(O_CREAT | O_EXCL));
	if (fd < 0)
		return fd;
	if (in->flags & O_TRUNC && in->open_flags & FUSE_OPEN_KILL_SUIDGID)
		attr_kill_ids(fd);
	return answer_open(s, c, fd);
}

int do_opendir(struct share *s, struct call *c)
{
	int dir = node_fd(s, c->node), fd;

	if (dir < 0)
		return dir;
	fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : answer_open(s, c, fd);
}

int do_release(struct share *s, struct call *c)
{
	const struct fuse_release_in *in = c->args;
	struct handle *h = handle_get(s, in->fh);

	if (!h)
		return -EBADF;
	handle_close(s, h);
	return 0;
}

/* --- contents --- */

int do_read(struct share *s, struct call *c)
{
	const struct fuse_read_in *in = c->args;
	struct handle *h = handle_get(s, in->fh);
	uint64_t want = min_u64(min_u64(in->size, c->room), SHARE_WRITE_MAX);
	unsigned n;
	ssize_t got;

	if (!h)
		return -EBADF;
	if (in->offset > INT64_MAX - want)
		return -EINVAL;
	/* Straight into the guest's memory. */
	n = share_iov_cut(s->cut, c->out, c->out_n, 0, want);
	got = preadv(h->fd, s->cut, (int)n, (off_t)in->offset);
	if (got < 0)
		return -errno;
	s->counts.read_bytes += (uint64_t)got;
	return (int)got;
}

int do_write(struct share *s, struct call *c)
{
	const struct fuse_write_in *in = c->args;
	struct handle *h = handle_get(s, in->fh);
	uint64_t len = min_u64(in->size, SHARE_WRITE_MAX);
	ssize_t done;
	unsigned n;

	if (!h)
		return -EBADF;
	if (c->data_len < len || in->offset > INT64_MAX - len)
		return -EINVAL;
	if (in->write_flags & FUSE_WRITE_KILL_SUIDGID)
		attr_kill_ids(h->fd);
	n = share_iov_cut(s->cut, c->data, c->data_n, 0, len);
	/* With O_APPEND it goes to the end, wherever that is on the host. */
	done = pwritev(h->fd, s->cut, (int)n, (off_t)in->offset);
	if (done < 0)
		return -errno;
	s->counts.written_bytes += (uint64_t)done;
	return share_answer(c, &(struct fuse_write_out){.size = (uint32_t)done},
			    sizeof(struct fuse_write_out));
}

int do_fsync(struct share *s, struct call *c)
{
	const struct fuse_fsync_in *in = c->args;
	struct handle *h = handle_get(s, in->fh);
	int r;

	if (!h)
		return -EBADF;
	r = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd);
	return r < 0 ? -errno : 0;
}

int do_syncfs(struct share *s, struct call *c)
{
	int dir = node_fd(s, s->root), fd, r;

	if (dir < 0)
		return dir;
	fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = syncfs(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

int do_fallocate(struct share *s, struct call *c)
{
	const struct fuse_fallocate_in *in = c->args;
	const uint32_t known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE |
			       FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE |
			       FALLOC_FL_UNSHARE_RANGE;
	struct handle *h = handle_get(s, in->fh);

	if (!h)
		return -EBADF;
	if (in->mode & ~known)
		return -EOPNOTSUPP;
	return fallocate(h->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? -errno
											 : 0;
}

int do_lseek(struct share *s, struct call *c)
{
	const struct fuse_lseek_in *in = c->args;
	struct handle *h = handle_get(s, in->fh);
	off_t at;

	if (!h)
		return -EBADF;
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL; /* the guest does the others itself */
	at = lseek(h->fd, (off_t)in->offset, (int)in->whence);
	return at < 0 ? -errno
		      : share_answer(c, &(struct fuse_lseek_out){.offset = (uint64_t)at},
				     sizeof(struct fuse_lseek_out));
}

/* A part of it is an answer too; so that nothing else waits for gigabytes. */
#define COPY_MAX MIB(16)

int do_copy_range(struct share *s, struct call *c)
{
	const struct fuse_copy_file_range_in *in = c->args;
	struct handle *from = handle_get(s, in->fh_in), *to = handle_get(s, in->fh_out);
	off_t off_in = (off_t)in->off_in, off_out = (off_t)in->off_out;
	ssize_t n;

	if (!from || !to)
		return -EBADF;
	if (in->flags)
		return -EINVAL;
	n = copy_file_range(from->fd, &off_in, to->fd, &off_out, min_u64(in->len, COPY_MAX), 0);
	return n < 0 ? -errno
		     : share_answer(c, &(struct fuse_write_out){.size = (uint32_t)n},
				    sizeof(struct fuse_write_out));
}
