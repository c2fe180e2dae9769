/* glibc's getpwnam wants its shared libraries at run time, which a static program in a foreign
 * system cannot have: only the files are read. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/guest.h"
#include "base/auto.h"

#define GROUPS_MAX 1024

static void fill(struct guest_user *u, const struct passwd *p)
{
	u->uid = p->pw_uid;
	u->gid = p->pw_gid;
	snprintf(u->name, sizeof u->name, "%s", p->pw_name);
	snprintf(u->home, sizeof u->home, "%s", *p->pw_dir ? p->pw_dir : "/");
	snprintf(u->shell, sizeof u->shell, "%s", *p->pw_shell ? p->pw_shell : "/bin/sh");
}

int guest_user_find(const char *who, struct guest_user *u, struct err *e)
{
	AUTO_FCLOSE FILE *f = fopen("/etc/passwd", "re");
	const char *name = who ? who : "root";
	char *end;
	unsigned long number = strtoul(name, &end, 10);
	bool numeric = *name && !*end;
	struct passwd *p;

	while (f && (p = fgetpwent(f)))
		if (numeric ? p->pw_uid == number : !strcmp(p->pw_name, name)) {
			fill(u, p);
			return 0;
		}
	if (!numeric && strcmp(name, "root") != 0)
		return err_set(e, EINVAL, "no user '%s' in /etc/passwd", name);
	*u = (struct guest_user){(uid_t)number, (gid_t)number, "", "/", "/bin/sh"};
	snprintf(u->name, sizeof u->name, "%s", name);
	return 0;
}

int guest_group_find(const char *which, gid_t *to, struct err *e)
{
	AUTO_FCLOSE FILE *f = fopen("/etc/group", "re");
	char *end;
	unsigned long number = strtoul(which, &end, 10);
	struct group *g;

	if (*which && !*end) {
		*to = (gid_t)number;
		return 0;
	}
	while (f && (g = fgetgrent(f)))
		if (!strcmp(g->gr_name, which)) {
			*to = g->gr_gid;
			return 0;
		}
	return err_set(e, EINVAL, "no group '%s' in /etc/group", which);
}

static size_t groups_of(const struct guest_user *u, gid_t *list)
{
	AUTO_FCLOSE FILE *f = fopen("/etc/group", "re");
	struct group *g;
	size_t n = 0;

	list[n++] = u->gid;
	while (f && n < GROUPS_MAX && (g = fgetgrent(f)))
		for (char **m = g->gr_mem; *m && g->gr_gid != u->gid; m++)
			if (!strcmp(*m, u->name)) {
				list[n++] = g->gr_gid;
				break;
			}
	return n;
}

int guest_user_become(const struct guest_user *u, struct err *e)
{
	gid_t list[GROUPS_MAX];

	if (geteuid() != 0) {
		if (u->uid == geteuid())
			return 0;
		return err_set(e, EPERM, "the agent does not run as root, and cannot become '%s'",
			       u->name);
	}
	if (setgroups(groups_of(u, list), list) < 0 || setresgid(u->gid, u->gid, u->gid) < 0 ||
	    setresuid(u->uid, u->uid, u->uid) < 0)
		return err_sys(e, errno, "become '%s'", u->name);
	return 0;
}
