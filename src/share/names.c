/* names: requests about a name in a folder. The name is one step (share.c saw to that). */
#include "share/share_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int answer_entry(struct share *s, struct call *c, struct node *dir, const char *name)
{
	struct fuse_entry_out o;
	struct statx st;
	struct node *n;
	int r = node_lookup(s, dir, name, true, &n, &st);

	if (r < 0)
		return r;
	attr_entry(s, dir, n, &st, &o);
	r = share_answer(c, &o, sizeof o);
	if (r < 0)
		node_forget(s, n, 1); /* the guest did not learn of it */
	return r;
}

int do_lookup(struct share *s, struct call *c)
{
	return answer_entry(s, c, c->node, c->name[0]);
}

int do_forget(struct share *s, struct call *c)
{
	const struct fuse_forget_in *in = c->args;

	node_forget(s, c->node, in->nlookup);
	return 0;
}

int do_batch_forget(struct share *s, struct call *c)
{
	const struct fuse_batch_forget_in *in = c->args;
	uint32_t n = (uint32_t)min_u64(in->count, c->rest_len / sizeof(struct fuse_forget_one));

	for (uint32_t i = 0; i < n; i++) {
		struct fuse_forget_one one;
		struct node *node;

		memcpy(&one, c->rest + i * sizeof one, sizeof one);
		node = node_get(s, one.nodeid);
		if (node)
			node_forget(s, node, one.nlookup);
	}
	return 0;
}

/* --- making --- */

/* make(dir, what) for the caller, then the entry. */
struct making {
	mode_t mode;
	const char *target;
};

static int make(struct share *s, struct call *c,
		int (*fn)(int, const char *, const struct making *), const struct making *m)
{
	int fd = node_fd(s, c->node), r;

	if (fd < 0)
		return fd;
	r = ids_become(s, c);
	if (r < 0)
		return r;
	r = fn(fd, c->name[0], m) < 0 ? -errno : 0;
	ids_return(s);
	return r < 0 ? r : answer_entry(s, c, c->node, c->name[0]);
}

static int make_node(int dir, const char *name, const struct making *m)
{
	return mknodat(dir, name, m->mode, 0);
}

static int make_dir(int dir, const char *name, const struct making *m)
{
	return mkdirat(dir, name, m->mode);
}

static int make_link(int dir, const char *name, const struct making *m)
{
	return symlinkat(m->target, dir, name);
}

int do_mknod(struct share *s, struct call *c)
{
	const struct fuse_mknod_in *in = c->args;
	mode_t type = in->mode & S_IFMT;

	/* A device would be one of the host for everybody there. Only what overlayfs puts where
	 * something was removed is none. */
	if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && (type != S_IFCHR || in->rdev))
		return -EPERM;
	return make(s, c, make_node, &(struct making){.mode = in->mode & (S_IFMT | 07777)});
}

int do_mkdir(struct share *s, struct call *c)
{
	const struct fuse_mkdir_in *in = c->args;

	return make(s, c, make_dir, &(struct making){.mode = in->mode & 07777});
}

int do_symlink(struct share *s, struct call *c)
{
	return make(s, c, make_link, &(struct making){.target = c->name[1]});
}

int do_link(struct share *s, struct call *c)
{
	const struct fuse_link_in *in = c->args;
	struct node *n = node_get(s, in->oldnodeid);
	int from, to;

	if (!n)
		return -ENOENT;
	if (n->type == S_IFDIR)
		return -EPERM;
	from = node_fd(s, n);
	if (from < 0)
		return from;
	to = node_fd(s, c->node);
	if (to < 0)
		return to;
	if (linkat(s->proc, fd_name(from).text, to, c->name[0], AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	return answer_entry(s, c, c->node, c->name[0]);
}

/* --- opening while making --- */

static int answer_created(struct share *s, struct call *c, const char *name, int fd)
{
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} o = {.open.open_flags = 0};
	struct statx st;
	struct node *n;
	int r = node_of_fd(s, c->node, name, fd, &n, &st);

	if (r == 0) {
		r = handle_new(s, fd, &o.open.fh);
		if (r < 0)
			node_forget(s, n, 1);
	}
	if (r < 0) {
		close(fd);
		return r;
	}
	attr_entry(s, c->node, n, &st, &o.entry);
	r = share_answer(c, &o, sizeof o);
	if (r < 0) {
		handle_close(s, handle_get(s, o.open.fh));
		node_forget(s, n, 1);
	}
	return r;
}

/* What was there already is opened as any other file: it may be no regular one. */
static int open_existing(struct share *s, struct call *c, uint32_t flags)
{
	struct statx st;
	struct node *n;
	int r = node_lookup(s, c->node, c->name[0], true, &n, &st), fd;

	if (r < 0)
		return r;
	fd = share_file_open(s, n, flags);
	r = fd < 0 ? fd : answer_created(s, c, c->name[0], fd);
	node_forget(s, n, 1);
	return r;
}

int do_create(struct share *s, struct call *c)
{
	const struct fuse_create_in *in = c->args;
	int dir = node_fd(s, c->node), flags = share_file_flags(s, in->flags), fd, r;

	if (dir < 0)
		return dir;
	r = ids_become(s, c);
	if (r < 0)
		return r;
	fd = openat(dir, c->name[0], flags | O_CREAT | O_EXCL | O_NOFOLLOW, in->mode & 07777);
	r = fd < 0 ? -errno : 0;
	ids_return(s);
	if (r == -EEXIST && !(in->flags & O_EXCL))
		return open_existing(s, c, in->flags & ~(uint32_t)O_CREAT);
	return r < 0 ? r : answer_created(s, c, c->name[0], fd);
}

int do_tmpfile(struct share *s, struct call *c)
{
	const struct fuse_create_in *in = c->args;
	int dir = node_fd(s, c->node), fd, r;

	if (dir < 0)
		return dir;
	r = ids_become(s, c);
	if (r < 0)
		return r;
	fd = openat(dir, ".", (share_file_flags(s, in->flags) & ~O_ACCMODE) | O_RDWR | O_TMPFILE,
		    in->mode & 07777);
	r = fd < 0 ? -errno : 0;
	ids_return(s);
	return r < 0 ? r : answer_created(s, c, NULL, fd);
}

/* --- removing and renaming --- */

static int removes(struct share *s, struct call *c, int flags)
{
	struct node *n = node_known(s, c->node, c->name[0]);
	int dir = node_fd(s, c->node);

	if (dir < 0)
		return dir;
	if (unlinkat(dir, c->name[0], flags) < 0)
		return -errno;
	if (n)
		node_unnamed(s, n, c->node, c->name[0]);
	return 0;
}

int do_unlink(struct share *s, struct call *c)
{
	return removes(s, c, 0);
}

int do_rmdir(struct share *s, struct call *c)
{
	return removes(s, c, AT_REMOVEDIR);
}

static int renames(struct share *s, struct call *c, uint64_t to_id, uint32_t flags)
{
	struct node *to = node_get(s, to_id), *n, *over;
	int from_fd, to_fd;

	if (!to)
		return -ENOENT;
	if (flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	n = node_known(s, c->node, c->name[0]);
	over = node_known(s, to, c->name[1]);
	from_fd = node_fd(s, c->node);
	if (from_fd < 0)
		return from_fd;
	to_fd = node_fd(s, to);
	if (to_fd < 0)
		return to_fd;
	if (syscall(SYS_renameat2, from_fd, c->name[0], to_fd, c->name[1], flags) < 0)
		return -errno;
	if (n == over)
		return 0; /* two names of one file: nothing happened */
	if (over && flags & RENAME_EXCHANGE)
		node_renamed(s, over, c->node, c->name[0]);
	else if (over)
		node_unnamed(s, over, to, c->name[1]);
	if (n)
		node_renamed(s, n, to, c->name[1]);
	return 0;
}

int do_rename(struct share *s, struct call *c)
{
	return renames(s, c, ((const struct fuse_rename_in *)c->args)->newdir, 0);
}

int do_rename2(struct share *s, struct call *c)
{
	const struct fuse_rename2_in *in = c->args;

	return renames(s, c, in->newdir, in->flags);
}

int do_readlink(struct share *s, struct call *c)
{
	int fd = node_fd(s, c->node);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = readlinkat(fd, "", (char *)s->buf, PATH_MAX);
	return n < 0 ? -errno : share_answer(c, s->buf, (uint32_t)n);
}
