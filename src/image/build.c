/* The script runs in a process group of its own. Signals that would end us are passed on to
 * that, and the script takes away what it made (files of other user ids among it, which only
 * it can remove). The lock of the work directory is inherited by all of them, so that a
 * directory without an owner is known as such. */
#include "image/build.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/beside.h"
#include "image/convert.h"
#include "image/store_priv.h"

#define SPACE_NEEDED GIB(2) /* packages, their files, the raw disk, the image */

extern char **environ;

struct script {
	pid_t pid;
	int out;     /* what it says, a line per step */
	int signals; /* signalfd */
	sigset_t mask, old_mask;
	bool cancelled;
};

/* --- before it starts --- */

static int check_space(const char *dir, struct err *e)
{
	struct statvfs s;
	uint64_t free_bytes;

	if (statvfs(dir, &s) < 0)
		return err_sys(e, errno, "'%s'", dir);
	free_bytes = (uint64_t)s.f_bavail * s.f_frsize;
	if (free_bytes >= SPACE_NEEDED)
		return 0;
	return err_set(e, ENOSPC,
		       "an image takes up to %llu MiB of disk space to make; '%s' has %llu MiB",
		       (unsigned long long)(SPACE_NEEDED >> 20), dir,
		       (unsigned long long)(free_bytes >> 20));
}

/* --- running it --- */

static int catch_signals(struct script *s, struct err *e)
{
	sigemptyset(&s->mask);
	sigaddset(&s->mask, SIGINT);
	sigaddset(&s->mask, SIGTERM);
	sigaddset(&s->mask, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &s->mask, &s->old_mask);
	s->signals = signalfd(-1, &s->mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signals >= 0)
		return 0;
	pthread_sigmask(SIG_SETMASK, &s->old_mask, NULL);
	return err_sys(e, errno, "signalfd");
}

static void release_signals(struct script *s)
{
	close(s->signals);
	pthread_sigmask(SIG_SETMASK, &s->old_mask, NULL);
}

static bool signal_came(struct script *s)
{
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof info) == sizeof info)
		s->cancelled = true;
	return s->cancelled;
}

static int spawn(struct script *s, char **argv, struct err *e)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	int pipe_fd[2], r;

	if (pipe2(pipe_fd, O_CLOEXEC) < 0)
		return err_sys(e, errno, "pipe");
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, pipe_fd[1], 1);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
						POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &s->old_mask);
	posix_spawnattr_setsigdefault(&attr, &s->mask);
	r = posix_spawn(&s->pid, argv[0], &files, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	close(pipe_fd[1]);
	s->out = pipe_fd[0];
	if (r == 0)
		return 0;
	close(s->out);
	return err_sys(e, r, "run '%s'", argv[0]);
}

static void tell_lines(struct build_watcher *w, char *text, size_t *used)
{
	char *end, *from = text;

	text[*used] = 0;
	while ((end = strchr(from, '\n'))) {
		*end = 0;
		w->step(w, from);
		from = end + 1;
	}
	*used = strlen(from);
	memmove(text, from, *used);
}

/* Until its end of the pipe, and of all that it started, is closed. */
static void follow(struct script *s, struct build_watcher *w)
{
	struct pollfd p[2] = {{s->out, POLLIN}, {s->signals, POLLIN}};
	char text[512];
	size_t used = 0;

	for (;;) {
		ssize_t n;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		if (p[1].revents && signal_came(s))
			kill(-s->pid, SIGTERM);
		if (!p[0].revents)
			continue;
		n = read(s->out, text + used, sizeof text - 1 - used);
		if (n <= 0)
			return;
		used += (size_t)n;
		tell_lines(w, text, &used);
		if (used == sizeof text - 1)
			used = 0; /* too long to be one of our lines */
	}
}

static int run_script(struct script *s, char **argv, struct build_watcher *w, struct err *e)
{
	int status, r = spawn(s, argv, e);

	if (r < 0)
		return r;
	follow(s, w);
	close(s->out);
	while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (s->cancelled)
		return err_set(e, ECANCELED, "interrupted");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return err_set(e, EIO, "%s could not make the disk; what went wrong stands above", argv[0]);
}

static int make_raw(struct script *s, const struct build_opts *o, const char *raw,
		    struct build_watcher *w, struct err *e)
{
	char path[PATH_MAX], agent[PATH_MAX], size[32];
	char *argv[10 + 2 * BUILD_PACKAGES_MAX + 1] = {path,
						       "--out",
						       (char *)(uintptr_t)raw,
						       "--suite",
						       (char *)(uintptr_t)o->suite,
						       "--size",
						       size,
						       "--agent",
						       agent};
	unsigned n = 9;
	int r = find_beside("build-debian", path, sizeof path, e);

	if (r == 0)
		r = find_beside("holon-agent", agent, sizeof agent, e);
	if (r < 0)
		return r;
	snprintf(size, sizeof size, "%llu", (unsigned long long)o->size);
	for (unsigned i = 0; i < o->packages && i < BUILD_PACKAGES_MAX; i++) {
		argv[n++] = "--package";
		argv[n++] = (char *)(uintptr_t)o->package[i];
	}
	return run_script(s, argv, w, e);
}

/* --- raw to qcow2 --- */

struct conversion {
	struct block_progress step;
	struct build_watcher *watcher;
	struct script *script;
};

static bool converting(struct block_progress *p, uint64_t done, uint64_t total)
{
	struct conversion *c = container_of(p, struct conversion, step);

	return !signal_came(c->script) && c->watcher->progress(c->watcher, done, total);
}

static int convert(const char *from, const char *to, struct script *s, struct build_watcher *w,
		   struct err *e)
{
	const struct image_conversion how = {
		.from = from, .from_format = "raw", .to = to, .to_format = "qcow2"};
	struct conversion c = {{converting}, w, s};

	return image_convert(&how, &c.step, e);
}

/* --- what was made --- */

static json_t *read_lines(const char *path)
{
	AUTO_FCLOSE FILE *f = fopen(path, "re");
	json_t *list = json_array();
	char line[256];

	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		json_array_append_new(list, json_string(line));
	}
	return list;
}

static json_t *describe(const struct build_opts *o, const char *packages_file)
{
	json_t *info, *packages = json_array();
	time_t now = time(NULL);
	struct tm t;
	char when[32];

	gmtime_r(&now, &t);
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &t);
	for (unsigned i = 0; i < o->packages; i++)
		json_array_append_new(packages, json_string(o->package[i]));
	info = json_pack("{s:s, s:s, s:s, s:s, s:o, s:I, s:o}", "distribution", "debian", "suite",
			 o->suite, "created", when, "builder", "holon " HOLON_VERSION, "packages",
			 packages, "disk_size", (json_int_t)o->size, "installed",
			 read_lines(packages_file));
	return info;
}

static int build_in(const struct store *st, const char *work, const struct build_opts *o,
		    struct script *s, struct build_watcher *w, struct err *e)
{
	char raw[PATH_MAX], image[PATH_MAX], packages[PATH_MAX + 16];
	json_t *info;
	int r;

	snprintf(raw, sizeof raw, "%s/disk.raw", work);
	snprintf(image, sizeof image, "%s/disk.qcow2", work);
	snprintf(packages, sizeof packages, "%s.packages", raw);
	if ((r = make_raw(s, o, raw, w, e)) < 0)
		return r;
	w->step(w, "writing the image");
	if ((r = convert(raw, image, s, w, e)) < 0)
		return s->cancelled ? err_set(e, ECANCELED, "interrupted") : r;
	unlink(raw);
	info = describe(o, packages);
	r = info ? store_add(st, o->name, image, info, e) : err_set(e, ENOMEM, "out of memory");
	json_decref(info);
	return r;
}

static int check(const struct build_opts *o, struct err *e)
{
	int r = store_check_name("image", o->name, e);

	if (r < 0 || (r = store_check_name("suite", o->suite, e)) < 0)
		return r;
	for (unsigned i = 0; i < o->packages; i++)
		if (!*o->package[i] || o->package[i][0] == '-' ||
		    strspn(o->package[i], "abcdefghijklmnopqrstuvwxyz0123456789+-.:") !=
			    strlen(o->package[i]))
			return err_set(e, EINVAL, "'%s' is no package name", o->package[i]);
	return 0;
}

int build_debian(const struct store *st, const struct build_opts *o, struct build_watcher *w,
		 struct err *e)
{
	char work[PATH_MAX / 2];
	struct script s = {0};
	int lock, r = check(o, e);

	if (r < 0 || (r = check_space(st->root, e)) < 0 ||
	    (r = store_work_new(st, work, &lock, e)) < 0)
		return r;
	r = catch_signals(&s, e);
	if (r == 0) {
		r = build_in(st, work, o, &s, w, e);
		store_work_free(work, lock);
		release_signals(&s);
	} else {
		store_work_free(work, lock);
	}
	return r;
}
