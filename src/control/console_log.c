#include "control/console_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"

#define MAGIC UINT64_C(0x676f6c6e6f6c6f68)

struct console_log_file {
	uint64_t magic;
	_Atomic uint64_t end;
	uint8_t ring[CONSOLE_LOG_BYTES];
};

static int map(struct console_log *l, int fd, int flags, struct err *e)
{
	void *at = mmap(NULL, sizeof *l->file, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (at == MAP_FAILED)
		return err_sys(e, errno, "the console's log");
	l->file = at;
	pthread_mutex_init(&l->lock, NULL);
	return 0;
}

int console_log_new(struct console_log *l, const char *path, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	int r;

	l->file = NULL;
	if (path) {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 || ftruncate(fd, sizeof *l->file) < 0)
			return err_sys(e, errno, "'%s'", path);
	}
	r = map(l, fd, path ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, e);
	if (r == 0)
		l->file->magic = MAGIC;
	return r;
}

int console_log_open(struct console_log *l, const char *path, struct err *e)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	int r;

	l->file = NULL;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(e, errno, "'%s'", path);
	if (!S_ISREG(st.st_mode) || st.st_size != sizeof *l->file)
		return err_set(e, EBADMSG, "'%s' is no console's log", path);
	r = map(l, fd, MAP_PRIVATE, e);
	if (r == 0 && l->file->magic != MAGIC) {
		console_log_done(l);
		r = err_set(e, EBADMSG, "'%s' is no console's log", path);
	}
	return r;
}

void console_log_done(struct console_log *l)
{
	if (!l->file)
		return;
	munmap(l->file, sizeof *l->file);
	pthread_mutex_destroy(&l->lock);
	l->file = NULL;
}

void console_log_put(struct console_log *l, const void *bytes, uint32_t len)
{
	const uint8_t *from = bytes;

	AUTO_LOCK(&l->lock);
	while (len) {
		uint64_t end = atomic_load(&l->file->end), at = end % CONSOLE_LOG_BYTES;
		uint32_t n = (uint32_t)min_u64(len, CONSOLE_LOG_BYTES - at);

		memcpy(l->file->ring + at, from, n);
		atomic_store(&l->file->end, end + n);
		from += n;
		len -= n;
	}
}

uint64_t console_log_end(struct console_log *l)
{
	return atomic_load(&l->file->end);
}

static uint64_t oldest(uint64_t end)
{
	return end > CONSOLE_LOG_BYTES ? end - CONSOLE_LOG_BYTES : 0;
}

uint32_t console_log_read(struct console_log *l, uint64_t *at, void *to, uint32_t max)
{
	uint8_t *bytes = to;
	uint32_t done = 0;
	uint64_t end;

	AUTO_LOCK(&l->lock);
	end = console_log_end(l);
	if (*at > end)
		*at = end;
	*at = max_u64(*at, oldest(end));
	while (done < max && *at < end) {
		uint64_t place = *at % CONSOLE_LOG_BYTES;
		uint32_t n = (uint32_t)min_u64(min_u64(max - done, end - *at),
					       CONSOLE_LOG_BYTES - place);

		memcpy(bytes + done, l->file->ring + place, n);
		done += n;
		*at += n;
	}
	return done;
}

uint64_t console_log_lines(struct console_log *l, uint32_t lines)
{
	uint64_t end, at;

	AUTO_LOCK(&l->lock);
	end = at = console_log_end(l);
	while (at > oldest(end)) {
		bool newline = l->file->ring[(at - 1) % CONSOLE_LOG_BYTES] == '\n';

		/* The one that ends the last line begins none. */
		if (newline && at != end && !--lines)
			break;
		if (!lines)
			break;
		at--;
	}
	return at;
}
