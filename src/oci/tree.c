#include "oci/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUCKETS          (1u << 16)
#define LINKS_MAX        40u /* symbolic links on a way, as Linux has it */
#define NAME_LEN_MAX     255u
#define XATTRS_BYTES_MAX KIB(64)
#define HARD_LINKS_MAX   60000u

struct tree {
	struct tree_node *root, *bucket[BUCKETS];
	unsigned count;
};

static unsigned hash(const struct tree_node *parent, const char *name, size_t len)
{
	uint64_t h = (uint64_t)(uintptr_t)parent * 0x9e3779b97f4a7c15u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)name[i]) * 0x100000001b3u;
	return (unsigned)(h >> 40) % BUCKETS;
}

static struct tree_node *find_child(struct tree *t, const struct tree_node *parent,
				    const char *name, size_t len)
{
	struct tree_node *n = t->bucket[hash(parent, name, len)];

	while (n && (n->parent != parent || strncmp(n->name, name, len) != 0 || n->name[len]))
		n = n->hash_next;
	return n;
}

static void inode_unref(struct tree_inode *i)
{
	if (!i || (i->links && --i->links))
		return;
	free(i->target);
	free(i->xattrs);
	free(i);
}

/* --- nodes --- */

static int node_new(struct tree *t, struct tree_node *parent, const char *name, size_t len,
		    struct tree_node **out, struct err *e)
{
	struct tree_node *n;
	unsigned h;

	if (len > NAME_LEN_MAX)
		return err_set(e, ENAMETOOLONG, "a name in the image is longer than 255 bytes");
	if (t->count == TREE_NODES_MAX)
		return err_set(e, E2BIG, "the image has more than %u files", TREE_NODES_MAX);
	if (parent && parent->depth == TREE_DEPTH_MAX)
		return err_set(e, E2BIG, "the image has directories deeper than %u",
			       TREE_DEPTH_MAX);
	n = calloc(1, sizeof *n);
	if (!n || !(n->name = strndup(name, len))) {
		free(n);
		return err_set(e, ENOMEM, "out of memory");
	}
	t->count++;
	*out = n;
	n->parent = parent;
	if (!parent)
		return 0;
	n->depth = parent->depth + 1;
	n->next = parent->child;
	if (n->next)
		n->next->link = &n->next;
	n->link = &parent->child;
	parent->child = n;
	h = hash(parent, name, len);
	n->hash_next = t->bucket[h];
	t->bucket[h] = n;
	return 0;
}

static void node_remove(struct tree *t, struct tree_node *n)
{
	struct tree_node **p;

	while (n->child)
		node_remove(t, n->child);
	if (n->parent) {
		p = &t->bucket[hash(n->parent, n->name, strlen(n->name))];
		while (*p != n)
			p = &(*p)->hash_next;
		*p = n->hash_next;
		*n->link = n->next;
		if (n->next)
			n->next->link = n->link;
	}
	inode_unref(n->inode);
	free(n->name);
	free(n);
	t->count--;
}

/* Takes away what layers below have there. */
static void prune(struct tree *t, struct tree_node *n, unsigned layer)
{
	for (struct tree_node *c = n->child, *next; c; c = next) {
		next = c->next;
		prune(t, c, layer);
	}
	if (n->layer < layer && !n->child && n->parent)
		node_remove(t, n);
}

static int new_directory(struct tree_node *n, unsigned layer, struct err *e)
{
	n->inode = calloc(1, sizeof *n->inode);
	if (!n->inode)
		return err_set(e, ENOMEM, "out of memory");
	n->inode->mode = S_IFDIR | 0755;
	n->layer = layer;
	return 0;
}

int tree_new(struct tree **out, struct err *e)
{
	struct tree *t = calloc(1, sizeof *t);
	int r;

	if (!t)
		return err_set(e, ENOMEM, "out of memory");
	if ((r = node_new(t, NULL, "", 0, &t->root, e)) == 0)
		r = new_directory(t->root, 0, e);
	if (r < 0)
		tree_free(t);
	else
		*out = t;
	return r;
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	if (t->root)
		node_remove(t, t->root);
	free(t);
}

struct tree_node *tree_root(struct tree *t)
{
	return t->root;
}

unsigned tree_count(const struct tree *t)
{
	return t->count;
}

/* --- ways --- */

struct way {
	struct tree *t;
	unsigned layer;
	bool make;      /* directories that are missing */
	unsigned links; /* followed so far */
	struct err *e;
};

static int walk(struct way *w, struct tree_node *from, const char *path, size_t len,
		struct tree_node **out);

/* One component down. */
static int step(struct way *w, struct tree_node **at, const char *name, size_t len)
{
	struct tree_node *n;
	int r;

	if (len == 0 || (len == 1 && *name == '.'))
		return 0;
	if (len == 2 && !memcmp(name, "..", 2)) { /* above the root is the root */
		if ((*at)->parent)
			*at = (*at)->parent;
		return 0;
	}
	n = find_child(w->t, *at, name, len);
	if (n && S_ISLNK(n->inode->mode)) {
		const char *target = n->inode->target;

		if (++w->links > LINKS_MAX)
			return err_set(w->e, ELOOP,
				       "a path in the image has too many symbolic links");
		return walk(w, *target == '/' ? w->t->root : *at, target, strlen(target), at);
	}
	if (n && !S_ISDIR(n->inode->mode)) {
		if (!w->make)
			return err_set(w->e, ENOTDIR, "'%s' in the image is no directory", n->name);
		node_remove(w->t, n);
		n = NULL;
	}
	if (!n) {
		if (!w->make)
			return err_set(w->e, ENOENT, "'%.*s' is not in the image", (int)len, name);
		if ((r = node_new(w->t, *at, name, len, &n, w->e)) < 0)
			return r;
		if ((r = new_directory(n, w->layer, w->e)) < 0) {
			node_remove(w->t, n);
			return r;
		}
	}
	*at = n;
	return 0;
}

static int walk(struct way *w, struct tree_node *from, const char *path, size_t len,
		struct tree_node **out)
{
	struct tree_node *at = from;

	while (len) {
		const char *slash = memchr(path, '/', len);
		size_t part = slash ? (size_t)(slash - path) : len;
		int r = step(w, &at, path, part);

		if (r < 0)
			return r;
		part += slash != NULL;
		path += part;
		len -= part;
	}
	*out = at;
	return 0;
}

/* Splits off the last component that says something; false: there is none, it is the root. */
static bool last(const char *path, size_t *parents, const char **name, size_t *len)
{
	size_t end = strlen(path), at;

	for (;;) {
		while (end && path[end - 1] == '/')
			end--;
		at = end;
		while (at && path[at - 1] != '/')
			at--;
		if (end - at != 1 || path[at] != '.')
			break;
		end = at;
	}
	*parents = at;
	*name = path + at;
	*len = end - at;
	return *len != 0;
}

/* What a layer's own path says is not to go up. */
static bool goes_up(const char *path)
{
	for (const char *p = path; (p = strstr(p, "..")); p += 2)
		if ((p == path || p[-1] == '/') && (p[2] == '/' || !p[2]))
			return true;
	return false;
}

struct tree_node *tree_find(struct tree *t, const char *path)
{
	struct err ignored;
	struct way w = {.t = t, .e = &ignored};
	struct tree_node *parent;
	const char *name;
	size_t parents, len;

	if (!last(path, &parents, &name, &len))
		return t->root;
	if (goes_up(path) || walk(&w, t->root, path, parents, &parent) < 0)
		return NULL;
	return find_child(t, parent, name, len);
}

/* --- entries --- */

static int keep_xattrs(struct tree_inode *i, const struct tar_entry *x, struct err *e)
{
	size_t all = 0;
	uint8_t *p;

	for (unsigned n = 0; n < x->xattrs; n++)
		all += strlen(x->xattr[n].name) + 1 + 4 + x->xattr[n].len;
	if (all > XATTRS_BYTES_MAX)
		return err_set(e, E2BIG, "'%s' in the image has too many attributes", x->path);
	if (!all)
		return 0;
	p = i->xattrs = malloc(all);
	if (!p)
		return err_set(e, ENOMEM, "out of memory");
	i->xattrs_len = (uint32_t)all;
	for (unsigned n = 0; n < x->xattrs; n++) {
		size_t name = strlen(x->xattr[n].name) + 1;

		memcpy(p, x->xattr[n].name, name);
		store_le(p + name, x->xattr[n].len, 4);
		memcpy(p + name + 4, x->xattr[n].value, x->xattr[n].len);
		p += name + 4 + x->xattr[n].len;
	}
	return 0;
}

static int inode_new(struct tree_inode **out, unsigned layer, const struct tar_entry *x,
		     struct err *e)
{
	static const uint32_t types[] = {
		[TAR_FILE] = S_IFREG,  [TAR_SYMLINK] = S_IFLNK, [TAR_CHAR] = S_IFCHR,
		[TAR_BLOCK] = S_IFBLK, [TAR_DIR] = S_IFDIR,     [TAR_FIFO] = S_IFIFO};
	struct tree_inode *i = calloc(1, sizeof *i);
	int r;

	if (!i)
		return err_set(e, ENOMEM, "out of memory");
	*i = (struct tree_inode){.mode = types[x->type] | x->mode,
				 .uid = x->uid,
				 .gid = x->gid,
				 .mtime = x->mtime,
				 .dev_major = x->dev_major,
				 .dev_minor = x->dev_minor,
				 .layer = layer,
				 .size = x->size,
				 .at = x->at};
	r = keep_xattrs(i, x, e);
	if (r == 0 && x->type == TAR_SYMLINK && !(i->target = strdup(x->link)))
		r = err_set(e, ENOMEM, "out of memory");
	if (r == 0 && x->type == TAR_SYMLINK && (!*x->link || strlen(x->link) >= TAR_PATH_MAX - 1))
		r = err_set(e, EBADMSG, "the symbolic link '%s' in the image leads nowhere",
			    x->path);
	if (r < 0)
		inode_unref(i);
	else
		*out = i;
	return r;
}

static int link_target(struct tree *t, const struct tar_entry *x, struct tree_inode **out,
		       struct err *e)
{
	struct tree_node *n = tree_find(t, x->link);

	if (!n || S_ISDIR(n->inode->mode))
		return err_set(e, EBADMSG, "the hard link '%s' in the image leads to no file",
			       x->path);
	if (n->inode->links >= HARD_LINKS_MAX)
		return err_set(e, EMLINK, "'%s' in the image has too many links", x->link);
	*out = n->inode;
	return 0;
}

static int put(struct tree *t, unsigned layer, struct tree_node *parent, const char *name,
	       size_t len, const struct tar_entry *x, struct err *e)
{
	struct tree_node *n = find_child(t, parent, name, len);
	struct tree_inode *i;
	int r = x->type == TAR_HARD_LINK ? link_target(t, x, &i, e) : inode_new(&i, layer, x, e);

	if (r < 0)
		return r;
	if (n && n->inode == i) /* a link to itself */
		return 0;
	if (i->mode && !S_ISDIR(i->mode))
		i->links++; /* held while what was there goes */
	if (n && !(S_ISDIR(i->mode) && S_ISDIR(n->inode->mode))) {
		node_remove(t, n);
		n = NULL;
	}
	if (!n && (r = node_new(t, parent, name, len, &n, e)) < 0) {
		inode_unref(i);
		return r;
	}
	inode_unref(n->inode);
	n->inode = i;
	n->layer = layer;
	return 0;
}

static void whiteout(struct tree *t, unsigned layer, struct tree_node *parent, const char *name,
		     size_t len)
{
	struct tree_node *n = find_child(t, parent, name, len);

	if (n)
		prune(t, n, layer);
}

static void opaque(struct tree *t, unsigned layer, struct tree_node *parent)
{
	for (struct tree_node *c = parent->child, *next; c; c = next) {
		next = c->next;
		prune(t, c, layer);
	}
}

int tree_apply(struct tree *t, unsigned layer, const struct tar_entry *x, struct err *e)
{
	struct way w = {.t = t, .layer = layer, .make = true, .e = e};
	struct tree_node *parent;
	struct tree_inode *i;
	const char *name;
	size_t parents, len;
	int r;

	if (goes_up(x->path))
		return err_set(e, EBADMSG, "'%s' leads out of the image", x->path);
	if (!last(x->path, &parents, &name, &len)) {
		if (x->type != TAR_DIR)
			return err_set(e, EBADMSG, "the image's root is no directory");
		if ((r = inode_new(&i, layer, x, e)) < 0)
			return r;
		inode_unref(t->root->inode);
		t->root->inode = i;
		return 0;
	}
	if ((r = walk(&w, t->root, x->path, parents, &parent)) < 0)
		return r;
	if (len == 12 && !memcmp(name, ".wh..wh..opq", 12))
		opaque(t, layer, parent);
	else if (len > 8 && !memcmp(name, ".wh..wh.", 8))
		return 0; /* AUFS's own */
	else if (len > 4 && !memcmp(name, ".wh.", 4))
		whiteout(t, layer, parent, name + 4, len - 4);
	else
		return put(t, layer, parent, name, len, x, e);
	return 0;
}
