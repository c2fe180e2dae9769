#include "share/share_fixture.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct share *share;
char top[64];
uint8_t answer[SHARE_WRITE_MAX + 4096] __attribute__((aligned(8)));
uint32_t answer_len, caller_uid, caller_gid;
int error;

static void need(bool good)
{
	if (!good)
		abort();
}

const char *host_path(const char *name)
{
	static char path[4][512];
	static unsigned n;

	n = (n + 1) % 4;
	snprintf(path[n], sizeof path[n], "%s/%s", top, name);
	return path[n];
}

void host_write(const char *name, const char *text)
{
	FILE *f = fopen(host_path(name), "w");

	need(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

bool host_has(const char *name)
{
	struct stat st;

	return lstat(host_path(name), &st) == 0;
}

void share_again(const struct share_opts *o)
{
	struct share_opts with = *o;
	struct err e = {0};

	share_free(share);
	with.dir = open(host_path("share"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	need(share_new(&share, &with, &e) == 0 && share_begin(share) == 0);
	begin_session();
}

int share_setup(void **state)
{
	strcpy(top, "/tmp/holon-share.XXXXXX");
	need(mkdtemp(top));
	need(mkdir(host_path("share"), 0755) == 0 && mkdir(host_path("outside"), 0755) == 0);
	host_write("outside/secret", SECRET);
	share = NULL;
	caller_uid = caller_gid = 0;
	share_again(&(struct share_opts){0});
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return remove(path);
}

int share_teardown(void **state)
{
	share_free(share);
	share = NULL;
	nftw(top, remove_one, 64, FTW_DEPTH | FTW_PHYS);
	return 0;
}

int ask_room(uint32_t opcode, uint64_t node, const void *args, size_t args_len, const void *more,
	     size_t more_len, size_t room)
{
	static uint64_t unique;
	struct fuse_in_header h = {
		.len = (uint32_t)(sizeof h + args_len + more_len),
		.opcode = opcode,
		.unique = ++unique,
		.nodeid = node,
		.uid = caller_uid,
		.gid = caller_gid,
	};
	struct fuse_out_header o = {0};
	/* In pieces that end anywhere. */
	const struct iovec in[] = {{&h, 13},
				   {(uint8_t *)&h + 13, sizeof h - 13},
				   {(void *)args, args_len},
				   {(void *)more, more_len}};
	const struct iovec out[] = {
		{&o, min_u64(room, sizeof o)},
		{answer, room > sizeof o ? min_u64(room - sizeof o, sizeof answer) : 0}};
	uint32_t n = share_serve(share, in, 4, out, 2);

	answer_len = 0;
	if (!n)
		return 1; /* no answer */
	need(n >= sizeof o && n <= room && o.len == n && o.unique == h.unique);
	answer_len = n - (uint32_t)sizeof o;
	return error = o.error;
}

int ask(uint32_t opcode, uint64_t node, const void *args, size_t args_len, const void *more,
	size_t more_len)
{
	return ask_room(opcode, node, args, args_len, more, more_len,
			sizeof answer + sizeof(struct fuse_out_header));
}

int ask_name(uint32_t opcode, uint64_t node, const void *args, size_t args_len, const char *name)
{
	return ask(opcode, node, args, args_len, name, strlen(name) + 1);
}

void begin_session(void)
{
	const struct fuse_init_in in = {.major = 7, .minor = 36, .flags = ~0u};

	need(ask(FUSE_INIT, 0, &in, sizeof in, NULL, 0) == 0);
}

const struct fuse_attr *entry_attr(void)
{
	return &((const struct fuse_entry_out *)answer)->attr;
}

static uint64_t entry(int r)
{
	return r ? 0 : ((const struct fuse_entry_out *)answer)->nodeid;
}

uint64_t lookup(uint64_t dir, const char *name)
{
	return entry(ask_name(FUSE_LOOKUP, dir, NULL, 0, name));
}

uint64_t make_dir_in(uint64_t dir, const char *name)
{
	const struct fuse_mkdir_in in = {.mode = 0755};

	return entry(ask_name(FUSE_MKDIR, dir, &in, sizeof in, name));
}

uint64_t create(uint64_t dir, const char *name, uint32_t flags, uint64_t *fh)
{
	const struct fuse_create_in in = {.flags = flags | O_CREAT, .mode = S_IFREG | 0644};
	uint64_t n = entry(ask_name(FUSE_CREATE, dir, &in, sizeof in, name));

	if (n && fh)
		*fh = ((const struct fuse_open_out *)(answer + sizeof(struct fuse_entry_out)))->fh;
	return n;
}

uint64_t open_node(uint64_t node, uint32_t flags)
{
	const struct fuse_open_in in = {.flags = flags};

	return ask(FUSE_OPEN, node, &in, sizeof in, NULL, 0)
		       ? 0
		       : ((const struct fuse_open_out *)answer)->fh;
}

int read_node(uint64_t fh, uint64_t offset, uint32_t size)
{
	const struct fuse_read_in in = {.fh = fh, .offset = offset, .size = size};
	int r = ask(FUSE_READ, FUSE_ROOT_ID, &in, sizeof in, NULL, 0);

	return r ? r : (int)answer_len;
}

int write_node(uint64_t fh, uint64_t offset, const void *from, uint32_t len)
{
	const struct fuse_write_in in = {.fh = fh, .offset = offset, .size = len};
	int r = ask(FUSE_WRITE, FUSE_ROOT_ID, &in, sizeof in, from, len);

	return r ? r : (int)((const struct fuse_write_out *)answer)->size;
}

void forget(uint64_t node, uint64_t lookups)
{
	const struct fuse_forget_in in = {.nlookup = lookups};

	need(ask(FUSE_FORGET, node, &in, sizeof in, NULL, 0) == 1);
}

const struct fuse_attr *attr_of(uint64_t node)
{
	const struct fuse_getattr_in in = {0};

	return ask(FUSE_GETATTR, node, &in, sizeof in, NULL, 0)
		       ? NULL
		       : &((const struct fuse_attr_out *)answer)->attr;
}
