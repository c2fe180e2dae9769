/* Names are symbolic links, and the digest in a link's target is what counts. Whoever lets
 * something go away, or begins to work, holds images/lock exclusively; whoever bases a VM on an
 * image holds it shared until vm.json says so. */
#include "image/store.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "image/store_priv.h"

#define PATH_LEN (PATH_MAX / 2)

/* --- where --- */

static int user_root(char *to, size_t len, struct err *e)
{
	const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	int n;

	if (data && *data == '/')
		n = snprintf(to, len, "%s/holon", data);
	else if (home && *home == '/')
		n = snprintf(to, len, "%s/.local/share/holon", home);
	else
		return err_set(e, ENOENT, "where images are kept: set HOME or XDG_DATA_HOME");
	return n < (int)len ? 0 : err_set(e, ENAMETOOLONG, "the path of XDG_DATA_HOME");
}

int store_open(struct store *st, const char *dir, struct err *e)
{
	static const char *const below[] = {"images/sha256",  "images/names",  "images/temp",
					    "images/partial", "images/layers", "vms"};
	char path[PATH_LEN];
	int r = 0;

	if (!dir)
		r = user_root(st->root, sizeof st->root, e);
	else if (snprintf(st->root, sizeof st->root, "%s", dir) >= (int)sizeof st->root)
		r = err_set(e, ENAMETOOLONG, "'%s'", dir);
	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(below); i++)
		r = store_path(st, path, sizeof path, "%s", below[i]) ? make_dirs(path, e)
								      : -ENAMETOOLONG;
	return r;
}

int store_check_name(const char *what, const char *name, struct err *e)
{
	size_t len = strlen(name);
	bool good = len && len <= STORE_NAME_MAX && isalnum((unsigned char)*name);

	for (const char *p = name; *p; p++)
		good &= isalnum((unsigned char)*p) || strchr("-_.", *p);
	return good ? 0
		    : err_set(e, EINVAL,
			      "%s '%s': letters, digits, '-', '_' and '.' are possible, a letter "
			      "or digit first, at most %u",
			      what, name, STORE_NAME_MAX);
}

/* --- locks and work --- */

static int lock_file(const struct store *st, int how, int *fd, struct err *e)
{
	char path[PATH_LEN];

	if (!store_path(st, path, sizeof path, "images/lock"))
		return err_set(e, ENAMETOOLONG, "the image store");
	*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (*fd < 0)
		return err_sys(e, errno, "open '%s'", path);
	while (flock(*fd, how) < 0)
		if (errno != EINTR) {
			int code = errno;

			close(*fd);
			return err_sys(e, code, "lock '%s'", path);
		}
	return 0;
}

int store_hold(const struct store *st, int *lock, struct err *e)
{
	return lock_file(st, LOCK_SH, lock, e);
}

/* What a process that is gone has left. */
static void remove_stale_work(const struct store *st)
{
	char dir[PATH_LEN], path[PATH_LEN];
	struct dirent *d;
	DIR *list;

	if (!store_path(st, dir, sizeof dir, "images/temp") || !(list = opendir(dir)))
		return;
	while ((d = readdir(list))) {
		int fd;

		if (d->d_name[0] == '.' ||
		    !store_path(st, path, sizeof path, "images/temp/%s", d->d_name))
			continue;
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			remove_tree(path);
		if (fd >= 0)
			close(fd);
	}
	closedir(list);
}

int store_work_new(const struct store *st, char path[PATH_LEN], int *lock, struct err *e)
{
	AUTO_CLOSE int store_lock = -1;
	int fd, r = lock_file(st, LOCK_EX, &store_lock, e);

	/* The store's lock: a directory that is new is not locked yet. */
	if (r < 0)
		return r;
	remove_stale_work(st);
	if (!store_path(st, path, PATH_LEN, "images/temp/XXXXXX"))
		return err_set(e, ENAMETOOLONG, "the image store");
	if (!mkdtemp(path))
		return err_sys(e, errno, "make '%s'", path);
	fd = open(path, O_RDONLY | O_DIRECTORY); /* child processes inherit it */
	if (fd < 0 || flock(fd, LOCK_EX) < 0) {
		r = err_sys(e, errno, "lock '%s'", path);
		if (fd >= 0)
			close(fd);
		return r;
	}
	*lock = fd;
	return 0;
}

void store_work_free(const char *path, int lock)
{
	if (lock < 0)
		return;
	remove_tree(path);
	close(lock);
}

/* --- finding --- */

void store_image_done(struct store_image *i)
{
	json_decref(i->info);
	i->info = NULL;
}

/* The digest that a name leads to. */
static bool digest_of(const struct store *st, const char *name, char to[DIGEST_LEN + 1])
{
	char path[PATH_LEN], target[128];
	ssize_t n;
	const char *base;

	if (!store_path(st, path, sizeof path, "images/names/%s", name))
		return false;
	n = readlink(path, target, sizeof target - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	base = strrchr(target, '/');
	base = base ? base + 1 : target;
	if (strspn(base, "0123456789abcdef") != DIGEST_LEN || strcmp(base + DIGEST_LEN, ".json"))
		return false;
	memcpy(to, base, DIGEST_LEN);
	to[DIGEST_LEN] = 0;
	return true;
}

/* Calls each(ctx, entry) for all in a directory; stops at true, and returns it. */
static bool any_entry(const struct store *st, const char *dir,
		      bool (*each)(void *ctx, const char *entry), void *ctx)
{
	char path[PATH_LEN];
	struct dirent *d;
	bool found = false;
	DIR *list;

	if (!store_path(st, path, sizeof path, "%s", dir) || !(list = opendir(path)))
		return false;
	while (!found && (d = readdir(list)))
		found = d->d_name[0] != '.' && each(ctx, d->d_name);
	closedir(list);
	return found;
}

struct search {
	const struct store *st;
	const char *wanted; /* beginning of a digest, or a whole one */
	char found[STORE_NAME_MAX + DIGEST_LEN + 1];
};

static bool digest_begins(void *ctx, const char *entry)
{
	struct search *s = ctx;

	if (strncmp(entry, s->wanted, strlen(s->wanted)) != 0 ||
	    strspn(entry, "0123456789abcdef") != DIGEST_LEN || strcmp(entry + DIGEST_LEN, ".json"))
		return false;
	snprintf(s->found, sizeof s->found, "%.*s", (int)DIGEST_LEN, entry);
	return true;
}

static bool name_leads_to(void *ctx, const char *entry)
{
	struct search *s = ctx;
	char digest[DIGEST_LEN + 1];

	if (strlen(entry) > STORE_NAME_MAX || !digest_of(s->st, entry, digest) ||
	    strcmp(digest, s->wanted) != 0)
		return false;
	snprintf(s->found, sizeof s->found, "%s", entry);
	return true;
}

/* Any name of an image. */
static bool has_name(const struct store *st, const char *digest, char name[STORE_NAME_MAX + 1])
{
	struct search s = {.st = st, .wanted = digest};

	name[0] = 0;
	if (!any_entry(st, "images/names", name_leads_to, &s))
		return false;
	memcpy(name, s.found, strlen(s.found) + 1);
	return true;
}

static int load_image(const struct store *st, const char *digest, const char *name,
		      struct store_image *out, struct err *e)
{
	struct store_image i = {0};
	char path[PATH_LEN];
	struct stat s;

	if (!store_path(st, path, sizeof path, "images/sha256/%s.json", digest) ||
	    !store_path(st, i.file, sizeof i.file, "images/sha256/%s.qcow2", digest))
		return err_set(e, ENAMETOOLONG, "image %.12s", digest);
	if (stat(i.file, &s) < 0)
		return err_sys(e, errno, "image %.12s", digest);
	i.info = json_load_file(path, 0, NULL);
	if (!json_is_object(i.info)) {
		json_decref(i.info);
		return err_set(e, EBADMSG, "'%s' is damaged", path);
	}
	i.file_bytes = (uint64_t)s.st_blocks * 512;
	memcpy(i.digest, digest, DIGEST_LEN);
	snprintf(i.name, sizeof i.name, "%s", name);
	*out = i;
	return 0;
}

int store_find(const struct store *st, const char *name, struct store_image *out, struct err *e)
{
	const char *hex = strncmp(name, "sha256:", 7) ? name : name + 7;
	struct search s = {.st = st, .wanted = hex};
	char digest[DIGEST_LEN + 1], other[STORE_NAME_MAX + 1];
	int r;

	if (hex == name) {
		if ((r = store_check_name("image", name, e)) < 0)
			return r;
		if (digest_of(st, name, digest))
			return load_image(st, digest, name, out, e);
	}
	if (strlen(hex) < 6 || !any_entry(st, "images/sha256", digest_begins, &s))
		return err_set(e, ENOENT, "there is no image '%s'", name);
	has_name(st, s.found, other);
	return load_image(st, s.found, other, out, e);
}

struct list {
	const struct store *st;
	bool (*each)(void *ctx, const struct store_image *i);
	void *ctx;
	bool ended;
};

static void list_one(struct list *l, const char *digest, const char *name)
{
	struct store_image i;

	if (load_image(l->st, digest, name, &i, NULL) < 0)
		return; /* it goes away just now, or somebody damaged it */
	l->ended = !l->each(l->ctx, &i);
	store_image_done(&i);
}

static bool list_name(void *ctx, const char *entry)
{
	struct list *l = ctx;
	char digest[DIGEST_LEN + 1];

	if (strlen(entry) <= STORE_NAME_MAX && digest_of(l->st, entry, digest))
		list_one(l, digest, entry);
	return l->ended;
}

static bool list_nameless(void *ctx, const char *entry)
{
	struct list *l = ctx;
	struct search s = {.wanted = ""};
	char name[STORE_NAME_MAX + 1];

	if (digest_begins(&s, entry) && !has_name(l->st, s.found, name))
		list_one(l, s.found, "");
	return l->ended;
}

int store_list(const struct store *st, bool (*each)(void *ctx, const struct store_image *i),
	       void *ctx, struct err *e)
{
	struct list l = {st, each, ctx, false};

	if (!any_entry(st, "images/names", list_name, &l))
		any_entry(st, "images/sha256", list_nameless, &l);
	return 0;
}

/* --- users --- */

struct users {
	const struct store *st;
	const char *digest;
	char *to;
	uint32_t len, used;
	bool any;
};

static bool note_user(void *ctx, const char *entry)
{
	struct users *u = ctx;
	char path[PATH_LEN];
	json_t *vm;
	const char *image;

	if (!store_path(u->st, path, sizeof path, "vms/%s/vm.json", entry))
		return false;
	vm = json_load_file(path, 0, NULL);
	image = json_string_value(json_object_get(vm, "image"));
	if (image && !strcmp(image, u->digest)) {
		u->any = true;
		if (u->used + strlen(entry) + 3 < u->len)
			u->used += (uint32_t)sprintf(u->to + u->used, "%s%s", u->used ? ", " : "",
						     entry);
	}
	json_decref(vm);
	return false;
}

bool store_users(const struct store *st, const char *digest, char *to, uint32_t len)
{
	struct users u = {st, digest, to, len, 0, false};

	to[0] = 0;
	any_entry(st, "vms", note_user, &u);
	return u.any;
}

/* --- adding and removing --- */

static void remove_files(const struct store *st, const char *digest)
{
	char path[PATH_LEN];

	if (store_path(st, path, sizeof path, "images/sha256/%s.json", digest))
		unlink(path);
	if (store_path(st, path, sizeof path, "images/sha256/%s.qcow2", digest))
		unlink(path);
}

/* Called with the store locked. */
static void remove_if_unused(const struct store *st, const char *digest)
{
	char name[STORE_NAME_MAX + 1], users[16];

	if (!has_name(st, digest, name) && !store_users(st, digest, users, sizeof users))
		remove_files(st, digest);
}

/* Lets a name lead to an image. Called with the store locked. */
static int point(const struct store *st, const char *name, const char *digest, struct err *e)
{
	char link[PATH_LEN], temp[PATH_LEN], target[128];

	if (!store_path(st, link, sizeof link, "images/names/%s", name) ||
	    !store_path(st, temp, sizeof temp, "images/names/.new"))
		return err_set(e, ENAMETOOLONG, "image '%s'", name);
	snprintf(target, sizeof target, "../sha256/%s.json", digest);
	unlink(temp); /* of one that crashed here */
	if (symlink(target, temp) < 0 || rename(temp, link) < 0)
		return err_sys(e, errno, "name image '%s'", name);
	return 0;
}

static int digest_and_sync(const char *file, char digest[DIGEST_LEN + 1], struct err *e)
{
	AUTO_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0 || fchmod(fd, 0444) < 0)
		return err_sys(e, errno, "'%s'", file);
	return digest_fd(fd, digest, e);
}

int store_add(const struct store *st, const char *name, const char *file, json_t *info,
	      struct err *e)
{
	char digest[DIGEST_LEN + 1], old[DIGEST_LEN + 1], to[PATH_LEN], json[PATH_LEN];
	AUTO_CLOSE int lock = -1;
	bool had;
	int r;

	if ((r = store_check_name("image", name, e)) < 0 ||
	    (r = digest_and_sync(file, digest, e)) < 0 ||
	    (r = lock_file(st, LOCK_EX, &lock, e)) < 0)
		return r;
	if (!store_path(st, to, sizeof to, "images/sha256/%s.qcow2", digest) ||
	    !store_path(st, json, sizeof json, "images/sha256/%s.json", digest))
		return err_set(e, ENAMETOOLONG, "image '%s'", name);
	had = digest_of(st, name, old);
	if (rename(file, to) < 0)
		return err_sys(e, errno, "move an image to '%s'", to);
	if ((r = write_json(json, info, e)) < 0 || (r = point(st, name, digest, e)) < 0)
		return r;
	if (had && strcmp(old, digest) != 0)
		remove_if_unused(st, old);
	return 0;
}

int store_remove(const struct store *st, const char *name, bool force, struct err *e)
{
	char users[128], other[STORE_NAME_MAX + 1], path[PATH_LEN];
	struct store_image i;
	AUTO_CLOSE int lock = -1;
	int r;

	if ((r = lock_file(st, LOCK_EX, &lock, e)) < 0 || (r = store_find(st, name, &i, e)) < 0)
		return r;
	store_image_done(&i);
	if (!force && store_users(st, i.digest, users, sizeof users))
		return err_set(e, EBUSY, "image '%s' is in use by the VMs %s", name, users);
	if (*i.name && store_path(st, path, sizeof path, "images/names/%s", i.name) &&
	    unlink(path) < 0)
		return err_sys(e, errno, "remove '%s'", path);
	if (!has_name(st, i.digest, other))
		remove_files(st, i.digest);
	return 0;
}
