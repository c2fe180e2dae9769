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
/* The directory of our own group in the hierarchy of version 1 that has the controller, or for "" in
 * that of version 2; mount: the length of the path of that hierarchy's top. */
bool cgroup_own_dir(const char *proc, const char *controller, char to[CGROUP_PATH_MAX],
		    size_t *mount);
