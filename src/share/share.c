/* share: requests taken apart by one table, and answers put together. A request is copied before
 * it is looked at, but for data to write, because the guest may change it meanwhile. */
#include "share/share.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "share/share_priv.h"

#define OLDEST_MINOR 27 /* Linux 4.20; virtio-fs came with 5.4 */
#define GUEST_PAGE   4096u

/* --- pieces of memory --- */

unsigned share_iov_cut(struct iovec *to, const struct iovec *from, unsigned n, uint64_t skip,
		       uint64_t len)
{
	unsigned m = 0;

	for (unsigned i = 0; i < n && len; i++) {
		uint64_t part = min_u64(skip, from[i].iov_len), take;

		skip -= part;
		take = min_u64(from[i].iov_len - part, len);
		len -= take;
		if (take)
			to[m++] = (struct iovec){(uint8_t *)from[i].iov_base + part, take};
	}
	return m;
}

static uint64_t iov_len(const struct iovec *iov, unsigned n)
{
	uint64_t len = 0;

	for (unsigned i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

static void iov_get(void *to, const struct iovec *iov, uint64_t len)
{
	for (uint8_t *at = to; len; iov++) {
		uint64_t part = min_u64(iov->iov_len, len);

		memcpy(at, iov->iov_base, part);
		at += part;
		len -= part;
	}
}

static void iov_put(const struct iovec *iov, const void *from, uint64_t len)
{
	for (const uint8_t *at = from; len; iov++) {
		uint64_t part = min_u64(iov->iov_len, len);

		memcpy(iov->iov_base, at, part);
		at += part;
		len -= part;
	}
}

int share_answer(struct call *c, const void *from, uint32_t len)
{
	if (len > c->room)
		return -ERANGE;
	iov_put(c->out, from, len);
	return (int)len;
}

/* --- the beginning and the end --- */

static int do_init(struct share *s, struct call *c)
{
	const struct fuse_init_in *in = c->args;
	const uint64_t wanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
				FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO |
				FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_MAX_PAGES |
				FUSE_SETXATTR_EXT | FUSE_SUBMOUNTS |
				(s->opts.writeback ? FUSE_WRITEBACK_CACHE : FUSE_AUTO_INVAL_DATA);
	struct fuse_init_out o = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_readahead = in->max_readahead,
		.flags = (uint32_t)(in->flags & wanted),
		.max_background = 64,
		.congestion_threshold = 48,
		.max_write = SHARE_WRITE_MAX,
		.time_gran = 1,
		.max_pages = SHARE_WRITE_MAX / GUEST_PAGE,
	};

	if (in->major < FUSE_KERNEL_VERSION ||
	    (in->major == FUSE_KERNEL_VERSION && in->minor < OLDEST_MINOR))
		return -EPROTO;
	share_reset(s);
	/* One that is newer begins again with what we have. */
	s->ready = in->major == FUSE_KERNEL_VERSION;
	s->setxattr_ext = o.flags & FUSE_SETXATTR_EXT;
	return share_answer(c, &o, sizeof o);
}

static int do_destroy(struct share *s, struct call *c)
{
	share_reset(s);
	return 0;
}

static int do_nothing(struct share *s, struct call *c)
{
	return 0;
}

/* --- the table --- */

#define NAMES_MAX 2

enum name_kind { NONE, NAME, TEXT }; /* NAME: one step of a path */

static const struct request {
	call_fn *fn;
	uint16_t args; /* bytes before the names */
	uint8_t name[NAMES_MAX];
	bool in_dir;  /* the node must be a folder */
	bool no_node; /* there is none, or it does not matter which */
	bool writes;
	bool data;  /* what is behind args stays where it is */
	bool quiet; /* has no answer */
	bool early; /* also before INIT */
} requests[] = {
	[FUSE_LOOKUP] = {do_lookup, 0, {NAME}, .in_dir = true},
	[FUSE_FORGET] = {do_forget, sizeof(struct fuse_forget_in), .quiet = true},
	[FUSE_GETATTR] = {do_getattr, sizeof(struct fuse_getattr_in)},
	[FUSE_SETATTR] = {do_setattr, sizeof(struct fuse_setattr_in), .writes = true},
	[FUSE_READLINK] = {do_readlink},
	[FUSE_SYMLINK] = {do_symlink, 0, {NAME, TEXT}, .in_dir = true, .writes = true},
	[FUSE_MKNOD] =
		{do_mknod, sizeof(struct fuse_mknod_in), {NAME}, .in_dir = true, .writes = true},
	[FUSE_MKDIR] =
		{do_mkdir, sizeof(struct fuse_mkdir_in), {NAME}, .in_dir = true, .writes = true},
	[FUSE_UNLINK] = {do_unlink, 0, {NAME}, .in_dir = true, .writes = true},
	[FUSE_RMDIR] = {do_rmdir, 0, {NAME}, .in_dir = true, .writes = true},
	[FUSE_RENAME] = {do_rename,
			 sizeof(struct fuse_rename_in),
			 {NAME, NAME},
			 .in_dir = true,
			 .writes = true},
	[FUSE_LINK] =
		{do_link, sizeof(struct fuse_link_in), {NAME}, .in_dir = true, .writes = true},
	[FUSE_OPEN] = {do_open, sizeof(struct fuse_open_in)},
	[FUSE_READ] = {do_read, sizeof(struct fuse_read_in)},
	[FUSE_WRITE] = {do_write, sizeof(struct fuse_write_in), .writes = true, .data = true},
	[FUSE_STATFS] = {do_statfs},
	[FUSE_RELEASE] = {do_release, sizeof(struct fuse_release_in), .no_node = true},
	[FUSE_FSYNC] = {do_fsync, sizeof(struct fuse_fsync_in)},
	[FUSE_SETXATTR] = {do_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE, {TEXT}, .writes = true},
	[FUSE_GETXATTR] = {do_getxattr, sizeof(struct fuse_getxattr_in), {TEXT}},
	[FUSE_LISTXATTR] = {do_listxattr, sizeof(struct fuse_getxattr_in)},
	[FUSE_REMOVEXATTR] = {do_removexattr, 0, {TEXT}, .writes = true},
	[FUSE_INIT] = {do_init, offsetof(struct fuse_init_in, flags2), .no_node = true,
		       .early = true},
	[FUSE_OPENDIR] = {do_opendir, sizeof(struct fuse_open_in), .in_dir = true},
	[FUSE_READDIR] = {do_readdir, sizeof(struct fuse_read_in), .in_dir = true},
	[FUSE_RELEASEDIR] = {do_release, sizeof(struct fuse_release_in), .no_node = true},
	[FUSE_FSYNCDIR] = {do_fsync, sizeof(struct fuse_fsync_in)},
	[FUSE_CREATE] =
		{do_create, sizeof(struct fuse_create_in), {NAME}, .in_dir = true, .writes = true},
	/* Nothing waits here for long enough to be worth it. */
	[FUSE_INTERRUPT] = {do_nothing, 0, .no_node = true, .quiet = true},
	[FUSE_DESTROY] = {do_destroy, 0, .no_node = true, .early = true},
	[FUSE_BATCH_FORGET] = {do_batch_forget, sizeof(struct fuse_batch_forget_in),
			       .no_node = true, .quiet = true},
	[FUSE_FALLOCATE] = {do_fallocate, sizeof(struct fuse_fallocate_in), .writes = true},
	[FUSE_READDIRPLUS] = {do_readdirplus, sizeof(struct fuse_read_in), .in_dir = true},
	[FUSE_RENAME2] = {do_rename2,
			  sizeof(struct fuse_rename2_in),
			  {NAME, NAME},
			  .in_dir = true,
			  .writes = true},
	[FUSE_LSEEK] = {do_lseek, sizeof(struct fuse_lseek_in)},
	[FUSE_COPY_FILE_RANGE] = {do_copy_range, sizeof(struct fuse_copy_file_range_in),
				  .writes = true},
	[FUSE_SYNCFS] = {do_syncfs},
	[FUSE_TMPFILE] =
		{do_tmpfile, sizeof(struct fuse_create_in), {TEXT}, .in_dir = true, .writes = true},
};

static bool is_one_step(const char *name)
{
	return name[0] && strcmp(name, ".") && strcmp(name, "..") && !strchr(name, '/');
}

/* From where the arguments end in s->body, of which len bytes are the request's. */
static int take_names(struct share *s, struct call *c, const struct request *q, uint32_t at,
		      uint32_t len)
{
	for (unsigned i = 0; i < NAMES_MAX && q->name[i]; i++) {
		const char *name = (const char *)s->body + at;
		uint32_t n = (uint32_t)strnlen(name, len - at);

		if (n == len - at)
			return -EINVAL;
		if (q->name[i] == NAME && !is_one_step(name))
			return n ? -EINVAL : -ENOENT;
		c->name[i] = name;
		at += n + 1;
	}
	c->rest = s->body + at;
	c->rest_len = len - at;
	return 0;
}

static int take_body(struct share *s, struct call *c, const struct request *q,
		     const struct iovec *in, unsigned ins, uint64_t len)
{
	uint32_t args = q->args, copy = (uint32_t)len;

	if (s->setxattr_ext && q->fn == do_setxattr)
		args = sizeof(struct fuse_setxattr_in);
	if (len < args)
		return -EINVAL;
	if (q->data)
		copy = args;
	else if (len > SHARE_BODY_MAX)
		return -E2BIG;
	(void)share_iov_cut(s->in, in, ins, sizeof c->h, copy);
	iov_get(s->body, s->in, copy);
	memset(s->body + copy, 0, sizeof(struct fuse_init_in)); /* what an older guest left out */
	c->args = s->body;
	if (!q->data)
		return take_names(s, c, q, args, copy);
	c->data_n = share_iov_cut(s->in, in, ins, sizeof c->h + args, len - args);
	c->data = s->in;
	c->data_len = len - args;
	return 0;
}

static int serve(struct share *s, struct call *c, const struct request *q, const struct iovec *in,
		 unsigned ins, uint64_t len)
{
	int r;

	if (!s->ready && !q->early)
		return -EIO;
	if (q->writes && s->opts.read_only)
		return -EROFS;
	c->node = node_get(s, c->h.nodeid);
	if (!c->node && !q->no_node)
		return -ENOENT;
	if (q->in_dir && c->node->type != S_IFDIR)
		return -ENOTDIR;
	r = take_body(s, c, q, in, ins, len);
	return r < 0 ? r : q->fn(s, c);
}

uint32_t share_serve(struct share *s, const struct iovec *in, unsigned ins, const struct iovec *out,
		     unsigned outs)
{
	static const struct request unknown = {0};
	uint64_t in_len = iov_len(in, ins), out_len = iov_len(out, outs);
	struct fuse_out_header answer;
	const struct request *q = &unknown;
	struct call c = {0};
	int r = -EINVAL;

	if (in_len < sizeof c.h || ins > SHARE_IOV_MAX || outs > SHARE_IOV_MAX)
		return 0;
	iov_get(&c.h, in, sizeof c.h);
	if (c.h.opcode < ARRAY_SIZE(requests) && requests[c.h.opcode].fn)
		q = &requests[c.h.opcode];
	c.out_n = share_iov_cut(s->out, out, outs, sizeof answer, UINT32_MAX);
	c.out = s->out;
	c.room = out_len > sizeof answer ? min_u64(out_len - sizeof answer, INT32_MAX / 2) : 0;
	s->counts.requests++;
	if (!q->fn)
		r = -ENOSYS;
	else if (q->quiet || out_len >= sizeof answer)
		r = serve(s, &c, q, in, ins, in_len - sizeof c.h);
	if (q->quiet || out_len < sizeof answer)
		return 0;
	answer = (struct fuse_out_header){
		.len = (uint32_t)sizeof answer + (r > 0 ? (uint32_t)r : 0),
		.error = r < 0 ? r : 0,
		.unique = c.h.unique,
	};
	iov_put(out, &answer, sizeof answer);
	return answer.len;
}

/* --- life --- */

int share_new(struct share **out, const struct share_opts *o, struct err *e)
{
	struct share *s = calloc(1, sizeof *s);
	int r;

	if (!s) {
		close(o->dir);
		return err_set(e, ENOMEM, "out of memory");
	}
	s->opts = *o;
	s->fds_max =
		o->fds < SHARE_FDS_MIN ? SHARE_FDS_MIN : (unsigned)min_u64(o->fds, SHARE_FDS_MAX);
	ids_init(s);
	/* Taken now: a confined process has no /proc later. */
	s->proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	r = s->proc < 0 ? -errno : 0;
	if (r < 0)
		close(o->dir);
	else
		r = nodes_init(s, o->dir);
	if (r < 0) {
		share_free(s);
		return err_sys(e, -r, "share");
	}
	*out = s;
	return 0;
}

void share_free(struct share *s)
{
	if (!s)
		return;
	handles_done(s);
	nodes_done(s);
	if (s->proc >= 0)
		close(s->proc);
	free(s);
}

int share_begin(struct share *s)
{
	int r;

	if (s->begun && pthread_equal(s->thread, pthread_self()))
		return 0;
	s->thread = pthread_self();
	s->begun = true;
	s->own_cwd = false;
	/* Again: the process may have been confined since share_new. */
	ids_init(s);
	if (unshare(CLONE_FS) < 0)
		return -errno;
	umask(0); /* the guest's kernel applied its caller's */
	if (fchdir(s->proc) < 0)
		return -errno;
	s->own_cwd = true;
	r = ids_begin(s);
	return r;
}

void share_reset(struct share *s)
{
	s->ready = false;
	handles_done(s);
	nodes_reset(s);
}

void share_get_counts(const struct share *s, struct share_counts *to)
{
	*to = s->counts;
	to->nodes = s->nodes.nodes;
	to->fds = s->fds;
	to->mounted = s->ready;
}
