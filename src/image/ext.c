/* libext2fs over a disk_source. It reads a block at a time; a window of the disk is kept, so
 * that a file's blocks, which mostly follow each other, come in a few large reads. */
#include "image/ext.h"

#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"

#define READS_MAX    400000u /* of libext2fs: a gigabyte in blocks of 4 KiB, and then some */
#define SECONDS_MAX  20
#define WINDOW_BYTES KIB(256)

struct ext {
	struct struct_io_channel channel;
	struct disk_source *source;
	ext2_filsys fs;
	unsigned reads;
	int error; /* the source's, or that a limit was met */
	time_t deadline;
	uint64_t window_at, window_len;
	uint8_t window[WINDOW_BYTES];
};

static time_t seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* --- libext2fs's way to the disk --- */

static int fill_window(struct ext *x, uint64_t at)
{
	uint64_t start = align_down(at, KIB(4));
	uint64_t len = min_u64(WINDOW_BYTES, x->source->size - start);
	int r = x->source->read(x->source, start, x->window, len);

	x->window_at = start;
	x->window_len = r < 0 ? 0 : len;
	return r;
}

static int read_bytes(struct ext *x, uint64_t at, uint8_t *to, uint64_t len)
{
	if (at > x->source->size || len > x->source->size - at)
		return -EIO;
	while (len) {
		uint64_t skip, n;
		int r;

		if ((at < x->window_at || at - x->window_at >= x->window_len) &&
		    (r = fill_window(x, at)) < 0)
			return r;
		skip = at - x->window_at;
		n = min_u64(len, x->window_len - skip);
		memcpy(to, x->window + skip, n);
		to += n;
		at += n;
		len -= n;
	}
	return 0;
}

/* count: blocks, or bytes when negative. */
static errcode_t read_blk64(io_channel c, unsigned long long block, int count, void *to)
{
	struct ext *x = c->private_data;
	uint64_t len =
		count < 0 ? (uint64_t) - (int64_t)count : (uint64_t)count * (unsigned)c->block_size;
	uint64_t at;
	int r;

	if (++x->reads > READS_MAX || seconds_now() > x->deadline)
		x->error = -ETIMEDOUT;
	if (x->error)
		return -x->error;
	if (__builtin_mul_overflow(block, (unsigned)c->block_size, &at))
		return EIO;
	r = read_bytes(x, at, to, len);
	if (r < 0 && r != -EIO)
		x->error = r;
	return -r;
}

static errcode_t read_blk(io_channel c, unsigned long block, int count, void *to)
{
	return read_blk64(c, block, count, to);
}

static errcode_t refuse_write(io_channel c, unsigned long block, int count, const void *from)
{
	return EROFS;
}

static errcode_t refuse_write64(io_channel c, unsigned long long block, int count, const void *from)
{
	return EROFS;
}

static errcode_t set_blksize(io_channel c, int size)
{
	if (size < 1024 || size > 65536)
		return EINVAL;
	c->block_size = size;
	return 0;
}

static errcode_t nothing_to_flush(io_channel c)
{
	return 0;
}

static errcode_t close_channel(io_channel c)
{
	return 0; /* it is a part of struct ext */
}

static errcode_t open_channel(const char *name, int flags, io_channel *out);

static struct struct_io_manager *manager(void)
{
	static const struct struct_io_manager m = {
		.magic = EXT2_ET_MAGIC_IO_MANAGER,
		.name = "holon",
		.open = open_channel,
		.close = close_channel,
		.set_blksize = set_blksize,
		.read_blk = read_blk,
		.write_blk = refuse_write,
		.flush = nothing_to_flush,
		.read_blk64 = read_blk64,
		.write_blk64 = refuse_write64,
	};

	return (struct struct_io_manager *)(uintptr_t)&m; /* libext2fs only reads it */
}

/* libext2fs hands over nothing but a name, so the name is where the struct lies. */
static errcode_t open_channel(const char *name, int flags, io_channel *out)
{
	struct ext *x = (struct ext *)(uintptr_t)strtoumax(name, NULL, 16);

	x->channel = (struct struct_io_channel){
		.magic = EXT2_ET_MAGIC_IO_CHANNEL,
		.manager = manager(),
		.block_size = 1024,
		.refcount = 1,
		.name = NULL,
		.private_data = x,
	};
	*out = &x->channel;
	return 0;
}

/* --- */

/* Codes of libext2fs's own are far above errno's. */
static int failed(const struct ext *x, errcode_t code, const char *path, struct err *e)
{
	if (x->error == -ETIMEDOUT)
		return err_set(e, ETIMEDOUT, "'%s': the file system on the disk leads nowhere",
			       path);
	if (x->error)
		return err_sys(e, -x->error, "'%s' on the disk", path);
	if (code == EXT2_ET_FILE_NOT_FOUND)
		return err_set(e, ENOENT, "there is no '%s' on the disk", path);
	if (code > 0 && code < 4096)
		return err_sys(e, (int)code, "'%s' on the disk", path);
	return err_set(e, EUCLEAN, "'%s' on the disk: %s", path, error_message(code));
}

int ext_open(struct ext **out, struct disk_source *s, struct err *e)
{
	struct ext *x = calloc(1, sizeof *x);
	char name[32];
	errcode_t code;

	if (!x)
		return err_set(e, ENOMEM, "out of memory");
	x->source = s;
	x->deadline = seconds_now() + SECONDS_MAX;
	snprintf(name, sizeof name, "%" PRIxPTR, (uintptr_t)x);
	code = ext2fs_open(name, EXT2_FLAG_64BITS, 0, 0, manager(), &x->fs);
	if (code) {
		int r = code == EXT2_ET_BAD_MAGIC
				? err_set(e, ENOEXEC, "no ext2, ext3 or ext4 file system")
				: failed(x, code, "/", e);
		x->fs = NULL;
		ext_close(x);
		return r;
	}
	*out = x;
	return 0;
}

void ext_close(struct ext *x)
{
	if (x && x->fs)
		ext2fs_free(x->fs);
	free(x);
}

void ext_uuid(const struct ext *x, char to[37])
{
	const uint8_t *u = x->fs->super->s_uuid;

	for (unsigned i = 0; i < 16; i++)
		to += sprintf(to, "%02x%s", u[i], i == 3 || i == 5 || i == 7 || i == 9 ? "-" : "");
}

static errcode_t find(struct ext *x, const char *path, bool follow, ext2_ino_t *ino)
{
	return (follow ? ext2fs_namei_follow : ext2fs_namei)(x->fs, EXT2_ROOT_INO, EXT2_ROOT_INO,
							     path, ino);
}

bool ext_has(struct ext *x, const char *path)
{
	ext2_ino_t ino;

	return find(x, path, true, &ino) == 0;
}

static errcode_t open_regular(struct ext *x, const char *path, ext2_file_t *file)
{
	struct ext2_inode inode;
	ext2_ino_t ino;
	errcode_t code = find(x, path, true, &ino);

	if (code == 0)
		code = ext2fs_read_inode(x->fs, ino, &inode);
	if (code)
		return code;
	if (!LINUX_S_ISREG(inode.i_mode))
		return EXT2_ET_FILE_NOT_FOUND;
	return ext2fs_file_open(x->fs, ino, 0, file);
}

bool ext_link(struct ext *x, const char *path, char *to, uint32_t len)
{
	struct ext2_inode inode;
	ext2_ino_t ino;
	uint32_t size;

	if (find(x, path, false, &ino) || ext2fs_read_inode(x->fs, ino, &inode) ||
	    !LINUX_S_ISLNK(inode.i_mode))
		return false;
	size = inode.i_size;
	/* A longer one would lie in a block of its own, and is no kernel's. */
	if (!ext2fs_is_fast_symlink(&inode) || size >= sizeof inode.i_block || size >= len)
		return false;
	memcpy(to, inode.i_block, size);
	to[size] = 0;
	return true;
}

struct listing {
	bool (*name)(void *ctx, const char *name);
	void *ctx;
};

static int list_entry(struct ext2_dir_entry *d, int offset, int blocksize, char *buf, void *arg)
{
	struct listing *l = arg;
	char name[EXT2_NAME_LEN + 1];
	int len = ext2fs_dirent_name_len(d);

	memcpy(name, d->name, (size_t)len);
	name[len] = 0;
	return l->name(l->ctx, name) ? 0 : DIRENT_ABORT;
}

int ext_list(struct ext *x, const char *path, bool (*name)(void *ctx, const char *name), void *ctx,
	     struct err *e)
{
	struct listing l = {name, ctx};
	ext2_ino_t ino;
	errcode_t code = find(x, path, true, &ino);

	if (code == 0)
		code = ext2fs_dir_iterate(x->fs, ino, 0, NULL, list_entry, &l);
	return code ? failed(x, code, path, e) : 0;
}

int ext_text(struct ext *x, const char *path, char *to, uint32_t len, struct err *e)
{
	ext2_file_t file;
	unsigned got = 0;
	errcode_t code = open_regular(x, path, &file);

	if (code == 0) {
		code = ext2fs_file_read(file, to, len - 1, &got);
		ext2fs_file_close(file);
	}
	if (code)
		return failed(x, code, path, e);
	to[got] = 0;
	return 0;
}

static int write_all(int fd, const uint8_t *p, unsigned len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			p += n;
			len -= (unsigned)n;
		}
	}
	return 0;
}

static int copy_open(struct ext *x, const char *path, ext2_file_t file, int fd, struct err *e)
{
	AUTO_FREE uint8_t *buf = malloc(WINDOW_BYTES);
	unsigned got;

	if (!buf)
		return err_set(e, ENOMEM, "out of memory");
	for (;;) {
		errcode_t code = ext2fs_file_read(file, buf, WINDOW_BYTES, &got);
		int r;

		if (code)
			return failed(x, code, path, e);
		if (!got)
			return 0;
		if ((r = write_all(fd, buf, got)) < 0)
			return err_sys(e, -r, "a copy of '%s'", path);
	}
}

int ext_copy(struct ext *x, const char *path, uint64_t max, int fd, struct err *e)
{
	ext2_file_t file;
	__u64 size = 0;
	errcode_t code = open_regular(x, path, &file);
	int r;

	if (code)
		return failed(x, code, path, e);
	code = ext2fs_file_get_lsize(file, &size);
	if (code)
		r = failed(x, code, path, e);
	else if (!size || size > max)
		r = err_set(e, EFBIG, "'%s' on the disk has %llu bytes", path,
			    (unsigned long long)size);
	else
		r = copy_open(x, path, file, fd, e);
	ext2fs_file_close(file);
	return r;
}
