/* Where control groups can be made: /proc/self/cgroup says where we are in each hierarchy, and
 * /proc/self/mountinfo where those are mounted.
 *
 * Version 1: below our own group. Version 2 knows no group with processes beside children that have
 * controllers, so: in the nearest group above us that gives controllers to its children (a slice of
 * systemd's, for those who may write there), else in our own when we are alone in it, as in a unit
 * with Delegate=yes. */
#include "resource/cgroup_priv.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"

static const char *const names[][2] = {{"cpu", NULL}, {"memory", NULL}, {"blkio", "io"}};

/* Whether word is one of text's, which are separated by sep. */
static bool has_word(const char *text, char sep, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = text; (at = strstr(at, word)); at += len)
		if ((at == text || at[-1] == sep) &&
		    (!at[len] || at[len] == sep || at[len] == '\n'))
			return true;
	return false;
}

/* The line of proc/cgroup for a controller of version 1, or of version 2 for "": its path. */
static bool own_path(const char *proc, const char *controller, char to[CGROUP_PATH_MAX])
{
	char path[CGROUP_PATH_MAX], line[2 * CGROUP_PATH_MAX];
	AUTO_FCLOSE FILE *f = NULL;

	snprintf(path, sizeof path, "%s/cgroup", proc);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f)) {
		char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;

		if (!at)
			continue;
		*at++ = 0;
		at[strcspn(at, "\n")] = 0;
		if (*controller ? !has_word(list + 1, ',', controller) : list[1] != 0)
			continue;
		return snprintf(to, CGROUP_PATH_MAX, "%s", at) < (int)CGROUP_PATH_MAX;
	}
	return false;
}

/* Where a path of the hierarchy is, by its line of mountinfo; mount: the length of the mount point.
 * False: it is the line of something else. */
static bool mounted_at(char *line, const char *controller, const char *path,
		       char to[CGROUP_PATH_MAX], size_t *mount)
{
	char root[CGROUP_PATH_MAX], point[CGROUP_PATH_MAX], type[16], options[256];
	const char *rest = strstr(line, " - ");
	size_t len;

	if (!rest || sscanf(line, "%*s %*s %*s %511s %511s", root, point) != 2 ||
	    sscanf(rest, " - %15s %*s %255s", type, options) != 2 ||
	    strcmp(type, *controller ? "cgroup" : "cgroup2") != 0 ||
	    (*controller && !has_word(options, ',', controller)))
		return false;
	/* In a container the mount may begin below the hierarchy's root. */
	len = strcmp(root, "/") ? strlen(root) : 0;
	if (strncmp(path, root, len) != 0 || (path[len] && path[len] != '/'))
		len = strlen(path);
	if (!strcmp(path + len, "/"))
		len++;
	*mount = strlen(point);
	return snprintf(to, CGROUP_PATH_MAX, "%s%s", point, path + len) < (int)CGROUP_PATH_MAX;
}

bool cgroup_own_dir(const char *proc, const char *controller, char to[CGROUP_PATH_MAX],
		    size_t *mount)
{
	char path[CGROUP_PATH_MAX], own[CGROUP_PATH_MAX], line[4096];
	AUTO_FCLOSE FILE *f = NULL;

	snprintf(path, sizeof path, "%s/mountinfo", proc);
	f = fopen(path, "re");
	if (!f || !own_path(proc, controller, own))
		return false;
	while (fgets(line, sizeof line, f))
		if (mounted_at(line, controller, own, to, mount))
			return true;
	return false;
}

static unsigned listed(const char *dir, const char *file)
{
	char path[CGROUP_PATH_MAX + 32], line[256] = "";
	AUTO_FCLOSE FILE *f = NULL;
	unsigned bits = 0;

	snprintf(path, sizeof path, "%s/%s", dir, file);
	f = fopen(path, "re");
	if (!f || !fgets(line, sizeof line, f))
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (has_word(line, ' ', names[i][1] ? names[i][1] : names[i][0]))
			bits |= 1u << i;
	return bits;
}

/* The nearest group from dir up that gives its children most of what is wanted. */
static unsigned find_v2(struct cgroup_place *to, unsigned want, const char *proc)
{
	char dir[CGROUP_PATH_MAX];
	unsigned best = 0;
	size_t mount;

	if (!cgroup_own_dir(proc, "", dir, &mount))
		return 0;
	strcpy(to->parent, dir);
	best = listed(dir, "cgroup.controllers") & want;
	to->split = true;
	if (access(dir, W_OK) < 0)
		best = 0;
	for (;;) {
		unsigned has = listed(dir, "cgroup.subtree_control") & want;

		if ((has == best ? has && to->split : has > best) && access(dir, W_OK) == 0) {
			strcpy(to->parent, dir);
			to->split = false;
			best = has;
		}
		if (strlen(dir) <= mount)
			break;
		*strrchr(dir, '/') = 0;
	}
	to->v2 = true;
	to->has = best;
	return best;
}

unsigned cgroup_find(struct cgroup_place place[CGROUP_DIRS], unsigned want, const char *proc)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		struct cgroup_place *p = &place[n];
		size_t mount;

		*p = (struct cgroup_place){.has = 1u << i};
		if (!(want & 1u << i) || !cgroup_own_dir(proc, names[i][0], p->parent, &mount))
			continue;
		want &= ~(1u << i);
		n++;
	}
	if (want && n < CGROUP_DIRS && find_v2(&place[n], want, proc))
		n++;
	return n;
}
