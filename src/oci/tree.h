/* tree: what the layers of an image make together: names, what they lead to, and where the bytes
 * of files are. It is in memory only: nothing of an image appears on the host's file system, so
 * nothing in it can lead out. Layers come from the lowest up (OCI image spec, "layer"): whiteouts
 * take away what lower layers have, hard links share an inode, parents that are symbolic links
 * are followed inside. One thread. */
#pragma once

#include <stdbool.h>

#include "oci/tar.h"

#define TREE_NODES_MAX (1u << 20)
#define TREE_DEPTH_MAX 512u

struct tree_inode {
	uint32_t mode; /* as in struct stat, type included */
	uint32_t uid, gid;
	int64_t mtime;
	uint32_t dev_major, dev_minor;
	uint32_t links; /* names that lead here; of a directory 0 */
	unsigned layer; /* in whose file the bytes are */
	uint64_t size, at;
	char *target;    /* of a symbolic link */
	uint8_t *xattrs; /* owned: name, 0, u32 length, value; again */
	uint32_t xattrs_len;
	uint32_t number; /* the writer's own; 0 at first */
};

struct tree_node {
	char *name;
	unsigned layer, depth; /* layer: the last that named it */
	struct tree_inode *inode;
	struct tree_node *parent, *child, *next,
		**link; /* child: the first; next: of the parent's */
	struct tree_node *hash_next;
};

struct tree;
WARN_UNUSED int tree_new(struct tree **out, struct err *e);
void tree_free(struct tree *t); /* accepts NULL */
struct tree_node *tree_root(struct tree *t);
unsigned tree_count(const struct tree *t);

/* Puts a layer's entry over what is there. */
WARN_UNUSED int tree_apply(struct tree *t, unsigned layer, const struct tar_entry *x,
			   struct err *e);
/* By a path, the last component of which is not followed; NULL: there is none. */
struct tree_node *tree_find(struct tree *t, const char *path);
