/* A new file takes the place of what may be there only when it is complete: it is written under
 * a temporary name in the same directory and renamed. Devices and NBD exports are written where
 * they are. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "cli/disk.h"

static bool is_uri(const char *file)
{
	const char *colon = strstr(file, "://");

	return !strncmp(file, "nbd", 3) && colon && !memchr(file, '/', (size_t)(colon - file));
}

/* "dir/name" into its parts; dir is "." where none is named. */
static void split(const char *path, char *dir, size_t room, const char **name)
{
	const char *slash = strrchr(path, '/');

	*name = slash ? slash + 1 : path;
	if (!slash)
		snprintf(dir, room, ".");
	else
		snprintf(dir, room, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

int disk_temporary(struct disk_job *j, const char *file)
{
	char dir[PATH_MAX];
	const char *name;
	int fd, r;

	split(file, dir, sizeof dir, &name);
	/* Of a long name only a part, so that it stays short enough. */
	if ((size_t)snprintf(j->temporary, sizeof j->temporary, "%s/.%.200s.XXXXXX", dir, name) >=
	    sizeof j->temporary) {
		j->temporary[0] = 0;
		return err_sys(&j->err, ENAMETOOLONG, "'%.80s...'", file);
	}
	fd = mkostemp(j->temporary, O_CLOEXEC);
	if (fd >= 0) {
		close(fd);
		return 0;
	}
	r = err_sys(&j->err, errno, "making a file in '%s'", dir);
	j->temporary[0] = 0;
	return r;
}

/* As a new file has it, or what is there now. On failure it stays as private as it was made. */
static void set_mode(const struct disk_job *j, const struct disk_place *p)
{
	mode_t mask = umask(0);

	umask(mask);
	(void)!chmod(j->temporary, p->guard ? p->mode : 0666 & ~mask);
}

/* Keeps what is there from being used while it is replaced. */
static int guard(struct disk_job *j, struct disk_place *p)
{
	const struct block_opts o = {
		.file = p->path, .format = "raw", .cache = BLOCK_CACHE_WRITEBACK};

	return block_open(&p->guard, j->ctx, &o, &j->err);
}

int disk_place_begin(struct disk_job *j, struct disk_place *p, const char *file)
{
	AUTO_FREE char *real = NULL;
	struct stat st;
	int r;

	*p = (struct disk_place){.in_place = is_uri(file)};
	if (!strncmp(file, "file:", 5))
		file += 5;
	real = p->in_place ? NULL : realpath(file, NULL);
	if ((size_t)snprintf(p->path, sizeof p->path, "%s", real ? real : file) >= sizeof p->path)
		return err_sys(&j->err, ENAMETOOLONG, "'%.80s...'", file);
	if (p->in_place)
		return 0;
	if (stat(p->path, &st) == 0) {
		if (S_ISDIR(st.st_mode))
			return err_sys(&j->err, EISDIR, "'%s'", p->path);
		p->mode = st.st_mode & 0777;
		p->in_place = !S_ISREG(st.st_mode);
		if (p->in_place)
			return 0;
		r = guard(j, p);
		if (r < 0)
			return r;
	}
	r = disk_temporary(j, p->path);
	if (r == 0)
		set_mode(j, p);
	return r;
}

const char *disk_place_file(const struct disk_job *j, const struct disk_place *p)
{
	return p->in_place ? p->path : j->temporary;
}

static int sync_path(struct disk_job *j, const char *path, int flags)
{
	AUTO_CLOSE int fd = open(path, flags | O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return err_sys(&j->err, errno, "writing '%s' to the disk", path);
	return 0;
}

static int put_in_place(struct disk_job *j, struct disk_place *p)
{
	char dir[PATH_MAX];
	const char *name;
	int r = p->unsafe ? 0 : sync_path(j, j->temporary, 0);

	if (r < 0)
		return r;
	if (rename(j->temporary, p->path) < 0)
		return err_sys(&j->err, errno, "renaming '%s' to '%s'", j->temporary, p->path);
	j->temporary[0] = 0;
	split(p->path, dir, sizeof dir, &name);
	return p->unsafe ? 0 : sync_path(j, dir, O_DIRECTORY);
}

int disk_place_end(struct disk_job *j, struct disk_place *p, int r)
{
	if (r == 0 && !p->in_place)
		r = put_in_place(j, p);
	if (j->temporary[0])
		unlink(j->temporary);
	j->temporary[0] = 0;
	if (p->guard)
		(void)block_close(p->guard, NULL);
	p->guard = NULL;
	return r;
}
