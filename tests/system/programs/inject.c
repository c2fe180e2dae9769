/* inject PID [--let-die]: plays the part of an attacker who runs code of his in the threads of a VM's process. Reads lines
 *
 *   TID NUMBER ARGUMENT...
 *
 * has that thread make the system call, and writes what it returned, or "SIGSYS". An argument is a number, or
 * s:TEXT for the address of that text, or x:HEX for that of these bytes. The thread goes on afterwards as if
 * nothing had been. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

struct victim {
	pid_t pid;
	uint64_t call;    /* a SYSCALL instruction in it */
	uint64_t scratch; /* memory that it does not use */
	bool let_die;     /* of a forbidden call, as it would */
};

static void quit(const char *what)
{
	perror(what);
	exit(1);
}

/* The first and last address of the mapping of that name. */
static bool mapping(pid_t pid, const char *name, uint64_t *from, uint64_t *to)
{
	char path[64], line[512];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	f = fopen(path, "r");
	if (!f)
		quit(path);
	while (!found && fgets(line, sizeof line, f))
		found = strstr(line, name) && sscanf(line, "%lx-%lx", from, to) == 2;
	fclose(f);
	return found;
}

static void look_around(struct victim *v)
{
	uint64_t from, to;
	uint8_t code[65536];
	size_t len;

	if (!mapping(v->pid, "[stack]", &v->scratch, &to))
		quit("no stack");
	if (!mapping(v->pid, "[vdso]", &from, &to))
		quit("no vdso");
	len = to - from < sizeof code ? to - from : sizeof code;
	struct iovec here = {code, len}, there = {(void *)from, len};

	if (process_vm_readv(v->pid, &here, 1, &there, 1, 0) != (ssize_t)len)
		quit("read the vdso");
	for (size_t i = 0; i + 1 < len && !v->call; i++)
		if (code[i] == 0x0f && code[i + 1] == 0x05)
			v->call = from + i;
	if (!v->call)
		quit("no SYSCALL instruction");
}

static uint64_t put(struct victim *v, uint64_t *at, const void *bytes, size_t len)
{
	struct iovec here = {(void *)bytes, len}, there = {(void *)*at, len};
	uint64_t address = *at;

	if (process_vm_writev(v->pid, &here, 1, &there, 1, 0) != (ssize_t)len)
		quit("write to it");
	*at += (len + 15) & ~15ul;
	return address;
}

static uint64_t argument(struct victim *v, uint64_t *at, const char *word)
{
	uint8_t bytes[256];
	size_t n = 0;

	if (!strncmp(word, "s:", 2))
		return put(v, at, word + 2, strlen(word + 2) + 1);
	if (strncmp(word, "x:", 2) != 0)
		return strtoull(word, NULL, 0);
	for (const char *p = word + 2; p[0] && p[1] && n < sizeof bytes; p += 2) {
		char digits[] = {p[0], p[1], 0};

		bytes[n++] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return put(v, at, bytes, n);
}

enum stop { AT_CALL, BY_SIGSYS };

/* Until it enters or leaves a call, or is to get SIGSYS; other signals are kept from it. */
static enum stop go_on(pid_t tid)
{
	for (int i = 0; i < 1000; i++) {
		int status, sig;

		if (ptrace(PTRACE_SYSCALL, tid, 0, 0) < 0)
			quit("go on");
		if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status))
			quit("it has ended");
		sig = WSTOPSIG(status);
		if (sig == (SIGTRAP | 0x80))
			return AT_CALL;
		if (sig == SIGSYS)
			return BY_SIGSYS;
	}
	quit("it does not come to the call");
	return AT_CALL;
}

static void call(struct victim *v, pid_t tid, long nr, const uint64_t arg[6])
{
	struct user_regs_struct before, r;
	bool forbidden = false;
	int status;

	if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD) < 0 ||
	    ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0)
		quit("attach");
	if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status))
		quit("it does not stop");
	if (ptrace(PTRACE_GETREGS, tid, 0, &before) < 0)
		quit("registers");
	r = before;
	r.rip = v->call;
	r.rax = (uint64_t)nr;
	r.orig_rax = ~0ull;
	r.rdi = arg[0], r.rsi = arg[1], r.rdx = arg[2];
	r.r10 = arg[3], r.r8 = arg[4], r.r9 = arg[5];
	if (ptrace(PTRACE_SETREGS, tid, 0, &r) < 0)
		quit("registers");
	(void)go_on(tid); /* it enters */
	(void)go_on(tid); /* it leaves */
	if (ptrace(PTRACE_GETREGS, tid, 0, &r) < 0)
		quit("registers");
	/* A call that a filter took back; its signal comes behind it. */
	if (r.rax == (uint64_t)nr)
		forbidden = go_on(tid) == BY_SIGSYS;
	if (v->let_die && forbidden) {
		ptrace(PTRACE_DETACH, tid, 0, SIGSYS);
		return;
	}
	if (ptrace(PTRACE_GETREGS, tid, 0, &r) < 0 || ptrace(PTRACE_SETREGS, tid, 0, &before) < 0 ||
	    ptrace(PTRACE_DETACH, tid, 0, 0) < 0)
		quit("let it go");
	if (forbidden)
		puts("SIGSYS");
	else
		printf("%ld\n", (long)r.rax);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct victim v = {.pid = argc > 1 ? atoi(argv[1]) : 0,
			   .let_die = argc > 2 && !strcmp(argv[2], "--let-die")};
	char line[1024];

	look_around(&v);
	while (fgets(line, sizeof line, stdin)) {
		uint64_t arg[6] = {0}, at = v.scratch + 64;
		char *save = NULL, *word = strtok_r(line, " \n", &save);
		pid_t tid = word ? atoi(word) : 0;
		long nr;

		word = strtok_r(NULL, " \n", &save);
		nr = word ? atol(word) : -1;
		for (int i = 0; i < 6 && (word = strtok_r(NULL, " \n", &save)); i++)
			arg[i] = argument(&v, &at, word);
		call(&v, tid, nr, arg);
	}
	return 0;
}
