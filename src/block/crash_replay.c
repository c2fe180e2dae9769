#include "block/crash_replay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "block/crashlog.h"

#define SECTOR 512

struct change {
	struct crash_record r;
	const uint8_t *data;
	uint64_t covered_at; /* the moment from which on a flush covers it */
};

struct crash_replay {
	char *base; /* path */
	uint8_t *log;
	struct change *change; /* by record number; all kinds */
	uint64_t records;
};

static int read_file(const char *path, uint8_t **out, uint64_t *len, struct err *e)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat s;

	if (fd < 0 || fstat(fd, &s) < 0)
		return err_sys(e, errno, "'%s'", path);
	*out = malloc(s.st_size + 1);
	if (!*out)
		return err_sys(e, ENOMEM, "'%s'", path);
	*len = s.st_size;
	for (uint64_t at = 0; at < *len;) {
		ssize_t n = pread(fd, *out + at, *len - at, at);

		if (n <= 0)
			return err_sys(e, n < 0 ? errno : EIO, "read '%s'", path);
		at += n;
	}
	return 0;
}

static int index_records(struct crash_replay *c, uint64_t len, struct err *e)
{
	uint64_t at = 0, room = len / sizeof(struct crash_record) + 1;

	c->change = calloc(room, sizeof *c->change);
	if (!c->change)
		return err_sys(e, ENOMEM, "crash log");
	while (len - at >= sizeof(struct crash_record)) {
		struct change *x = &c->change[c->records++];

		memcpy(&x->r, c->log + at, sizeof x->r);
		at += sizeof x->r;
		x->data = c->log + at;
		x->covered_at = UINT64_MAX;
		if (x->r.kind == CRASH_WRITE && x->r.len > len - at)
			return err_set(e, EINVAL, "crash log: cut short");
		if (x->r.kind == CRASH_WRITE)
			at += x->r.len;
	}
	for (uint64_t i = 0; i < c->records; i++)
		if (c->change[i].r.kind == CRASH_COMPLETE && c->change[i].r.offset >= i)
			return err_set(e, EINVAL, "crash log: not one");
	return at == len ? 0 : err_set(e, EINVAL, "crash log: cut short");
}

/* A flush that succeeded, record number `flush`, complete at `end`. */
static void cover(struct crash_replay *c, uint64_t flush, uint64_t end)
{
	for (uint64_t i = 0; i < flush; i++) {
		const struct crash_record *r = &c->change[i].r;

		if (r->kind == CRASH_COMPLETE && !r->len)
			c->change[r->offset].covered_at =
				min_u64(c->change[r->offset].covered_at, end + 1);
	}
}

int crash_replay_open(struct crash_replay **out, const char *log, struct err *e)
{
	struct crash_replay *c = calloc(1, sizeof *c);
	uint64_t len;
	int r = 0;

	if (!c || asprintf(&c->base, "%s.base", log) < 0)
		r = err_sys(e, ENOMEM, "crash log");
	if (r == 0)
		r = read_file(log, &c->log, &len, e);
	if (r == 0)
		r = index_records(c, len, e);
	for (uint64_t i = 0; r == 0 && i < c->records; i++) {
		const struct crash_record *x = &c->change[i].r;

		if (x->kind == CRASH_COMPLETE && !x->len &&
		    c->change[x->offset].r.kind == CRASH_FLUSH)
			cover(c, x->offset, i);
	}
	if (r < 0)
		crash_replay_free(c);
	else
		*out = c;
	return r;
}

void crash_replay_free(struct crash_replay *c)
{
	if (!c)
		return;
	free(c->base);
	free(c->log);
	free(c->change);
	free(c);
}

uint64_t crash_replay_records(const struct crash_replay *c)
{
	return c->records;
}

static uint64_t next_random(uint64_t *s)
{
	uint64_t z = *s += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static bool put(int fd, const void *data, uint64_t len, uint64_t offset)
{
	return pwrite(fd, data, len, offset) == (ssize_t)len;
}

static bool put_zeros(int fd, uint64_t offset, uint64_t len)
{
	static const uint8_t zeros[4096];
	bool ok = true;

	while (len && ok) {
		uint64_t piece = min_u64(len, sizeof zeros);

		ok = put(fd, zeros, piece, offset);
		offset += piece;
		len -= piece;
	}
	return ok;
}

/* Of each sector, by chance, the new bytes or what was there. */
static bool put_torn(int fd, const struct change *x, uint64_t *random)
{
	bool ok = true;
	uint64_t piece;

	for (uint64_t at = 0; at < x->r.len && ok; at += piece) {
		piece = min_u64(SECTOR - (x->r.offset + at) % SECTOR, x->r.len - at);
		if (next_random(random) & 1)
			ok = put(fd, x->data + at, piece, x->r.offset + at);
	}
	return ok;
}

static bool apply(int fd, const struct change *x, bool torn, uint64_t *random)
{
	switch (x->r.kind) {
	case CRASH_WRITE:
		return torn ? put_torn(fd, x, random) : put(fd, x->data, x->r.len, x->r.offset);
	case CRASH_ZERO:
	case CRASH_DISCARD: return put_zeros(fd, x->r.offset, x->r.len);
	case CRASH_TRUNCATE: return ftruncate(fd, x->r.offset) == 0;
	default: return true;
	}
}

static bool copy_base(struct crash_replay *c, int fd, struct err *e)
{
	AUTO_FREE uint8_t *bytes = NULL;
	uint64_t len;

	return read_file(c->base, &bytes, &len, e) == 0 && put(fd, bytes, len, 0);
}

int crash_replay_make(struct crash_replay *c, uint64_t moment, uint64_t choice, const char *path,
		      struct err *e)
{
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	uint64_t random = choice;
	bool ok;

	if (fd < 0)
		return err_sys(e, errno, "'%s'", path);
	ok = copy_base(c, fd, e);
	for (uint64_t i = 0; ok && i < min_u64(moment, c->records); i++) {
		const struct change *x = &c->change[i];
		unsigned fate = 2; /* there */

		if (x->covered_at > moment && choice != CRASH_ALL)
			fate = choice == CRASH_NONE ? 0 : next_random(&random) % 4;
		if (fate)
			ok = apply(fd, x, fate == 1, &random);
	}
	return ok ? 0 : err_sys(e, errno, "make '%s'", path);
}
