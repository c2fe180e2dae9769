/* file_lock: keeps a second writer, and a reader beside a writer, off an image; QEMU and qemu-img
 * included, whose scheme this is (QEMU's block/file-posix.c describes it). A user takes shared
 * locks of single bytes: byte 100 + p says that it uses permission p, byte 200 + p that it lets
 * nobody else use p. Then it looks whether somebody has locked the counterpart. Locks are those
 * of an open file description, so they also work between images of one process. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "block/file_priv.h"

#define USES   100
#define DENIES 200

enum { CONSISTENT_READ = 0, WRITE = 1, RESIZE = 3 };

static int set_byte(int fd, off_t byte)
{
	struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return fcntl(fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

/* Whether somebody else has locked it. */
static bool is_set(int fd, off_t byte)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static int set_all(int fd, bool writer)
{
	int r = set_byte(fd, USES + CONSISTENT_READ);

	if (r == 0 && writer)
		r = set_byte(fd, USES + WRITE);
	if (r == 0 && writer)
		r = set_byte(fd, USES + RESIZE);
	if (r == 0)
		r = set_byte(fd, DENIES + WRITE);
	return r < 0 ? r : set_byte(fd, DENIES + RESIZE);
}

int file_lock(int fd, bool writer, struct err *e)
{
	int r = set_all(fd, writer);

	if (r == -EAGAIN || r == -EACCES)
		return err_set(e, EAGAIN, "another program has locked it");
	if (r < 0)
		return 0; /* no locks on this file system */
	if (is_set(fd, USES + WRITE) || is_set(fd, USES + RESIZE))
		return err_set(e, EAGAIN, "another program writes to it (it is locked)");
	if (is_set(fd, DENIES + CONSISTENT_READ))
		return err_set(e, EAGAIN, "another program lets nobody read it (it is locked)");
	if (writer && (is_set(fd, DENIES + WRITE) || is_set(fd, DENIES + RESIZE)))
		return err_set(e, EAGAIN, "another program reads it (it is locked)");
	return 0;
}

void file_unlock(int fd)
{
	struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	fcntl(fd, F_OFD_SETLK, &l);
}
