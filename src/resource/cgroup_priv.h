/* cgroup_priv: where a VM's control groups can be (cgroup_find.c), for cgroup.c. */
#pragma once

#include "resource/cgroup.h"

struct cgroup_place {
	char parent[CGROUP_PATH_MAX]; /* the directory to make it in */
	unsigned has;                 /* controllers that it has there */
	bool v2;
	bool split; /* its controllers are to be switched on first, with nobody in it */
};

/* Returns how many places[0..CGROUP_DIRS) there are; no controller is in two of them. */
unsigned cgroup_find(struct cgroup_place place[CGROUP_DIRS], unsigned want, const char *proc);
/* "memory" and its like, of one bit. */
const char *cgroup_controller(unsigned bit);
