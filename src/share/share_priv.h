/* share_priv: what the files of the room share.
 *
 *   share.c   the table of requests: what each consists of; answers
 *   node.c    files that the guest knows: numbers, descriptors, finding again
 *   ids.c     owners, and acting for them
 *   names.c   requests about names in folders
 *   attr.c    requests about attributes
 *   file.c    open files
 *   dir.c     reading folders
 *   xattr.c   extended attributes */
#pragma once

#include <linux/fuse.h>
#include <pthread.h>
#include <sys/stat.h>

#include "share/share.h"

#define SHARE_BODY_MAX (KIB(64) + 1024) /* of a request but for data to write */
#define SHARE_BUF_LEN  KIB(64)
#define SHARE_VALID_S  1 /* how long the guest may believe a name or an attribute */

/* A file that the guest knows, or that is a folder on the way to one. */
struct node {
	uint64_t id;                /* slot, and above it how often that was used */
	uint64_t dev, ino, born_ns; /* with these it is the same file */
	mode_t type;                /* S_IFMT */
	int fd;                     /* O_PATH; -1: let go */
	uint64_t lookups;           /* what the guest will forget */
	uint32_t refs;              /* nodes whose parent it is */
	struct node *parent;        /* where it was found; name: as what. NULL: it cannot be */
	char *name;                 /* found again, and keeps its descriptor */
	struct node *hash_next, *newer, *older; /* the last two: only with fd and name */
	struct node *below;                     /* scratch of node_fd */
};

struct node_table {
	struct node **slot, **hash;
	uint32_t *uses, *unused; /* of slots: how often used; a stack of unused ones */
	uint32_t slots, slots_max, unused_n, hash_size, nodes;
	struct node *newest, *oldest; /* of those that can be let go */
	uint32_t queued;              /* how many these are */
};

struct handle { /* an open file or folder */
	uint64_t id;
	int fd;
};

struct handle_table {
	struct handle **slot;
	uint32_t slots, open, next; /* next: where to look for an unused one first */
	uint64_t made;
};

struct share {
	struct share_opts opts;
	int proc;           /* /proc/self/fd: the way from O_PATH to what can be read */
	bool squash, ready; /* ready: INIT came */
	uid_t uid;
	gid_t gid; /* ours */
	pthread_t thread;
	bool begun, own_cwd, setxattr_ext;
	struct node_table nodes;
	struct node *root;
	struct handle_table handles;
	unsigned fds, fds_max;
	struct share_counts counts;
	/* The request now being served; behind it zeros, for what older guests leave out. */
	uint8_t body[SHARE_BODY_MAX + sizeof(struct fuse_init_in)] __attribute__((aligned(8)));
	uint8_t buf[SHARE_BUF_LEN] __attribute__((aligned(8)));
	struct iovec in[SHARE_IOV_MAX], out[SHARE_IOV_MAX], cut[SHARE_IOV_MAX];
};

struct call { /* a request as its function sees it */
	struct fuse_in_header h;
	struct node *node;   /* of h.nodeid */
	const void *args;    /* of the size that the table says */
	const char *name[2]; /* as many as the table says */
	const uint8_t *rest; /* behind these */
	uint32_t rest_len;
	const struct iovec *data; /* to write */
	unsigned data_n;
	uint64_t data_len;
	const struct iovec *out; /* room behind the answer's header */
	unsigned out_n;
	uint64_t room;
};

/* Each: a negative errno, or the length of the answer behind its header. */
typedef int call_fn(struct share *s, struct call *c);
call_fn do_lookup, do_mknod, do_mkdir, do_symlink, do_link, do_unlink, do_rmdir, do_rename,
	do_rename2, do_readlink, do_forget, do_batch_forget, do_create, do_tmpfile;
call_fn do_getattr, do_setattr, do_statfs;
call_fn do_open, do_read, do_write, do_release, do_fsync, do_fallocate, do_lseek, do_copy_range,
	do_syncfs;
call_fn do_opendir, do_readdir, do_readdirplus;
call_fn do_setxattr, do_getxattr, do_listxattr, do_removexattr;

/* share.c */
int share_answer(struct call *c, const void *from, uint32_t len);
/* The pieces of from[0..n) behind the first skip bytes, no more than len bytes; returns their number. */
unsigned share_iov_cut(struct iovec *to, const struct iovec *from, unsigned n, uint64_t skip,
		       uint64_t len);

/* node.c */
WARN_UNUSED int nodes_init(struct share *s, int dir);
void nodes_reset(struct share *s); /* knows none but the root */
void nodes_done(struct share *s);
struct node *node_get(struct share *s, uint64_t id); /* NULL: the guest may not know it */
/* Its descriptor, found again if need be; -errno. Good until NODES_KEPT others were asked for. */
#define NODES_KEPT 8
WARN_UNUSED int node_fd(struct share *s, struct node *n);
/* The file called name in dir; what it is goes to st. The guest knows it once more, if count. */
WARN_UNUSED int node_lookup(struct share *s, struct node *dir, const char *name, bool count,
			    struct node **out, struct statx *st);
/* Of a file that is open: fd stays the caller's. */
WARN_UNUSED int node_of_fd(struct share *s, struct node *dir, const char *name, int fd,
			   struct node **out, struct statx *st);
void node_forget(struct share *s, struct node *n, uint64_t lookups);
/* If name in dir is a file that the guest knows: that, with its descriptor open. */
struct node *node_known(struct share *s, struct node *dir, const char *name);
void node_renamed(struct share *s, struct node *n, struct node *dir, const char *name);
void node_unnamed(struct share *s, struct node *n, struct node *dir, const char *name);
WARN_UNUSED int node_stat(int fd, struct statx *st);
/* One more descriptor will be open: 0, or -ENFILE. */
WARN_UNUSED int share_room_for_fd(struct share *s);
/* "N", the name of a descriptor in s->proc. */
struct fd_name {
	char text[12];
};
struct fd_name fd_name(int fd);

/* ids.c */
void ids_init(struct share *s);
int ids_begin(struct share *s);
uid_t ids_guest_uid(const struct share *s, uid_t host);
gid_t ids_guest_gid(const struct share *s, gid_t host);
/* -EPERM: nothing can belong to that one here. (uid_t)-1 stays. */
WARN_UNUSED int ids_host(const struct share *s, uid_t *uid, gid_t *gid);
/* What is made in between belongs to the caller. */
WARN_UNUSED int ids_become(struct share *s, const struct call *c);
void ids_return(struct share *s);

/* attr.c */
void attr_fill(const struct share *s, const struct statx *st, struct fuse_attr *a);
void attr_entry(const struct share *s, const struct node *dir, const struct node *n,
		const struct statx *st, struct fuse_entry_out *o);
/* Takes set-id bits away as a write of an unprivileged caller does. */
void attr_kill_ids(int fd);

/* file.c */
void handles_done(struct share *s);
struct handle *handle_get(struct share *s, uint64_t id);
WARN_UNUSED int handle_new(struct share *s, int fd, uint64_t *id); /* takes fd over if it can */
void handle_close(struct share *s, struct handle *h);
/* flags: the guest's; -errno. The descriptor is counted once handle_new took it. */
WARN_UNUSED int share_file_open(struct share *s, struct node *n, uint32_t flags);
int share_file_flags(const struct share *s, uint32_t flags);
