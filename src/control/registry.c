#include "control/registry.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/runtime_dir.h"

#define TRIES 100

static const char *const files[] = {"pid",       "control",      "state.json", "console.log",
				    "holon.log", "restart.lock", "vsock",      "died"};

/* --- names --- */

static bool is_name(const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && (!i || !strchr("-_.", name[i])))
			return false;
	return len && len <= VM_NAME_MAX;
}

int vm_check_name(const char *name, struct err *e)
{
	return is_name(name)
		       ? 0
		       : err_set(e, EINVAL,
				 "VM '%.80s': letters, digits, '-', '_' and '.' are possible, a "
				 "letter or digit first, at most %u",
				 name, VM_NAME_MAX);
}

void vm_make_name(char to[VM_NAME_MAX + 1], const char *text)
{
	size_t n = 0;

	for (; *text && n < VM_NAME_MAX - 8; text++) {
		bool good = isalnum((unsigned char)*text);

		if (good || (n && strchr("-_.", *text)))
			to[n++] = *text;
	}
	to[n] = 0;
	if (!n)
		strcpy(to, "vm");
}

/* --- places --- */

static int root_dir(char to[VM_PATH_MAX], struct err *e)
{
	char runtime[VM_PATH_MAX - 128];
	int r = runtime_dir(runtime, sizeof runtime, e);

	if (r < 0)
		return r;
	snprintf(to, VM_PATH_MAX, "%s/vms", runtime);
	if (mkdir(to, 0700) < 0 && errno != EEXIST)
		return err_sys(e, errno, "make '%s'", to);
	return 0;
}

static int place(struct vm_dir *d, const char *name, struct err *e)
{
	char root[VM_PATH_MAX];
	int r = root_dir(root, e);

	if (r < 0)
		return r;
	*d = (struct vm_dir){.lock = -1};
	snprintf(d->name, sizeof d->name, "%s", name);
	if (snprintf(d->path, sizeof d->path, "%s/%s", root, name) >= (int)sizeof d->path)
		return err_set(e, ENAMETOOLONG, "'%s'", root);
	return 0;
}

void vm_dir_file(const struct vm_dir *d, const char *file, char to[VM_PATH_MAX + 32])
{
	snprintf(to, VM_PATH_MAX + 32, "%s/%s", d->path, file);
}

static void remove_file(const struct vm_dir *d, const char *file)
{
	char path[VM_PATH_MAX + 32];

	vm_dir_file(d, file, path);
	unlink(path);
}

int vm_dir_write(const struct vm_dir *d, const char *file, const char *text, struct err *e)
{
	char path[VM_PATH_MAX + 32], temp[VM_PATH_MAX + 40];
	AUTO_CLOSE int fd = -1;
	int in = d->fd ? d->fd : AT_FDCWD;
	size_t len = strlen(text);

	if (d->fd)
		snprintf(path, sizeof path, "%s", file);
	else
		vm_dir_file(d, file, path);
	snprintf(temp, sizeof temp, "%s.new", path);
	fd = openat(in, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len || renameat(in, temp, in, path) < 0)
		return err_sys(e, errno, "write '%s'", path);
	return 0;
}

/* --- ours --- */

/* A lock of the open file: it lasts until the process has closed it, or is gone. */
static bool lock_whole(int fd)
{
	struct flock l = {.l_type = F_WRLCK};

	return fcntl(fd, F_OFD_SETLK, &l) == 0;
}

/* 0; -EBUSY: somebody else has it; -EAGAIN: the directory went away meanwhile. */
static int take_lock(struct vm_dir *d, struct err *e)
{
	char path[VM_PATH_MAX + 32];
	struct stat ours, there;
	int fd;

	if (mkdir(d->path, 0700) < 0 && errno != EEXIST)
		return err_sys(e, errno, "make '%s'", d->path);
	vm_dir_file(d, "lock", path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno == ENOENT ? -EAGAIN : err_sys(e, errno, "open '%s'", path);
	if (!lock_whole(fd)) {
		close(fd);
		return err_set(e, EBUSY, "a VM '%s' runs already; see holon ls", d->name);
	}
	if (stat(path, &there) < 0 || fstat(fd, &ours) < 0 || there.st_ino != ours.st_ino ||
	    there.st_dev != ours.st_dev) {
		close(fd);
		return -EAGAIN;
	}
	d->lock = fd;
	return 0;
}

static int claim_name(struct vm_dir *d, const char *name, struct err *e)
{
	char pid[24];
	int r = -EAGAIN;

	for (int i = 0; r == -EAGAIN && i < TRIES; i++)
		if ((r = place(d, name, e)) == 0)
			r = take_lock(d, e);
	if (r == -EAGAIN)
		return err_set(e, EBUSY, "VM '%s' is being removed all the time", name);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		if (strcmp(files[i], "restart.lock") != 0)
			remove_file(d, files[i]);
	snprintf(pid, sizeof pid, "%d\n", (int)getpid());
	r = vm_dir_write(d, "pid", pid, e);
	if (r < 0)
		vm_dir_release(d, false);
	return r;
}

int vm_dir_claim(struct vm_dir *d, const char *name, bool exact, struct err *e)
{
	char other[VM_NAME_MAX + 1];
	int r;

	d->lock = -1;
	r = vm_check_name(name, e);
	if (r == 0)
		r = claim_name(d, name, e);
	for (unsigned n = 2; r == -EBUSY && !exact && n < 10000; n++) {
		snprintf(other, sizeof other, "%.*s-%u", (int)VM_NAME_MAX - 6, name, n);
		r = claim_name(d, other, e);
	}
	return r;
}

/* With the lock held. */
static void remove_all(struct vm_dir *d)
{
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		remove_file(d, files[i]);
	remove_file(d, "state.json.new");
	remove_file(d, "pid.new");
	remove_file(d, "lock");
	rmdir(d->path);
}

void vm_dir_clear(struct vm_dir *d, bool keep)
{
	if (!keep) {
		remove_all(d);
		return;
	}
	remove_file(d, "pid");
	remove_file(d, "control");
	remove_file(d, "vsock");
	remove_file(d, "died");
}

bool vm_last_word(const struct vm_dir *d, char *to, size_t len)
{
	char path[VM_PATH_MAX + 32];
	AUTO_CLOSE int fd = -1;
	ssize_t n;

	vm_dir_file(d, "died", path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	n = fd < 0 ? 0 : read(fd, to, len - 1);
	if (n <= 0)
		return false;
	to[n] = 0;
	to[strcspn(to, "\n")] = 0;
	return true;
}

int vm_dir_at(struct vm_dir *out, const char *name, struct err *e)
{
	int r = vm_check_name(name, e);

	return r < 0 ? r : place(out, name, e);
}

void vm_dir_release(struct vm_dir *d, bool keep)
{
	if (d->lock < 0)
		return;
	vm_dir_clear(d, keep);
	close(d->lock);
	d->lock = -1;
}

int vm_dir_rename(struct vm_dir *d, const char *name, struct err *e)
{
	struct vm_dir to;
	int r = vm_check_name(name, e);

	if (r < 0 || (r = vm_remove(name, e)) == -EBUSY)
		return r;
	if ((r = place(&to, name, e)) < 0)
		return r;
	if (renameat2(AT_FDCWD, d->path, AT_FDCWD, to.path, RENAME_NOREPLACE) < 0)
		return err_sys(e, errno, "rename to '%s'", name);
	to.lock = d->lock;
	*d = to;
	return 0;
}

/* --- others' --- */

static bool is_locked(const struct vm_dir *d, const char *file)
{
	struct flock l = {.l_type = F_WRLCK};
	char path[VM_PATH_MAX + 32];
	AUTO_CLOSE int fd = -1;

	vm_dir_file(d, file, path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static int look(struct vm_seen *v, const char *name, struct err *e)
{
	char path[VM_PATH_MAX + 32];
	int r = place(&v->dir, name, e);

	if (r < 0)
		return r;
	vm_dir_file(&v->dir, "lock", path);
	if (access(path, F_OK) < 0)
		return err_set(e, ENOENT, "there is no VM '%s'; see holon ls -a", name);
	v->life = is_locked(&v->dir, "lock") ? VM_RUNS : VM_DIED;
	v->waits = is_locked(&v->dir, "restart.lock");
	/* Read after that: what an ended VM wrote last is there. */
	vm_dir_file(&v->dir, "state.json", path);
	v->state = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(v->state)) {
		json_decref(v->state);
		v->state = json_object();
	}
	if (v->life != VM_RUNS && json_object_get(v->state, "ended"))
		v->life = VM_ENDED;
	return 0;
}

void vm_seen_done(struct vm_seen *v)
{
	json_decref(v->state);
	v->state = NULL;
}

int vm_find(struct vm_seen *out, const char *name, struct err *e)
{
	int r;

	*out = (struct vm_seen){0};
	r = vm_check_name(name, e);
	return r < 0 ? r : look(out, name, e);
}

static int not_hidden(const struct dirent *d)
{
	return is_name(d->d_name);
}

int vm_list(void (*each)(void *ctx, const struct vm_seen *v), void *ctx, struct err *e)
{
	char root[VM_PATH_MAX];
	struct dirent **found;
	int r = root_dir(root, e), n;

	if (r < 0)
		return r;
	n = scandir(root, &found, not_hidden, alphasort);
	if (n < 0)
		return err_sys(e, errno, "read '%s'", root);
	for (int i = 0; i < n; i++) {
		struct vm_seen v = {0};

		if (look(&v, found[i]->d_name, NULL) == 0)
			each(ctx, &v);
		vm_seen_done(&v);
		free(found[i]);
	}
	free(found);
	return 0;
}

int vm_remove(const char *name, struct err *e)
{
	struct vm_dir d = {.lock = -1};
	char path[VM_PATH_MAX + 32];
	int r = vm_check_name(name, e);

	if (r < 0 || (r = place(&d, name, e)) < 0)
		return r;
	vm_dir_file(&d, "lock", path);
	if (access(path, F_OK) < 0)
		return err_set(e, ENOENT, "there is no VM '%s'; see holon ls -a", name);
	if ((r = take_lock(&d, e)) < 0)
		return r;
	vm_dir_release(&d, false);
	return 0;
}
