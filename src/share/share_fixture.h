/* share_fixture: for tests, a guest's kernel that says whatever the test wants, word by word, to a
 * share of a folder in the temporary one; beside that folder lies what nobody may reach.
 *
 *   TOP/share          the folder
 *   TOP/outside        another one, in which is
 *   TOP/outside/secret a file with SECRET in it
 *
 * One share at a time. */
#pragma once

#include <linux/fuse.h>
#include <sys/stat.h>

#include "share/share.h"

#define SECRET "the secret of the host"

extern struct share *share;
extern char top[64];
extern uint8_t answer[SHARE_WRITE_MAX + 4096]; /* of the last request, behind its header */
extern uint32_t answer_len;
extern uint32_t caller_uid, caller_gid; /* of requests; root by default */

int share_setup(void **state);
int share_teardown(void **state);
void share_again(const struct share_opts *o); /* made anew; o->dir: nothing, it is the folder */
void begin_session(void);

/* A request of these bytes; the answer's error. room: for the answer, with its header. */
int ask_room(uint32_t opcode, uint64_t node, const void *args, size_t args_len, const void *more,
	     size_t more_len, size_t room);
int ask(uint32_t opcode, uint64_t node, const void *args, size_t args_len, const void *more,
	size_t more_len);
int ask_name(uint32_t opcode, uint64_t node, const void *args, size_t args_len, const char *name);

/* The usual ones. Numbers of files; 0 with *error set when there was one. */
extern int error;
uint64_t lookup(uint64_t dir, const char *name);
uint64_t make_dir_in(uint64_t dir, const char *name);
uint64_t create(uint64_t dir, const char *name, uint32_t flags, uint64_t *fh);
uint64_t open_node(uint64_t node, uint32_t flags);
int read_node(uint64_t fh, uint64_t offset, uint32_t size); /* length or error */
int write_node(uint64_t fh, uint64_t offset, const void *from, uint32_t len);
void forget(uint64_t node, uint64_t lookups);
const struct fuse_attr *attr_of(uint64_t node);
const struct fuse_attr *entry_attr(void); /* of an answer that is an entry */

/* The host's side. Paths below TOP. */
void host_write(const char *name, const char *text);
const char *host_path(const char *name);
bool host_has(const char *name);
