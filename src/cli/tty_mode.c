#include "cli/tty_mode.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"

static const int deadly[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGQUIT, SIGSEGV, SIGSYS, SIGTRAP};

/* A signal handler has no other way to find it. Set while the terminal is raw. */
static struct tty_mode *_Atomic to_restore;

/* Likewise. */
static const char *_Atomic to_write;
static atomic_int to_write_fd;

void tty_mode_leave_with(int fd, const char *text)
{
	atomic_store(&to_write_fd, fd);
	atomic_store(&to_write, text);
}

static void restore_and_die(int sig)
{
	struct tty_mode *t = atomic_exchange(&to_restore, NULL);
	const char *text = atomic_exchange(&to_write, NULL);

	if (text && write(atomic_load(&to_write_fd), text, strlen(text)) < 0)
		text = NULL; /* nobody is left to be told */

	if (t)
		tcsetattr(t->fd, TCSANOW, &t->saved);
	/* SA_RESETHAND has put the default back: this kills us as it would have. */
	raise(sig);
}

void tty_mode_guard(void)
{
	const struct sigaction guard = {.sa_handler = restore_and_die,
					.sa_flags = (int)(SA_RESETHAND | SA_ONSTACK)};

	for (unsigned i = 0; i < ARRAY_SIZE(deadly); i++) {
		struct sigaction now;

		/* A sanitizer's handlers stay. */
		if (sigaction(deadly[i], NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
		    now.sa_handler == SIG_DFL)
			sigaction(deadly[i], &guard, NULL);
	}
}

bool tty_in_background(int fd)
{
	pid_t front = tcgetpgrp(fd);

	return front >= 0 && front != getpgrp();
}

void tty_mode_raw(struct tty_mode *t, int fd)
{
	struct termios raw;

	if (t->raw || tty_in_background(fd) || tcgetattr(fd, &t->saved) < 0)
		return;
	t->fd = fd;
	raw = t->saved;
	cfmakeraw(&raw);
	if (!t->plain_output)
		raw.c_oflag |= OPOST;
	atomic_store(&to_restore, t);
	if (tcsetattr(fd, TCSANOW, &raw) == 0)
		t->raw = true;
	else
		atomic_store(&to_restore, NULL);
}

void tty_mode_restore(struct tty_mode *t)
{
	if (!t->raw)
		return;
	t->raw = false;
	atomic_store(&to_restore, NULL);
	tcsetattr(t->fd, TCSANOW, &t->saved);
}
