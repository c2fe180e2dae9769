#include "resource/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "resource/cgroup_priv.h"
#include "resource/keeper.h"
#include "resource/limits.h"

#define PERIOD_US 100000u /* in which a cap holds */
#define NAME      "holon-"
#define KEEPERS   NAME "keepers"
#define TRIES     10

enum file { CAP, WEIGHT, MEMORY, SWAP, USAGE, IO_WEIGHT, FILES };

static const struct {
	unsigned controller;
	int flags;
	const char *v1[2], *v2[2]; /* the first that is there */
} files[FILES] = {
	[CAP] = {CGROUP_CPU, O_WRONLY, {"cpu.cfs_quota_us"}, {"cpu.max"}},
	[WEIGHT] = {CGROUP_CPU, O_WRONLY, {"cpu.shares"}, {"cpu.weight"}},
	[MEMORY] = {CGROUP_MEMORY, O_WRONLY, {"memory.limit_in_bytes"}, {"memory.max"}},
	[SWAP] = {CGROUP_MEMORY, O_WRONLY, {"memory.memsw.limit_in_bytes"}, {"memory.swap.max"}},
	[USAGE] = {CGROUP_MEMORY, O_RDONLY, {"memory.usage_in_bytes"}, {"memory.current"}},
	[IO_WEIGHT] = {CGROUP_IO,
		       O_WRONLY,
		       {"blkio.bfq.weight", "blkio.weight"},
		       {"io.weight", "io.bfq.weight"}},
};

struct cgroup {
	unsigned has, v2; /* controllers; those of them that are of version 2 */
	int file[FILES];  /* -1: not there */
	char dir[CGROUP_DIRS][CGROUP_PATH_MAX + 32];
	unsigned dirs;
	int keeper; /* -1: there is none */
};

/* --- making them --- */

/* Those that nobody is in. Our rmdir may come between another VM's mkdir and its entering, which then
 * tries again. */
static void sweep(const char *parent)
{
	DIR *d = opendir(parent);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char *end;
		long pid;

		if (strncmp(e->d_name, NAME, strlen(NAME)) != 0)
			continue;
		pid = strtol(e->d_name + strlen(NAME), &end, 10);
		if (pid > 0 && !*end)
			unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
	}
	if (d)
		closedir(d);
}

static int put(int fd, const char *text)
{
	return pwrite(fd, text, strlen(text), 0) < 0 ? -errno : 0;
}

static int put_file(const char *dir, const char *file, const char *text)
{
	char path[CGROUP_PATH_MAX + 64];
	AUTO_CLOSE int fd = -1;

	snprintf(path, sizeof path, "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : put(fd, text);
}

static int enter(const char *dir)
{
	char pid[24];

	snprintf(pid, sizeof pid, "%d\n", (int)getpid());
	return put_file(dir, "cgroup.procs", pid);
}

/* Its controllers, for children: possible now that nobody is in it. */
static int switch_on(const struct cgroup_place *p)
{
	static const char *const words[] = {"+cpu", "+memory", "+io"};

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		int r = p->has & 1u << i ? put_file(p->parent, "cgroup.subtree_control", words[i])
					 : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

static int open_first(const char *dir, const char *const name[2], int flags)
{
	int fd = -1;

	for (unsigned i = 0; i < 2 && name[i] && fd < 0; i++) {
		char path[CGROUP_PATH_MAX + 96];

		snprintf(path, sizeof path, "%s/%s", dir, name[i]);
		fd = open(path, flags | O_CLOEXEC);
	}
	return fd;
}

static void open_files(struct cgroup *g, const struct cgroup_place *p, const char *dir)
{
	for (unsigned i = 0; i < FILES; i++) {
		if (!(files[i].controller & p->has))
			continue;
		g->file[i] = open_first(dir, p->v2 ? files[i].v2 : files[i].v1, files[i].flags);
		if (g->file[i] < 0)
			continue;
		g->has |= files[i].controller;
		if (p->v2)
			g->v2 |= files[i].controller;
	}
}

static void make_one(struct cgroup *g, const struct cgroup_place *p, const char *dir)
{
	unsigned had = g->has;
	int r = -ENOENT;

	sweep(p->parent);
	rmdir(dir); /* of a process that had our number */
	for (int i = 0; i < TRIES && r == -ENOENT; i++) {
		if (mkdir(dir, 0755) < 0 && errno != EEXIST)
			return;
		r = enter(dir);
	}
	if (r == 0) {
		if (!p->split || switch_on(p) == 0)
			open_files(g, p, dir);
		if (g->has == had)
			(void)!enter(p->parent);
	}
	if (g->has == had)
		rmdir(dir);
}

/* In a group that is split the keeper stays in one beside ours, with the others': once controllers
 * are on, nobody may be in their parent. */
static const char *keepers_home(const struct cgroup_place *place, unsigned n,
				char to[CGROUP_PATH_MAX + 64])
{
	for (unsigned i = 0; i < n; i++) {
		if (!place[i].split)
			continue;
		snprintf(to, CGROUP_PATH_MAX + 64, "%s/" KEEPERS, place[i].parent);
		if (mkdir(to, 0755) < 0 && errno != EEXIST)
			return NULL;
		strcat(to, "/cgroup.procs");
		return to;
	}
	return NULL;
}

static int make_all(struct cgroup *g, unsigned want, const char *proc, struct err *e)
{
	struct cgroup_place place[CGROUP_DIRS];
	char home[CGROUP_PATH_MAX + 64];
	const char *dir[CGROUP_DIRS];
	unsigned n = cgroup_find(place, want, proc);

	for (unsigned i = 0; i < n; i++) {
		if (snprintf(g->dir[i], sizeof g->dir[i], "%s/" NAME "%d", place[i].parent,
			     (int)getpid()) >= (int)sizeof g->dir[i])
			return err_set(e, ENAMETOOLONG, "a control group in '%.80s'",
				       place[i].parent);
		dir[i] = g->dir[i];
	}
	g->dirs = n;
	if (!n)
		return 0;
	g->keeper = keeper_start(dir, n, keepers_home(place, n, home), e);
	if (g->keeper < 0)
		return g->keeper;
	for (unsigned i = 0; i < n; i++)
		make_one(g, &place[i], g->dir[i]);
	if (g->has)
		return 0;
	close(g->keeper);
	g->keeper = -1;
	g->dirs = 0;
	return 0;
}

int cgroup_new(struct cgroup **out, unsigned want, const char *proc, struct err *e)
{
	struct cgroup *g = calloc(1, sizeof *g);
	int r;

	if (!g)
		return err_set(e, ENOMEM, "out of memory");
	g->keeper = -1;
	for (unsigned i = 0; i < FILES; i++)
		g->file[i] = -1;
	r = make_all(g, want, proc, e);
	if (r < 0)
		cgroup_free(g);
	else
		*out = g;
	return r;
}

void cgroup_free(struct cgroup *g)
{
	if (!g)
		return;
	for (unsigned i = 0; i < FILES; i++)
		if (g->file[i] >= 0)
			close(g->file[i]);
	if (g->keeper >= 0)
		close(g->keeper);
	free(g);
}

unsigned cgroup_has(const struct cgroup *g)
{
	return g->has;
}

const char *cgroup_path(const struct cgroup *g, unsigned n)
{
	return n < g->dirs ? g->dir[n] : NULL;
}

/* --- setting --- */

static int set(struct cgroup *g, enum file f, const char *what, const char *text, struct err *e)
{
	int r = g->file[f] >= 0 ? put(g->file[f], text) : -ENOTSUP;

	if (r == -ENOTSUP)
		return err_set(e, ENOTSUP,
			       "%s: this host has no control group for it that we may use", what);
	return r < 0 ? err_sys(e, -r, "%s", what) : 0;
}

int cgroup_set_cap(struct cgroup *g, unsigned cap, struct err *e)
{
	char text[48];

	/* A thousandth of a core is 100 us of the period, of which the kernel wants 1000. */
	if (g->v2 & CGROUP_CPU && cap)
		snprintf(text, sizeof text, "%u %u", cap * (PERIOD_US / 1000), PERIOD_US);
	else if (g->v2 & CGROUP_CPU)
		snprintf(text, sizeof text, "max %u", PERIOD_US);
	else if (cap)
		snprintf(text, sizeof text, "%u", cap * (PERIOD_US / 1000));
	else
		snprintf(text, sizeof text, "-1");
	return set(g, CAP, "cap of the processor", text, e);
}

int cgroup_set_weight(struct cgroup *g, unsigned weight, struct err *e)
{
	char text[24];
	/* Version 1 has 1024 where version 2 has 100. */
	unsigned shares = weight * 1024 / WEIGHT_STD;

	snprintf(text, sizeof text, "%u", g->v2 & CGROUP_CPU ? weight : shares > 2 ? shares : 2);
	return set(g, WEIGHT, "weight of the processor", text, e);
}

int cgroup_set_io_weight(struct cgroup *g, unsigned weight, struct err *e)
{
	char text[24];

	/* BFQ's range ends at 1000. */
	snprintf(text, sizeof text, "%u",
		 g->v2 & CGROUP_IO ? weight : (unsigned)min_u64(weight, 1000));
	return set(g, IO_WEIGHT, "weight of disks", text, e);
}

static const char *bytes_text(char to[24], uint64_t bytes, const char *none)
{
	if (bytes == CGROUP_NO_LIMIT)
		return none;
	snprintf(to, 24, "%llu", (unsigned long long)bytes);
	return to;
}

static int set_memory_v1(struct cgroup *g, uint64_t memory, uint64_t swap, struct err *e)
{
	char m[24], s[24];
	bool no_sum =
		memory == CGROUP_NO_LIMIT || swap == CGROUP_NO_LIMIT || memory + swap < memory;
	const char *both = bytes_text(s, no_sum ? CGROUP_NO_LIMIT : memory + swap, "-1"), *all;
	int r;

	all = bytes_text(m, memory, "-1");
	/* The second is never below the first: out of the way before that is set. */
	if (g->file[SWAP] >= 0 && (r = set(g, SWAP, "limit of swap", "-1", e)) < 0)
		return r;
	r = set(g, MEMORY, "limit of memory", all, e);
	if (r == 0 && !no_sum)
		r = set(g, SWAP, "limit of swap", both, e);
	return r;
}

int cgroup_set_memory(struct cgroup *g, uint64_t memory, uint64_t swap, struct err *e)
{
	char text[24];
	int r;

	if (!(g->v2 & CGROUP_MEMORY))
		return set_memory_v1(g, memory, swap, e);
	r = set(g, MEMORY, "limit of memory", bytes_text(text, memory, "max"), e);
	if (r == 0 && (swap != CGROUP_NO_LIMIT || g->file[SWAP] >= 0))
		r = set(g, SWAP, "limit of swap", bytes_text(text, swap, "max"), e);
	return r;
}

uint64_t cgroup_memory(struct cgroup *g)
{
	char text[32];
	ssize_t n = g->file[USAGE] < 0 ? -1 : pread(g->file[USAGE], text, sizeof text - 1, 0);

	if (n <= 0)
		return 0;
	text[n] = 0;
	return strtoull(text, NULL, 10);
}
