/* share_fuzz: a guest's kernel that says anything to a share, made from the input: requests with
 * numbers of files and of open files that it was given, or any; names good and bad; any arguments.
 * Nothing may crash, and what lies beside the folder may neither be read nor changed. */
#include "share/share_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KNOWN 16

static const char *const name[] = {
	"a",
	"b",
	"d",
	"link",
	"out",
	"file",
	"..",
	".",
	"",
	"/etc/passwd",
	"../outside/secret",
	"d/a",
	"secret",
	"outside",
	"user.x",
	"security.capability",
};

struct input {
	const uint8_t *at;
	size_t left;
};

static uint64_t node[KNOWN], fh[KNOWN]; /* what was given last */

static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes && in->left; i++, in->at++, in->left--)
		v |= (uint64_t)*in->at << (8 * i);
	return v;
}

static uint64_t any_node(struct input *in)
{
	unsigned which = (unsigned)take(in, 1);

	return which < 0xf0 ? node[which % KNOWN] : take(in, 8);
}

static size_t put_name(uint8_t *to, struct input *in)
{
	const char *n = name[take(in, 1) % ARRAY_SIZE(name)];

	memcpy(to, n, strlen(n) + 1);
	return strlen(n) + 1;
}

static void learn(uint32_t op, unsigned slot)
{
	const struct fuse_entry_out *e = (void *)answer;
	const struct fuse_open_out *o = (void *)answer;

	if (memmem(answer, answer_len, SECRET, strlen(SECRET)))
		abort();
	if (op == FUSE_CREATE && answer_len == sizeof *e + sizeof *o)
		fh[slot] = ((const struct fuse_open_out *)(answer + sizeof *e))->fh;
	if (answer_len >= sizeof *e && op != FUSE_READ)
		node[slot] = e->nodeid;
	else if (op == FUSE_OPEN || op == FUSE_OPENDIR)
		fh[slot] = o->fh;
}

static void step(struct input *in)
{
	uint32_t op = (uint32_t)take(in, 1) % 56;
	uint64_t at = any_node(in), how = take(in, 1);
	size_t args = take(in, 1) % 96, len = 0;
	uint8_t body[512] = {0};

	for (; len < args && in->left; len++)
		body[len] = (uint8_t)take(in, 1);
	len = args;
	if (how & 1)
		store_le(body, fh[how >> 4], 8);
	if (how & 2)
		store_le(body, node[how >> 4], 8);
	/* What would only fill the host's disk. */
	if (op == FUSE_FALLOCATE || op == FUSE_COPY_FILE_RANGE || op == FUSE_SETATTR)
		memset(body + 18, 0, 6), memset(body + 10, 0, 6);
	if (how & 4)
		len += put_name(body + len, in);
	if (how & 8)
		len += put_name(body + len, in);
	if (ask_room(op, at, body, len, NULL, 0, take(in, 1) * 64) == 0)
		learn(op, (unsigned)(how >> 4));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct rlimit small = {MIB(1), MIB(1)};
	struct input in = {data, size};
	struct stat before, after;

	if (size > 4096)
		return -1;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &small);
	share_setup(NULL);
	host_write("share/file", "text");
	(void)!mkdir(host_path("share/d"), 0755);
	(void)!symlink("../outside", host_path("share/out"));
	(void)!symlink("../outside/secret", host_path("share/link"));
	(void)!lstat(host_path("outside/secret"), &before);
	for (unsigned i = 0; i < KNOWN; i++)
		node[i] = FUSE_ROOT_ID;
	if (take(&in, 1) & 1)
		share_again(&(struct share_opts){.force_squash = true, .writeback = true});
	while (in.left)
		step(&in);
	if (lstat(host_path("outside/secret"), &after) < 0 ||
	    memcmp(&before.st_ctim, &after.st_ctim, sizeof before.st_ctim) != 0 ||
	    after.st_nlink != 1)
		abort();
	share_teardown(NULL);
	return 0;
}
