/* guest: the agent's own parts. It runs in the guest, as a static program of its own; a process
 * per connection. */
#pragma once

#include <sys/types.h>

#include "agent/wire.h"

struct guest_user {
	uid_t uid;
	gid_t gid;
	char name[64], home[256], shell[256];
};

/* By name or number; NULL: root. From /etc/passwd, without which there is root alone. */
WARN_UNUSED int guest_user_find(const char *who, struct guest_user *u, struct err *e);
/* A group by name or number, from /etc/group. */
WARN_UNUSED int guest_group_find(const char *which, gid_t *to, struct err *e);
/* This process becomes that user, with the groups of /etc/group, if it is root. */
WARN_UNUSED int guest_user_become(const struct guest_user *u, struct err *e);

/* Does what the client at the other end of fd asks for, and closes it. In a process of its own,
 * which may become another user and ends after this. */
void guest_serve(int fd);
/* An exec, after its HELLO. */
WARN_UNUSED int guest_exec(struct wire *w, struct err *e);

/* Is the first process of a VM that runs a container's image (agent/init.h); serve is what the
 * agent does otherwise, for a process of its own. */
_Noreturn void guest_init(void (*serve)(void));
/* Asks for addresses, and returns when there are some, or none are to be had. */
void guest_net_up(void);
