#include "base/runtime_dir.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder of ours that nobody else can write to. */
static bool is_ours(const char *path, mode_t forbidden)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
	       !(st.st_mode & forbidden);
}

static int make(const char *path, struct err *e)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_sys(e, errno, "make '%s'", path);
	if (!is_ours(path, 077))
		return err_set(e, EPERM, "'%s' is not a folder that only this user can enter",
			       path);
	return 0;
}

int runtime_dir(char *path, size_t max, struct err *e)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	char run[64], login[64];

	snprintf(login, sizeof login, "/run/user/%u", geteuid());
	/* Root's services have no login, and that of a login goes away with it. */
	snprintf(run, sizeof run, "%s", geteuid() ? login : "/run");
	if (xdg && *xdg == '/' && is_ours(xdg, 022) && (geteuid() || strcmp(xdg, login) != 0))
		snprintf(path, max, "%s/holon", xdg);
	else if (is_ours(run, 022))
		snprintf(path, max, "%s/holon", run);
	else
		snprintf(path, max, "/tmp/holon-%u", geteuid());
	return make(path, e);
}
