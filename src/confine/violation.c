/* violation: a system call that a filter forbids arrives here as SIGSYS, on the thread that made it.
 * The process says which, and dies by that signal, through the handler that was there before (which
 * restores a terminal). */
#include "confine/confine_priv.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* A signal handler has no other way to find them. */
static atomic_int note_to = -1;
static struct sigaction before;

struct line {
	char text[160];
	size_t len;
};

static void put(struct line *l, const char *s)
{
	while (*s && l->len < sizeof l->text)
		l->text[l->len++] = *s++;
}

static void put_number(struct line *l, unsigned n)
{
	char digit[12];
	int at = sizeof digit - 1;

	digit[at] = 0;
	do {
		digit[--at] = (char)('0' + n % 10);
	} while (n /= 10);
	put(l, digit + at);
}

static void say(int fd, const struct line *l)
{
	if (fd >= 0 && write(fd, l->text, l->len) < 0)
		return; /* nowhere left to say so */
}

static void forbidden(int sig, siginfo_t *info, void *context)
{
	const char *name = call_name(info->si_syscall);
	struct line l = {.len = 0}, log = {.len = 0};

	put(&l, "forbidden call: ");
	if (name)
		put(&l, name);
	else
		put_number(&l, (unsigned)info->si_syscall);
	put(&l, " by a thread of role ");
	put(&l, thread_role_name(thread_role()));
	put(&l, "\n");
	put(&log, "holon: error: ");
	put(&log, l.text);
	say(STDERR_FILENO, &log);
	say(atomic_load(&note_to), &l);
	sigaction(SIGSYS, &before, NULL);
	raise(SIGSYS);
}

int violation_catch(int note_fd)
{
	/* On a stack of its own where the thread has one: a guest may have ours. */
	struct sigaction a = {.sa_sigaction = forbidden,
			      .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	atomic_store(&note_to, note_fd);
	return sigaction(SIGSYS, &a, &before) < 0 ? -errno : 0;
}
