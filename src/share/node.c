/* node: the files that a guest knows. A number is a slot and how often that was used, so one that
 * was forgotten never means another file. A file that can be found again, by a name in a folder
 * that is known too, need not keep its descriptor: those not used for longest are let go when
 * there are too many. What is found again must be the same file by device, number and birth.
 *
 * A walk towards the root is a loop, never recursion, and ends, because nobody becomes the parent
 * of its own ancestor (reachable): host and guest may rename folders under each other's hands. */
#include "share/share_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"

#define HASH_FIRST 1024u

struct fd_name fd_name(int fd)
{
	struct fd_name n;

	snprintf(n.text, sizeof n.text, "%d", fd);
	return n;
}

/* --- descriptors --- */

/* One name is one step, so that it leads nowhere else; the kernel is told so all the same. */
static int open_step(int dir, const char *name)
{
	const struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
	};
	long fd = syscall(SYS_openat2, dir, name, &how, sizeof how);

	if (fd < 0 && errno == ENOSYS) /* Linux before 5.6 */
		fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : (int)fd;
}

int node_stat(int fd, struct statx *st)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME, st) <
			       0
		       ? -errno
		       : 0;
}

static uint64_t born_ns(const struct statx *st)
{
	if (!(st->stx_mask & STATX_BTIME))
		return 0;
	return (uint64_t)st->stx_btime.tv_sec * 1000000000u + st->stx_btime.tv_nsec;
}

static uint64_t device(const struct statx *st)
{
	return (uint64_t)st->stx_dev_major << 32 | st->stx_dev_minor;
}

static bool is_same(const struct node *n, const struct statx *st)
{
	return n->ino == st->stx_ino && n->dev == device(st) && n->born_ns == born_ns(st) &&
	       n->type == (st->stx_mode & S_IFMT);
}

/* --- those that can be let go, newest first --- */

static void unqueue(struct node_table *t, struct node *n)
{
	if (!n->newer && t->newest != n)
		return; /* it is not in it */
	*(n->newer ? &n->newer->older : &t->newest) = n->older;
	*(n->older ? &n->older->newer : &t->oldest) = n->newer;
	n->newer = n->older = NULL;
	t->queued--;
}

static void enqueue(struct node_table *t, struct node *n)
{
	unqueue(t, n);
	if (n->fd < 0 || !n->name)
		return;
	n->older = t->newest;
	*(t->newest ? &t->newest->newer : &t->oldest) = n;
	t->newest = n;
	t->queued++;
}

static void let_go(struct share *s, struct node *n)
{
	unqueue(&s->nodes, n);
	if (n->fd < 0)
		return;
	close(n->fd);
	n->fd = -1;
	s->fds--;
}

int share_room_for_fd(struct share *s)
{
	if (s->fds < s->fds_max)
		return 0;
	/* The newest are in use. */
	if (s->nodes.queued <= NODES_KEPT)
		return -ENFILE;
	let_go(s, s->nodes.oldest);
	return 0;
}

static int find_again(struct share *s, struct node *n)
{
	struct statx st;
	int r = share_room_for_fd(s), fd;

	if (r < 0)
		return r;
	fd = open_step(n->parent->fd, n->name);
	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : fd;
	r = node_stat(fd, &st);
	if (r == 0 && !is_same(n, &st))
		r = -ESTALE;
	if (r < 0) {
		close(fd);
		return r;
	}
	n->fd = fd;
	s->fds++;
	enqueue(&s->nodes, n);
	return 0;
}

int node_fd(struct share *s, struct node *n)
{
	struct node *at = n;

	n->below = NULL;
	for (; at->fd < 0; at = at->parent) {
		if (!at->name)
			return -ESTALE;
		at->parent->below = at;
	}
	enqueue(&s->nodes, at);
	for (at = at->below; at; at = at->below) {
		int r = find_again(s, at);

		if (r < 0)
			return r;
	}
	return n->fd;
}

/* --- the table --- */

static struct node **bucket(struct node_table *t, uint64_t dev, uint64_t ino)
{
	uint64_t h = (ino ^ dev * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xff51afd7ed558ccd);

	return &t->hash[h >> 32 & (t->hash_size - 1)];
}

static struct node *find(struct node_table *t, const struct statx *st)
{
	struct node *n = *bucket(t, device(st), st->stx_ino);

	while (n && !is_same(n, st))
		n = n->hash_next;
	return n;
}

static void unhash(struct node_table *t, struct node *n)
{
	struct node **p = bucket(t, n->dev, n->ino);

	while (*p != n)
		p = &(*p)->hash_next;
	*p = n->hash_next;
}

static int grow_hash(struct node_table *t)
{
	uint32_t size = t->hash_size ? t->hash_size * 2 : HASH_FIRST;
	struct node **old = t->hash, **hash = calloc(size, sizeof *hash);
	uint32_t old_size = t->hash_size;

	if (!hash)
		return -ENOMEM;
	t->hash = hash;
	t->hash_size = size;
	for (uint32_t i = 0; i < old_size; i++)
		for (struct node *n = old[i], *next; n; n = next) {
			struct node **p = bucket(t, n->dev, n->ino);

			next = n->hash_next;
			n->hash_next = *p;
			*p = n;
		}
	free(old);
	return 0;
}

static int grow_slots(struct node_table *t)
{
	uint32_t max = t->slots_max ? t->slots_max * 2 : HASH_FIRST;
	struct node **slot = realloc(t->slot, max * sizeof *slot);
	uint32_t *uses, *unused;

	if (!slot)
		return -ENOMEM;
	t->slot = slot;
	uses = realloc(t->uses, max * sizeof *uses);
	if (!uses)
		return -ENOMEM;
	t->uses = uses;
	unused = realloc(t->unused, max * sizeof *unused);
	if (!unused)
		return -ENOMEM;
	t->unused = unused;
	t->slots_max = max;
	return 0;
}

static int take_slot(struct node_table *t, struct node *n)
{
	uint32_t i;
	int r;

	if (t->nodes >= SHARE_NODES_MAX)
		return -ENFILE;
	if (t->nodes >= t->hash_size && (r = grow_hash(t)) < 0)
		return r;
	if (t->unused_n) {
		i = t->unused[--t->unused_n];
	} else {
		if (t->slots == t->slots_max && (r = grow_slots(t)) < 0)
			return r;
		i = t->slots++;
		t->uses[i] = 0;
	}
	t->slot[i] = n;
	n->id = i | (uint64_t)t->uses[i]++ << 32;
	t->nodes++;
	return 0;
}

static void free_one(struct share *s, struct node *n)
{
	struct node_table *t = &s->nodes;
	uint32_t i = (uint32_t)n->id;

	let_go(s, n);
	unhash(t, n);
	t->slot[i] = NULL;
	t->unused[t->unused_n++] = i;
	t->nodes--;
	free(n->name);
	free(n);
}

/* Nobody knows it any more: it goes, and then perhaps the folders that were kept for it. */
static void free_unused(struct share *s, struct node *n)
{
	while (n && n != s->root && !n->lookups && !n->refs) {
		struct node *parent = n->parent;

		free_one(s, n);
		if (parent)
			parent->refs--;
		n = parent;
	}
}

struct node *node_get(struct share *s, uint64_t id)
{
	uint32_t i = (uint32_t)id;
	struct node *n = i < s->nodes.slots ? s->nodes.slot[i] : NULL;

	return n && n->id == id && (n->lookups || n == s->root) ? n : NULL;
}

void node_forget(struct share *s, struct node *n, uint64_t lookups)
{
	if (n == s->root)
		return;
	n->lookups -= min_u64(n->lookups, lookups);
	free_unused(s, n);
}

/* --- names --- */

static void set_name(struct share *s, struct node *n, struct node *dir, char *name)
{
	struct node *old = n->parent;

	free(n->name);
	n->name = name;
	n->parent = name ? dir : NULL;
	if (n->parent)
		dir->refs++;
	if (old && --old->refs == 0)
		free_unused(s, old);
	enqueue(&s->nodes, n);
}

/* Whether n may stand below dir: not when dir stands below n. */
static bool reachable(const struct node *n, const struct node *dir)
{
	if (n->type != S_IFDIR)
		return true;
	while (dir && dir != n)
		dir = dir->parent;
	return !dir;
}

void node_renamed(struct share *s, struct node *n, struct node *dir, const char *name)
{
	char *copy;

	if (n == s->root || (n->parent == dir && n->name && !strcmp(n->name, name)))
		return;
	copy = reachable(n, dir) ? strdup(name) : NULL;
	/* One without a name keeps its descriptor, which it must have. */
	if (copy || n->fd >= 0)
		set_name(s, n, dir, copy);
}

void node_unnamed(struct share *s, struct node *n, struct node *dir, const char *name)
{
	if (n->fd >= 0 && n->parent == dir && n->name && !strcmp(n->name, name))
		set_name(s, n, NULL, NULL);
}

/* --- what is found --- */

static int add(struct share *s, int fd, const struct statx *st, struct node **out)
{
	struct node_table *t = &s->nodes;
	struct node *n = calloc(1, sizeof *n), **p;
	int r;

	if (!n)
		return -ENOMEM;
	n->dev = device(st);
	n->ino = st->stx_ino;
	n->born_ns = born_ns(st);
	n->type = st->stx_mode & S_IFMT;
	n->fd = fd;
	r = take_slot(t, n);
	if (r < 0) {
		free(n);
		return r;
	}
	p = bucket(t, n->dev, n->ino);
	n->hash_next = *p;
	*p = n;
	s->fds++;
	*out = n;
	return 0;
}

/* fd, of a new file or of one that has none, is taken over, or closed. */
static int take(struct share *s, struct node *dir, const char *name, int fd, struct node **out,
		struct statx *st)
{
	struct node *n;
	int r = node_stat(fd, st);

	if (r == 0 && (n = find(&s->nodes, st))) {
		if (n->fd < 0) {
			n->fd = fd;
			s->fds++;
		} else {
			close(fd);
		}
	} else if (r == 0) {
		r = add(s, fd, st, &n);
	}
	if (r < 0) {
		close(fd);
		return r;
	}
	if (name)
		node_renamed(s, n, dir, name);
	enqueue(&s->nodes, n);
	*out = n;
	return 0;
}

int node_lookup(struct share *s, struct node *dir, const char *name, bool count, struct node **out,
		struct statx *st)
{
	int at = node_fd(s, dir), fd, r;
	struct node *n;

	if (at < 0)
		return at;
	if (statx(at, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME,
		  st) < 0)
		return -errno;
	n = find(&s->nodes, st);
	if (n) {
		node_renamed(s, n, dir, name);
	} else {
		r = share_room_for_fd(s);
		if (r < 0)
			return r;
		fd = open_step(at, name);
		if (fd < 0)
			return fd;
		r = take(s, dir, name, fd, &n, st);
		if (r < 0)
			return r;
	}
	n->lookups += count;
	*out = n;
	return 0;
}

int node_of_fd(struct share *s, struct node *dir, const char *name, int fd, struct node **out,
	       struct statx *st)
{
	int r = share_room_for_fd(s), path;

	if (r < 0)
		return r;
	path = openat(s->proc, fd_name(fd).text, O_PATH | O_CLOEXEC);
	if (path < 0)
		return -errno;
	r = take(s, dir, name, path, out, st);
	if (r == 0)
		(*out)->lookups++;
	return r;
}

struct node *node_known(struct share *s, struct node *dir, const char *name)
{
	int at = node_fd(s, dir);
	struct statx st;
	struct node *n;

	if (at < 0 || statx(at, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
			    STATX_BASIC_STATS | STATX_BTIME, &st) < 0)
		return NULL;
	n = find(&s->nodes, &st);
	if (n && n->fd < 0) /* by this name it is found for sure */
		node_renamed(s, n, dir, name);
	if (!n)
		return NULL;
	return node_fd(s, n) < 0 ? NULL : n;
}

/* --- life --- */

int nodes_init(struct share *s, int dir)
{
	struct node_table *t = &s->nodes;
	struct statx st;
	int r = node_stat(dir, &st);

	if (r == 0 && !S_ISDIR(st.stx_mode))
		r = -ENOTDIR;
	if (r == 0)
		r = grow_slots(t);
	if (r < 0) {
		close(dir);
		return r;
	}
	t->slot[0] = NULL; /* no file has number 0 */
	t->slots = FUSE_ROOT_ID;
	r = grow_hash(t);
	if (r == 0)
		r = add(s, dir, &st, &s->root);
	if (r < 0)
		close(dir);
	return r;
}

static void drop(struct share *s, struct node *n)
{
	if (n->fd >= 0) {
		close(n->fd);
		s->fds--;
	}
	free(n->name);
	free(n);
}

void nodes_reset(struct share *s)
{
	struct node_table *t = &s->nodes;

	for (uint32_t i = 0; i < t->slots; i++) {
		if (!t->slot[i] || t->slot[i] == s->root)
			continue;
		drop(s, t->slot[i]);
		t->slot[i] = NULL;
		t->unused[t->unused_n++] = i;
		t->nodes--;
	}
	memset(t->hash, 0, t->hash_size * sizeof *t->hash);
	*bucket(t, s->root->dev, s->root->ino) = s->root;
	s->root->hash_next = NULL;
	s->root->refs = 0;
	s->root->lookups = 0;
	t->newest = t->oldest = NULL;
	t->queued = 0;
}

void nodes_done(struct share *s)
{
	struct node_table *t = &s->nodes;

	if (s->root) {
		nodes_reset(s);
		drop(s, s->root);
	}
	free(t->slot);
	free(t->uses);
	free(t->unused);
	free(t->hash);
	*t = (struct node_table){0};
	s->root = NULL;
}
