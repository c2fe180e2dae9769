/* namespaces: the process's own users, mounts, IPC objects and host name, and its own network if it does
 * not use the host's. Its root directory becomes an empty file system in which the profile's paths are
 * mounted where they were; it is read-only, and so are those that are only read.
 *
 * A user namespace is what lets an ordinary user do that; root goes into one as well, where it is nobody to
 * the host. Only its own user is known in it. Where that is forbidden, root does without. */
#include "confine/confine_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"

/* <sys/mount.h> and <linux/mount.h> of Debian 12 do not go together. */
int mount(const char *source, const char *target, const char *type, unsigned long flags,
	  const void *data);
int umount2(const char *target, int flags);
#define DETACH 2

static int write_file(const char *path, const char *text)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* Who we are stays the same. */
static int map_ids(uid_t uid, gid_t gid)
{
	char map[64];
	int r;

	snprintf(map, sizeof map, "%u %u 1", uid, uid);
	if ((r = write_file("/proc/self/uid_map", map)) < 0 ||
	    (r = write_file("/proc/self/setgroups", "deny")) < 0)
		return r;
	snprintf(map, sizeof map, "%u %u 1", gid, gid);
	return write_file("/proc/self/gid_map", map);
}

static int leave_the_hosts(bool network, bool stay_root)
{
	const int own = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | (network ? 0 : CLONE_NEWNET);
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int r;

	/* In a namespace of its own there would be no users but one. */
	if (!stay_root && unshare(CLONE_NEWUSER | own) == 0)
		return map_ids(uid, gid);
	r = -errno;
	return uid == 0 && unshare(own) == 0 ? 0 : r;
}

/* All directories above it, within the new root. */
static void make_way(const char *path)
{
	char at[PATH_MAX];

	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(at, sizeof at, ".%.*s", (int)(slash - path), path);
		(void)mkdir(at, 0755);
	}
}

/* What is not needed there is taken away; an older kernel leaves it to the other layers. */
static void limit(const char *at, const struct confine_path *p, bool device)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC};

	if (p->access == CONFINE_READ || p->access == CONFINE_CONNECT)
		attr.attr_set |= MOUNT_ATTR_RDONLY;
	if (!device)
		attr.attr_set |= MOUNT_ATTR_NODEV;
	(void)syscall(SYS_mount_setattr, AT_FDCWD, at, AT_RECURSIVE, &attr, sizeof attr);
}

/* fd: of what was at the path before the new root hid it. */
static int show(const struct confine_path *p, int fd)
{
	char at[PATH_MAX], from[32];
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	make_way(p->path);
	snprintf(at, sizeof at, ".%s", p->path);
	snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
	if (S_ISDIR(st.st_mode))
		(void)mkdir(at, 0755);
	else
		close(open(at, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	if (mount(from, at, NULL, MS_BIND | MS_REC, NULL) < 0)
		return -errno;
	limit(at, p, S_ISCHR(st.st_mode));
	return 0;
}

/* Those above others first. */
static int by_length(const void *a, const void *b)
{
	const struct confine_path *const *pa = a, *const *pb = b;

	return (int)strlen((*pa)->path) - (int)strlen((*pb)->path);
}

static int show_all(const struct confine_profile *p, const struct confine_path **path,
		    const int *fd)
{
	char pid[16];
	int r = 0;

	for (unsigned i = 0; i < p->paths && r == 0; i++)
		r = show(path[i], fd[i]);
	snprintf(pid, sizeof pid, "%d", (int)getpid());
	if (r == 0 && symlink(pid, "proc/self") < 0)
		r = -errno;
	return r;
}

static bool is_within(const char *path, const char *directory)
{
	size_t len = strlen(directory);

	return strncmp(path, directory, len) == 0 && (!path[len] || path[len] == '/');
}

/* Where the new root is mounted until it is one: what lies there is hidden meanwhile, so it must not be in what
 * is mounted with all that is below it. */
static const char *place(const struct confine_profile *p)
{
	static const char *const places[] = {"/dev", "/sys", "/usr", "/etc", "/tmp"};

	for (unsigned n = 0; n < ARRAY_SIZE(places); n++) {
		unsigned i = 0;

		while (i < p->paths && !is_within(places[n], p->path[i].path))
			i++;
		if (i == p->paths && access(places[n], F_OK) == 0)
			return places[n];
	}
	return NULL;
}

static int change_root(const char *at, const struct confine_profile *p,
		       const struct confine_path **path, const int *fd, const char *cwd,
		       bool *hidden)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
	char here[PATH_MAX];
	int r;

	*hidden = false;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", at, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,mode=0755") < 0)
		return -errno;
	*hidden = true;
	if (chdir(at) < 0)
		return -errno;
	r = show_all(p, path, fd);
	if (r < 0)
		return r;
	snprintf(here, sizeof here, "%s/", cwd);
	make_way(here);
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", DETACH) < 0 || chdir("/") < 0)
		return -errno;
	(void)syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &attr, sizeof attr);
	/* Paths that are relative go on to mean the same. */
	return chdir(cwd) < 0 ? -errno : 0;
}

static int new_root(const struct confine_profile *p)
{
	const struct confine_path *path[CONFINE_PATHS_MAX];
	int fd[CONFINE_PATHS_MAX], r;
	bool hidden;
	AUTO_FREE char *cwd = getcwd(NULL, 0);
	const char *at = place(p);

	if (!at)
		return -EBUSY;
	for (unsigned i = 0; i < p->paths; i++)
		path[i] = &p->path[i];
	qsort(path, p->paths, sizeof *path, by_length);
	for (unsigned i = 0; i < p->paths; i++)
		fd[i] = open(path[i]->path, O_PATH | O_CLOEXEC);
	r = change_root(at, p, path, fd, cwd ? cwd : "/", &hidden);
	if (r < 0 && hidden) { /* what was mounted there hides files */
		(void)!chdir(cwd ? cwd : "/");
		(void)umount2(at, DETACH);
	}
	for (unsigned i = 0; i < p->paths; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	return r;
}

int confine_namespaces(const struct confine_profile *p)
{
	int r = leave_the_hosts(p->network, p->acts_for_others);

	return r < 0 ? r : new_root(p);
}
