/* dir: reading folders. The guest's position is what the host's file system gave as such; it
 * means something to that alone. */
#include "share/share_priv.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct linux_dirent64 { /* getdents64(2) */
	uint64_t d_ino;
	int64_t d_off;
	uint16_t d_reclen;
	uint8_t d_type;
	char d_name[];
};

#define RAW_LEN (SHARE_BUF_LEN / 4)

struct listing {
	struct share *s;
	struct call *c;
	uint8_t *to;
	uint32_t room, len;
	bool plus;
};

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static void put_dirent(struct fuse_dirent *to, const struct linux_dirent64 *d, uint32_t len)
{
	*to = (struct fuse_dirent){
		.ino = d->d_ino, .off = (uint64_t)d->d_off, .namelen = len, .type = d->d_type};
	memcpy(to->name, d->d_name, len);
}

/* 1; 0: there is no room for it. */
static int put(struct listing *l, const struct linux_dirent64 *d)
{
	uint32_t len = (uint32_t)strlen(d->d_name);
	uint32_t before = l->plus ? sizeof(struct fuse_entry_out) : 0;
	uint32_t size = (uint32_t)FUSE_REC_ALIGN(before + FUSE_NAME_OFFSET + len);
	uint8_t *at = l->to + l->len;

	if (size > l->room - l->len)
		return 0;
	memset(at, 0, size);
	put_dirent((struct fuse_dirent *)(at + before), d, len);
	/* An entry without a number: the guest looks it up when it wants to know more; so with
	 * what went meanwhile. */
	if (l->plus && !is_dots(d->d_name)) {
		struct statx st;
		struct node *n;

		if (node_lookup(l->s, l->c->node, d->d_name, true, &n, &st) == 0)
			attr_entry(l->s, l->c->node, n, &st, (struct fuse_entry_out *)at);
	}
	l->len += size;
	return 1;
}

/* The guest did not learn of these. */
static void take_back(struct listing *l)
{
	for (uint32_t at = 0; at < l->len && l->plus;) {
		struct fuse_direntplus *p = (void *)(l->to + at);
		struct node *n = node_get(l->s, p->entry_out.nodeid);

		if (n)
			node_forget(l->s, n, 1);
		at += (uint32_t)FUSE_DIRENTPLUS_SIZE(p);
	}
}

static int list(struct listing *l, struct handle *h, uint8_t *raw)
{
	/* As much as the answer will about take; what is read in vain is read again. */
	uint64_t want = max_u64(min_u64(l->plus ? l->room / 4 : l->room, RAW_LEN), 320);
	long n = syscall(SYS_getdents64, h->fd, raw, want);

	if (n < 0)
		return -errno;
	for (long at = 0; at < n;) {
		const struct linux_dirent64 *d = (void *)(raw + at);

		if (!put(l, d))
			return l->len ? 0 : -EINVAL; /* not even one fits */
		at += d->d_reclen;
	}
	return 0;
}

static int reads(struct share *s, struct call *c, bool plus)
{
	const struct fuse_read_in *in = c->args;
	struct handle *h = handle_get(s, in->fh);
	struct listing l = {.s = s, .c = c, .to = s->buf + RAW_LEN, .plus = plus};
	int r;

	if (!h)
		return -EBADF;
	l.room = (uint32_t)min_u64(min_u64(in->size, c->room), SHARE_BUF_LEN - RAW_LEN);
	/* Also after a listing of which not all was taken. */
	if (lseek(h->fd, (off_t)in->offset, SEEK_SET) < 0)
		return -errno;
	r = list(&l, h, s->buf);
	if (r == 0)
		r = share_answer(c, l.to, l.len);
	if (r < 0)
		take_back(&l);
	return r;
}

int do_readdir(struct share *s, struct call *c)
{
	return reads(s, c, false);
}

int do_readdirplus(struct share *s, struct call *c)
{
	return reads(s, c, true);
}
