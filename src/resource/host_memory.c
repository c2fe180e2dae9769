#include "resource/host_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "resource/cgroup_priv.h"

/* Percent */
#define SHORT_AVAILABLE    15.0
#define CRITICAL_AVAILABLE 7.0
#define SHORT_WAITING      5.0
#define CRITICAL_WAITING   20.0
#define ROOM               1.5 /* times that, to leave a level */

static int open_in(const char *dir, const char *file)
{
	char path[CGROUP_PATH_MAX + 64];

	snprintf(path, sizeof path, "%s/%s", dir, file);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static bool read_all(int fd, char *to, size_t max)
{
	ssize_t n = fd < 0 ? -1 : pread(fd, to, max - 1, 0);

	if (n > 0)
		to[n] = 0;
	return n > 0;
}

/* The number behind name at the beginning of a line; 0: there is none. */
static uint64_t number_of(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (; text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (!strncmp(text, name, len))
			return strtoull(text + len, NULL, 10);
		if (!*text)
			break;
	}
	return 0;
}

static uint64_t limit_in(const char *dir, bool v2)
{
	AUTO_CLOSE int fd = open_in(dir, v2 ? "memory.max" : "memory.limit_in_bytes");
	char text[64];

	return read_all(fd, text, sizeof text) && *text != 'm' ? strtoull(text, NULL, 10) : 0;
}

/* The tightest limit from our own group up. */
static void find_group(struct host_memory *h, const char *proc)
{
	char self[CGROUP_PATH_MAX], dir[CGROUP_PATH_MAX], best[CGROUP_PATH_MAX] = "";
	size_t mount;
	bool v2 = false;

	snprintf(self, sizeof self, "%s/self", proc);
	if (!cgroup_own_dir(self, "memory", dir, &mount)) {
		v2 = true;
		if (!cgroup_own_dir(self, "", dir, &mount))
			return;
	}
	for (;; *strrchr(dir, '/') = 0) {
		uint64_t limit = limit_in(dir, v2);

		if (limit && limit < h->total && (!h->limit || limit < h->limit)) {
			h->limit = limit;
			strcpy(best, dir);
		}
		if (strlen(dir) <= mount)
			break;
	}
	if (!h->limit)
		return;
	h->usage = open_in(best, v2 ? "memory.current" : "memory.usage_in_bytes");
	h->stat = open_in(best, "memory.stat");
}

static void look_at_meminfo(struct host_memory *h)
{
	char text[4096];

	if (!read_all(h->meminfo, text, sizeof text))
		return;
	h->total = number_of(text, "MemTotal:") * 1024;
	h->available = number_of(text, "MemAvailable:") * 1024;
}

void host_memory_open(struct host_memory *h, const char *proc)
{
	*h = (struct host_memory){-1, -1, -1, -1};
	h->meminfo = open_in(proc, "meminfo");
	h->pressure = open_in(proc, "pressure/memory");
	look_at_meminfo(h);
	find_group(h, proc);
}

void host_memory_close(struct host_memory *h)
{
	int *fd[] = {&h->meminfo, &h->pressure, &h->usage, &h->stat};

	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		if (*fd[i] >= 0)
			close(*fd[i]);
		*fd[i] = -1;
	}
}

/* Caches of files are given up for the asking. */
static void look_at_group(struct host_memory *h)
{
	char usage[32], text[8192];
	uint64_t used, caches = 0;

	if (!h->limit || !read_all(h->usage, usage, sizeof usage))
		return;
	if (read_all(h->stat, text, sizeof text))
		caches = number_of(text, "inactive_file ") + number_of(text, "active_file ");
	used = strtoull(usage, NULL, 10);
	used -= min_u64(used, caches);
	h->total = h->limit;
	h->available = min_u64(h->available, h->limit - min_u64(h->limit, used));
}

static void look_at_pressure(struct host_memory *h)
{
	char text[256];

	h->waiting = 0;
	if (read_all(h->pressure, text, sizeof text))
		(void)!sscanf(text, "some avg10=%lf", &h->waiting);
}

/* Waiting alone says little where most is available: somebody else's group is at its limit. */
static enum host_level level_at(const struct host_memory *h, double room)
{
	double share = h->total ? 100.0 * (double)h->available / (double)h->total : 100;
	bool some = share < 3 * SHORT_AVAILABLE;

	if (share < CRITICAL_AVAILABLE * room || (some && h->waiting * room > CRITICAL_WAITING))
		return HOST_CRITICAL;
	if (share < SHORT_AVAILABLE * room || (some && h->waiting * room > SHORT_WAITING))
		return HOST_SHORT;
	return HOST_CALM;
}

enum host_level host_memory_look(struct host_memory *h)
{
	enum host_level now, stay;

	look_at_meminfo(h);
	look_at_group(h);
	look_at_pressure(h);
	now = level_at(h, 1);
	stay = level_at(h, ROOM);
	h->level = now >= h->level ? now : stay < h->level ? stay : h->level;
	return h->level;
}

const char *host_level_name(enum host_level l)
{
	return l == HOST_CALM ? "calm" : l == HOST_SHORT ? "short" : "critical";
}
