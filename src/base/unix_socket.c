#include "base/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int new_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

static bool set_address(struct sockaddr_un *a, const char *path)
{
	size_t len = strlen(path);

	if (len == 0 || len > UNIX_PATH_MAX)
		return false;
	memset(a, 0, sizeof *a);
	a->sun_family = AF_UNIX;
	memcpy(a->sun_path, path, len + 1);
	return true;
}

int unix_connect(const char *path)
{
	struct sockaddr_un a;
	int fd, r;

	if (!set_address(&a, path))
		return -ENAMETOOLONG;
	fd = new_socket();
	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* Whether the file at path is a socket that nobody listens on any more. */
static bool is_stale(const char *path)
{
	struct stat st;
	int fd;

	if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = unix_connect(path);
	if (fd >= 0)
		close(fd);
	return fd == -ECONNREFUSED;
}

static int bind_to(int fd, const char *path, struct err *e)
{
	struct sockaddr_un a;

	if (!set_address(&a, path))
		return err_set(e, ENAMETOOLONG, "socket '%s': a path of 1 to %d bytes is possible",
			       path, UNIX_PATH_MAX);
	/* The file gets the socket's mode: nobody else ever sees it open to them. */
	if (fchmod(fd, 0600) < 0)
		return err_sys(e, errno, "socket '%s'", path);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) == 0)
		return 0;
	if (errno == EADDRINUSE && is_stale(path) && unlink(path) == 0 &&
	    bind(fd, (struct sockaddr *)&a, sizeof a) == 0)
		return 0;
	if (errno == EADDRINUSE)
		return err_set(e, EADDRINUSE, "socket '%s': something else is there", path);
	return err_sys(e, errno, "socket '%s'", path);
}

int unix_listen(struct unix_listener *l, const char *path, struct err *e)
{
	struct stat st;
	int r;

	l->spare = -1;
	l->fd = new_socket();
	if (l->fd < 0)
		return err_sys(e, -l->fd, "socket '%s'", path);
	r = bind_to(l->fd, path, e);
	if (r < 0) {
		close(l->fd);
		l->fd = -1;
		return r;
	}
	strcpy(l->path, path);
	if (lstat(path, &st) == 0) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	if (listen(l->fd, 128) < 0) {
		r = err_sys(e, errno, "listen at '%s'", path);
		unix_listener_done(l);
		return r;
	}
	l->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return 0;
}

void unix_listener_done(struct unix_listener *l)
{
	struct stat st;

	if (l->fd < 0)
		return;
	close(l->fd);
	if (l->spare >= 0)
		close(l->spare);
	l->fd = l->spare = -1;
	if (lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
}

static int take(const struct unix_listener *l)
{
	int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int unix_accept(struct unix_listener *l)
{
	int fd = take(l);

	if (fd != -EMFILE && fd != -ENFILE)
		return fd;
	/* The client would wait, and the event loop not sleep, until one is free. */
	if (l->spare >= 0)
		close(l->spare);
	fd = take(l);
	if (fd >= 0)
		close(fd);
	l->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return fd == -EAGAIN ? fd : -EMFILE;
}
