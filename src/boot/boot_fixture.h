/* boot_fixture: for the loaders' tests: a file made of bytes, a machine that boots it, and
 * a look at what came out. Files are memfds: /proc/self/fd/N is a path like any other. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "boot/boot_priv.h"

#define RSDP 0xf0000
#define RAM  MIB(64)

struct file {
	char path[32];
	int fd;
};

struct file file_of(const void *bytes, size_t len);
void file_close(struct file *f);

/* A machine and what came of booting it; ends with mem_free(b->m). */
struct boot {
	struct guest_mem *m;
	struct x86_state cpu;
	struct err err;
	int result;
};

void boot_with(struct boot *b, uint64_t ram, const struct boot_config *c);
void boot_bytes(struct boot *b, uint64_t ram, const void *bytes, size_t len, const char *initrd,
		const char *cmdline);

/* Guest memory at gpa, which must be RAM. */
uint64_t guest(const struct boot *b, gpa_t gpa, unsigned size);
const char *guest_text(const struct boot *b, gpa_t gpa);

void assert_loads(const struct boot *b);
/* The error says reason, and the vCPU is as it was. */
void assert_refused(const struct boot *b, const char *reason);
