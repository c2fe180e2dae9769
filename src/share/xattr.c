/* xattr: extended attributes. Those of users, and the one that gives a program capabilities where
 * we act for others; what else there is says something to the host's kernel (trusted.overlay) or
 * is a policy of the host's (security.selinux). Calls by path, because O_PATH has no others before
 * Linux 6.13: the working directory of this thread is /proc/self/fd. */
#include "share/share_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

static bool is_shared(const struct share *s, const char *name)
{
	return !strncmp(name, "user.", 5) || (!s->squash && !strcmp(name, "security.capability"));
}

/* The path of what has attributes; or -errno. */
static int path_of(struct share *s, struct call *c, struct fd_name *path)
{
	int fd;

	if (!s->own_cwd || (c->node->type != S_IFREG && c->node->type != S_IFDIR))
		return -EOPNOTSUPP;
	fd = node_fd(s, c->node);
	if (fd < 0)
		return fd;
	*path = fd_name(fd);
	return 0;
}

static int named(struct share *s, struct call *c, const char *name, struct fd_name *path)
{
	return is_shared(s, name) ? path_of(s, c, path) : -EOPNOTSUPP;
}

int do_setxattr(struct share *s, struct call *c)
{
	const struct fuse_setxattr_in *in = c->args;
	struct fd_name path;
	int r = named(s, c, c->name[0], &path);

	if (r < 0)
		return r;
	if (in->size > c->rest_len)
		return -EINVAL;
	return setxattr(path.text, c->name[0], c->rest, in->size, (int)in->flags) < 0 ? -errno : 0;
}

/* size 0: the guest only asks how long it is. */
static int answer(struct share *s, struct call *c, uint32_t size, uint32_t len)
{
	if (!size)
		return share_answer(c, &(struct fuse_getxattr_out){.size = len},
				    sizeof(struct fuse_getxattr_out));
	return len > size ? -ERANGE : share_answer(c, s->buf, len);
}

int do_getxattr(struct share *s, struct call *c)
{
	const struct fuse_getxattr_in *in = c->args;
	struct fd_name path;
	int r = named(s, c, c->name[0], &path);
	ssize_t n;

	if (r < 0)
		return r;
	n = getxattr(path.text, c->name[0], s->buf, SHARE_BUF_LEN);
	return n < 0 ? -errno : answer(s, c, in->size, (uint32_t)n);
}

int do_listxattr(struct share *s, struct call *c)
{
	const struct fuse_getxattr_in *in = c->args;
	struct fd_name path;
	int r = path_of(s, c, &path);
	uint32_t kept = 0;
	ssize_t n;

	if (r < 0)
		return r;
	n = listxattr(path.text, (char *)s->buf, SHARE_BUF_LEN);
	if (n < 0)
		return -errno;
	for (ssize_t at = 0; at < n;) {
		char *name = (char *)s->buf + at;
		size_t len = strlen(name) + 1;

		if (is_shared(s, name)) {
			memmove(s->buf + kept, name, len);
			kept += (uint32_t)len;
		}
		at += (ssize_t)len;
	}
	return answer(s, c, in->size, kept);
}

int do_removexattr(struct share *s, struct call *c)
{
	struct fd_name path;
	int r = named(s, c, c->name[0], &path);

	if (r < 0)
		return r;
	return removexattr(path.text, c->name[0]) < 0 ? -errno : 0;
}
