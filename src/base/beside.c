#include "base/beside.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int find_beside(const char *name, char *to, size_t len, struct err *e)
{
	static const char *const places[] = {".", "../share/holon", "../scripts"};
	char exe[PATH_MAX / 2];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
	char *slash;

	exe[n < 0 ? 0 : n] = 0;
	slash = strrchr(exe, '/');
	if (slash)
		*slash = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(to, len, "%s/%s/%s", exe, places[i], name);
		if (access(to, X_OK) == 0)
			return 0;
	}
	snprintf(to, len, "%s/%s", HOLON_SCRIPTS, name);
	if (access(to, X_OK) == 0)
		return 0;
	return err_set(e, ENOENT, "'%s' is not beside the program (%s)", name, exe);
}
