#include "api/fds.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * API_FDS_MAX)];
};

int api_fds_take(struct api_fds *f, unsigned i)
{
	int fd = i < f->n ? f->fd[i] : -1;

	if (fd >= 0)
		f->fd[i] = -1;
	return fd;
}

void api_fds_close(struct api_fds *f)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->fd[i] >= 0)
			close(f->fd[i]);
	f->n = 0;
	f->too_many = false;
}

static void add(struct api_fds *f, int fd)
{
	if (f->n < API_FDS_MAX) {
		f->fd[f->n++] = fd;
		return;
	}
	close(fd);
	f->too_many = true;
}

ssize_t api_fds_read(int socket, void *to, size_t max, struct api_fds *f)
{
	union control control;
	struct iovec iov = {to, max};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.bytes,
			   .msg_controllen = sizeof control.bytes};
	ssize_t r = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);

	if (r < 0)
		return r;
	/* The kernel has closed those that found no room. */
	f->too_many |= (m.msg_flags & MSG_CTRUNC) != 0;
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
			add(f, fd);
		}
	}
	return r;
}

ssize_t api_fds_send(int socket, const void *from, size_t len, const struct api_fds *f)
{
	union control control = {0};
	struct iovec iov = {(void *)from, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *h;

	if (f->n) {
		m.msg_control = control.bytes;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * f->n);
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int) * f->n);
		memcpy(CMSG_DATA(h), f->fd, sizeof(int) * f->n);
	}
	return sendmsg(socket, &m, MSG_NOSIGNAL);
}
