/* confine: takes from this process, for good, all that a VM does not need after its set-up, so that a
 * guest that breaks out of its devices finds nothing to do (docs/threat-model.md). In layers, each of
 * which stands without the others, and is left out where the host does not have it:
 *
 *   privileges   no new ones, no capabilities, no core files, no tracing, a keyring of its own
 *   namespaces   user, mount, IPC, UTS, and network unless the VM uses the host's: the root directory
 *                holds nothing but what the profile names (namespaces.c)
 *   landlock     the same once more for files, TCP, signals and abstract sockets (landlock.c)
 *   seccomp      each thread may make the system calls of its role, and no others (calls.c, filter.c).
 *                One that it may not make ends the process, with a word about it (violation.c)
 *
 * Called once, on the main thread, when all is open and no other thread has been started. */
#pragma once

#include <stdbool.h>

#include "base/bits.h"
#include "base/err.h"

enum confine_access {                  /* each more than those before it */
		      CONFINE_CONNECT, /* only to sockets in that directory */
		      CONFINE_READ,    /* a file, or all below a directory */
		      CONFINE_WRITE,   /* and write to what is there, as devices want it */
		      CONFINE_MANAGE,  /* and make, rename and remove files and sockets in it */
		      CONFINE_TREE, /* and directories, links and nodes, at any depth: a folder that is shared */
};

enum confine_layer {
	CONFINE_PRIVILEGES = 1,
	CONFINE_NAMESPACES = 2,
	CONFINE_LANDLOCK = 4,
	CONFINE_SECCOMP = 8,
	CONFINE_ALL = 15,
};

#define CONFINE_PATHS_MAX 192u

struct confine_path {
	char *path; /* absolute */
	enum confine_access access;
};

struct confine_profile {
	struct confine_path path[CONFINE_PATHS_MAX];
	unsigned paths;
	bool disk_servers;    /* disks on the network are among them */
	bool network;         /* it uses the host's: user-mode NAT, disks over TCP */
	bool acts_for_others; /* root, with shares whose files belong to whom the guest says */
	int violation_fd;     /* where a forbidden call is noted, besides stderr; -1: nowhere */
};

/* Notes a path (NULL: none) as it will be opened, relative ones from the current directory; what is not
 * there is left out. -E2BIG: too many. */
WARN_UNUSED int confine_allow(struct confine_profile *p, const char *path,
			      enum confine_access access, struct err *e);
void confine_profile_done(struct confine_profile *p);

struct confine_state {
	unsigned layers;   /* that hold */
	char missing[256]; /* the others, and why; for people */
};

/* strict: an error rather than a layer less. */
WARN_UNUSED int confine_enter(struct confine_profile *p, bool strict, struct confine_state *s,
			      struct err *e);
