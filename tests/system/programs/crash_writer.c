/* crash_writer: makes work for a disk that will be cut off at any moment, and says on standard
 * output what must be found there afterwards (crash.py looks).
 *
 *   crash_writer blocks DEVICE SEED BLOCKS FIRST   in rounds: writes a few blocks of 4 KiB (or
 *        zeros a range of them), fdatasync, prints "round N". Which blocks, and what they hold,
 *        follows from SEED and the round, which begins at FIRST.
 *   crash_writer files DIRECTORY FIRST   makes files one after another: fsync of the file and of
 *        the directory, prints "file N". File N is called that and holds what follows from N. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BLOCK         4096u
#define ROUND_MAX     8u
#define ZEROED        16u /* blocks, one qcow2 cluster */
#define ZERO_EVERY    7u
#define FILE_PIECES   40u /* of 512 bytes, at most */
#define FILE_PIECE    512u
#define FILES_AT_MOST 100000u

_Alignas(BLOCK) static uint8_t block[BLOCK];

static void must(int ok, const char *what)
{
	if (ok)
		return;
	printf("crash_writer: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* splitmix64, as crash.py has it */
static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static void fill(uint8_t *to, unsigned len, uint64_t seed)
{
	for (unsigned i = 0; i < len; i += 8) {
		uint64_t v = mix(seed + i / 8);

		memcpy(to + i, &v, 8);
	}
}

static void write_round(int fd, uint64_t seed, uint64_t round, uint64_t blocks)
{
	uint64_t r = mix(seed ^ mix(round));
	unsigned n = 1 + r % ROUND_MAX;

	for (unsigned i = 0; i < n; i++) {
		uint64_t at = mix(r + i) % blocks;

		fill(block, BLOCK, mix(seed ^ mix(round * ROUND_MAX + i)));
		memcpy(block, &round, 8);
		memcpy(block + 8, &at, 8);
		must(pwrite(fd, block, BLOCK, (off_t)(at * BLOCK)) == BLOCK, "write");
	}
}

static void zero_round(int fd, uint64_t seed, uint64_t round, uint64_t blocks)
{
	uint64_t at = mix(seed ^ mix(round)) % (blocks / ZEROED) * ZEROED;
	uint64_t range[2] = {at * BLOCK, ZEROED * BLOCK};

	must(ioctl(fd, BLKZEROOUT, range) == 0, "BLKZEROOUT");
}

static void blocks_mode(const char *device, uint64_t seed, uint64_t blocks, uint64_t first)
{
	int fd = open(device, O_RDWR | O_DIRECT);

	must(fd >= 0, device);
	for (uint64_t round = first;; round++) {
		if (round % ZERO_EVERY == 0)
			zero_round(fd, seed, round, blocks);
		else
			write_round(fd, seed, round, blocks);
		must(fdatasync(fd) == 0, "fdatasync");
		printf("round %llu\n", (unsigned long long)round);
	}
}

static void make_file(uint64_t n)
{
	static uint8_t bytes[FILE_PIECES * FILE_PIECE];
	unsigned len = (unsigned)(mix(n) % FILE_PIECES + 1) * FILE_PIECE;
	char name[32];
	int fd;

	snprintf(name, sizeof name, "%llu", (unsigned long long)n);
	fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0644);
	must(fd >= 0, name);
	fill(bytes, len, mix(~n));
	must(write(fd, bytes, len) == (ssize_t)len, "write");
	must(fsync(fd) == 0, "fsync");
	close(fd);
}

static void files_mode(const char *directory, uint64_t first)
{
	int dir = open(directory, O_RDONLY | O_DIRECTORY);

	must(dir >= 0 && fchdir(dir) == 0, directory);
	for (uint64_t n = first; n < FILES_AT_MOST; n++) {
		make_file(n);
		must(fsync(dir) == 0, "fsync of the directory");
		printf("file %llu\n", (unsigned long long)n);
	}
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 6 && !strcmp(argv[1], "blocks"))
		blocks_mode(argv[2], strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0),
			    strtoull(argv[5], NULL, 0));
	if (argc == 4 && !strcmp(argv[1], "files"))
		files_mode(argv[2], strtoull(argv[3], NULL, 0));
	return 1;
}
