/* The flash in which a UEFI keeps its variables, just below its ROM. Its bytes are read from a file
 * at the start; what the guest writes goes there at once, and the file is locked meanwhile, as two
 * machines would ruin it. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "chipset/pflash.h"

#define FLASH_MAX MIB(4)

struct machine_flash {
	struct machine *m;
	struct device *device;
	int fd; /* -1: what is written is not kept */
	bool failed_before;
	uint32_t len;
	uint8_t *bytes;
};

static void save(void *ctx, uint32_t at, uint32_t len)
{
	struct machine_flash *f = ctx;

	if (f->fd < 0 || pwrite(f->fd, f->bytes + at, len, at) == (ssize_t)len)
		return;
	if (!f->failed_before)
		log_warn("%s: the firmware's variables cannot be saved: %s", f->m->name,
			 strerror(errno));
	f->failed_before = true;
}

static int read_file(struct machine_flash *f, int fd, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(e, errno, "stat");
	if (st.st_size <= 0 || st.st_size > (off_t)FLASH_MAX || st.st_size % PFLASH_BLOCK)
		return err_set(e, EINVAL,
			       "%lld bytes are no firmware's variables: at most 4 MiB, "
			       "in units of 4 KiB",
			       (long long)st.st_size);
	f->len = (uint32_t)st.st_size;
	f->bytes = malloc(f->len);
	if (!f->bytes)
		return err_set(e, ENOMEM, "out of memory");
	if (pread(fd, f->bytes, f->len, 0) != (ssize_t)f->len)
		return err_sys(e, errno ? errno : EIO, "read");
	return 0;
}

static int open_file(struct machine_flash *f, const char *path, bool keep, struct err *e)
{
	int fd = open(path, (keep ? O_RDWR : O_RDONLY) | O_CLOEXEC), r = 0;

	if (fd < 0)
		return err_sys(e, errno, "open");
	if (keep && flock(fd, LOCK_EX | LOCK_NB) < 0)
		r = errno == EWOULDBLOCK
			    ? err_set(e, EBUSY, "another VM of this name runs (see --name)")
			    : err_sys(e, errno, "lock");
	if (r == 0)
		r = read_file(f, fd, e);
	if (r == 0 && keep)
		f->fd = fd;
	else
		close(fd);
	return r;
}

int machine_flash_new(struct machine_flash **out, struct machine *m, const char *path, bool keep,
		      struct err *e)
{
	struct machine_flash *f = calloc(1, sizeof *f);
	struct pflash_opts o = {.save = save, .ctx = f};
	int r;

	if (!f)
		return err_set(e, ENOMEM, "firmware's variables");
	f->m = m;
	f->fd = -1;
	r = open_file(f, path, keep, e);
	if (r == 0) {
		o.bytes = f->bytes;
		o.len = f->len;
		o.gpa = mem_rom(m->mem)->gpa - f->len;
		r = pflash_new(&f->device, m->bus, &o, e);
	}
	if (r < 0) {
		machine_flash_free(f);
		return err_wrap(e, "variables '%s'", path);
	}
	*out = f;
	return 0;
}

void machine_flash_reset(struct machine_flash *f)
{
	f->device->type->reset(f->device);
}

void machine_flash_free(struct machine_flash *f)
{
	if (!f)
		return;
	if (f->device)
		f->device->type->free(f->device);
	if (f->fd >= 0)
		close(f->fd);
	free(f->bytes);
	free(f);
}
