/* A command: its frames are gathered, it is started in a session of its own, and then its
 * output, its input and what the client wants of it are carried until it ends. Neither direction
 * waits for the other, and each holds back its source when its reader is slow. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/guest.h"
#include "base/auto.h"

#define WORDS_MAX 4096
#define TEXTS_MAX (1u << 20) /* bytes of all words and variables, as Linux has some such limit */
#define PIECE     16384

struct command {
	char *argv[WORDS_MAX + 1], *envp[WORDS_MAX + 1];
	unsigned args, envs;
	size_t bytes;
	const char *user, *dir;
	bool tty;
	struct winsize size;
};

struct child {
	pid_t pid;
	int in, out, err;    /* our ends; with a terminal in and out are its master, err is -1 */
	int death;           /* signalfd of SIGCHLD */
	bool tty, in_closed; /* in_closed: the client sends no more */
	uint8_t pending[WIRE_MAX];
	uint32_t at, len; /* of pending: what the command has not taken yet */
};

/* --- what shall run --- */

static int keep(struct command *c, const struct frame *f, char **to, struct err *e)
{
	const char *text;
	int r = frame_text(f, &text, e);

	if (r < 0)
		return r;
	c->bytes += f->len;
	*to = c->bytes <= TEXTS_MAX ? strdup(text) : NULL;
	return *to ? 0 : err_sys(e, E2BIG, "the command's words");
}

static int add(struct command *c, char **list, unsigned *n, const struct frame *f, struct err *e)
{
	if (*n == WORDS_MAX)
		return err_sys(e, E2BIG, "more than %d words", WORDS_MAX);
	return keep(c, f, &list[(*n)++], e);
}

static int take_size(struct winsize *s, const struct frame *f, struct err *e)
{
	if (f->len != 4)
		return frame_unexpected(f, e);
	s->ws_row = (unsigned short)load_le(f->data, 2);
	s->ws_col = (unsigned short)load_le(f->data + 2, 2);
	return 0;
}

static int gather(struct wire *w, struct command *c, struct err *e)
{
	struct frame f;
	int r;

	while ((r = wire_next(w, &f, e)) == 0 && f.type != WIRE_START) {
		switch (f.type) {
		case WIRE_ARG: r = add(c, c->argv, &c->args, &f, e); break;
		case WIRE_ENV: r = add(c, c->envp, &c->envs, &f, e); break;
		case WIRE_USER: r = keep(c, &f, (char **)&c->user, e); break;
		case WIRE_DIR: r = keep(c, &f, (char **)&c->dir, e); break;
		case WIRE_TTY:
			c->tty = true;
			r = take_size(&c->size, &f, e);
			break;
		default: r = frame_unexpected(&f, e);
		}
		if (r < 0)
			return r;
	}
	return r;
}

/* --- starting it --- */

static void set_environment(const struct command *c, const struct guest_user *u)
{
	clearenv();
	setenv("PATH",
	       u->uid ? "/usr/local/bin:/usr/bin:/bin:/usr/games"
		      : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	       1);
	setenv("HOME", u->home, 1);
	setenv("USER", u->name, 1);
	setenv("LOGNAME", u->name, 1);
	setenv("SHELL", u->shell, 1);
	for (unsigned i = 0; i < c->envs; i++)
		putenv(c->envp[i]);
}

/* In the child. What goes wrong is written to report, which closes by itself when all went well. */
static _Noreturn void become(struct command *c, const struct guest_user *u, int report)
{
	struct err e = {0};
	char shell0[258];
	const char *program = c->argv[0];

	setsid();
	if (c->tty)
		ioctl(0, TIOCSCTTY, 0);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigprocmask(SIG_SETMASK, &(sigset_t){0}, NULL);
	umask(022);
	if (guest_user_become(u, &e) < 0)
		goto failed;
	set_environment(c, u);
	if (chdir(c->dir ? c->dir : u->home) < 0 && (c->dir || chdir("/") < 0)) {
		/* Not the code of a program that is missing. */
		err_set(&e, EINVAL, "'%s': %s", c->dir ? c->dir : "/", strerror(errno));
		goto failed;
	}
	if (!c->args) { /* a shell that begins with a dash is a login shell */
		const char *slash = strrchr(u->shell, '/');

		snprintf(shell0, sizeof shell0, "-%s", slash ? slash + 1 : u->shell);
		program = u->shell;
		c->argv[0] = shell0;
	}
	execvp(program, c->argv);
	err_sys(&e, errno, "'%s'", program);
failed:
	(void)!write(report, &e, sizeof e);
	_exit(127);
}

static int open_terminal(const struct command *c, int fd[2], struct err *e)
{
	char name[64];

	fd[0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd[0] < 0 || grantpt(fd[0]) < 0 || unlockpt(fd[0]) < 0 ||
	    ptsname_r(fd[0], name, sizeof name) != 0)
		return err_sys(e, errno, "no terminal can be had (is /dev/pts mounted?)");
	fd[1] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd[1] < 0)
		return err_sys(e, errno, "'%s'", name);
	ioctl(fd[0], TIOCSWINSZ, &c->size);
	return 0;
}

struct ends { /* [0] is read, or the master; [1] is written, or the terminal */
	int in[2], out[2], err[2], report[2];
};

static int open_ends(const struct command *c, struct ends *x, struct err *e)
{
	if (c->tty) {
		int r = open_terminal(c, x->out, e);

		if (r < 0)
			return r;
	} else if (pipe2(x->in, O_CLOEXEC) < 0 || pipe2(x->out, O_CLOEXEC) < 0 ||
		   pipe2(x->err, O_CLOEXEC) < 0) {
		return err_sys(e, errno, "pipe");
	}
	return pipe2(x->report, O_CLOEXEC) < 0 ? err_sys(e, errno, "pipe") : 0;
}

static void in_child(struct command *c, const struct guest_user *u, const struct ends *x)
{
	dup2(c->tty ? x->out[1] : x->in[0], 0);
	dup2(x->out[1], 1);
	dup2(c->tty ? x->out[1] : x->err[1], 2);
	become(c, u, x->report[1]);
}

static void unblock(int fd)
{
	if (fd >= 0)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* Descriptors are not closed on failure: this process ends then. */
static int start(struct command *c, struct child *ch, struct err *e)
{
	struct ends x = {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
	struct guest_user u;
	struct err failed;
	sigset_t chld;
	int r = guest_user_find(c->user, &u, e);

	if (r < 0 || (r = open_ends(c, &x, e)) < 0)
		return r;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	ch->death = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	if (ch->death < 0)
		return err_sys(e, errno, "signalfd");
	ch->pid = fork();
	if (ch->pid < 0)
		return err_sys(e, errno, "fork");
	if (ch->pid == 0)
		in_child(c, &u, &x);
	close(x.report[1]);
	close(x.out[1]);
	if (!c->tty) {
		close(x.in[0]);
		close(x.err[1]);
	}
	ch->tty = c->tty;
	ch->out = x.out[0];
	ch->in = c->tty ? x.out[0] : x.in[1];
	ch->err = x.err[0];
	unblock(ch->out);
	unblock(ch->in);
	unblock(ch->err);
	if (read(x.report[0], &failed, sizeof failed) == sizeof failed)
		return err_set(e, failed.code, "%s", failed.text);
	close(x.report[0]);
	return 0;
}

/* --- carrying --- */

static void close_in(struct child *ch)
{
	/* A terminal's end of input is a character. */
	static const char eot = 4;

	if (ch->in < 0)
		return;
	if (ch->tty)
		(void)!write(ch->in, &eot, 1);
	else
		close(ch->in);
	ch->in = -1;
}

static void close_ends(struct child *ch)
{
	if (ch->in >= 0 && ch->in != ch->out)
		close(ch->in);
	if (ch->out >= 0)
		close(ch->out);
	if (ch->err >= 0)
		close(ch->err);
}

static void feed(struct child *ch)
{
	while (ch->in >= 0 && ch->at < ch->len) {
		ssize_t n = write(ch->in, ch->pending + ch->at, ch->len - ch->at);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) { /* it reads no more */
			if (!ch->tty)
				close(ch->in);
			ch->in = -1;
			break;
		}
		ch->at += (uint32_t)n;
	}
	ch->at = ch->len = 0;
	if (ch->in_closed)
		close_in(ch);
}

static int take(struct child *ch, const struct frame *f, struct err *e)
{
	struct winsize size = {0};
	uint64_t sig;
	int r;

	switch (f->type) {
	case WIRE_IN:
		ch->in_closed |= f->len == 0;
		memcpy(ch->pending, f->data, f->len);
		ch->len = f->len;
		feed(ch);
		return 0;
	case WIRE_RESIZE:
		r = take_size(&size, f, e);
		if (r == 0 && ch->tty)
			ioctl(ch->out, TIOCSWINSZ, &size);
		return r;
	case WIRE_SIGNAL:
		sig = f->len == 4 ? load_le(f->data, 4) : 0;
		if (sig < 1 || sig >= NSIG)
			return frame_unexpected(f, e);
		kill(-ch->pid, (int)sig);
		return 0;
	default: return frame_unexpected(f, e);
	}
}

/* Frames are taken while the command has taken all of the last. -EPIPE: the client has gone. */
static int take_frames(struct wire *w, struct child *ch, struct err *e)
{
	struct frame f;
	int r = 0;

	while (r == 0 && ch->at == ch->len) {
		r = wire_get(w, &f);
		if (r == -EAGAIN)
			return 0;
		if (r == -EPIPE)
			return r;
		r = r < 0 ? err_sys(e, -r, "the client") : take(ch, &f, e);
	}
	return r;
}

/* Moves what there is of the command's output, as far as the wire has room. */
static void carry(struct wire *w, int *fd, enum wire_type type)
{
	uint8_t buf[PIECE];

	while (*fd >= 0 && wire_room(w, sizeof buf)) {
		ssize_t n = read(*fd, buf, sizeof buf);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) { /* a terminal that nobody has open any more says EIO */
			close(*fd);
			*fd = -1;
			return;
		}
		wire_put(w, type, buf, (size_t)n);
	}
}

static int report(struct wire *w, int status, struct err *e)
{
	uint8_t buf[5] = {WIFSIGNALED(status)};
	int r;

	store_le(buf + 1, (uint64_t)(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)),
		 4);
	r = wire_send(w, WIRE_EXIT, buf, sizeof buf, e);
	return r < 0 ? r : wire_drain(w, e);
}

/* The command has ended. What it had written is sent; what its own children write later is not
 * waited for. */
static int finish(struct wire *w, struct child *ch, int status, struct err *e)
{
	int out, err;

	do {
		int r = wire_drain(w, e);

		if (r < 0)
			return r;
		out = ch->out;
		err = ch->err;
		carry(w, &ch->out, WIRE_OUT);
		carry(w, &ch->err, WIRE_ERR);
	} while (w->out_end != w->out_at && (out >= 0 || err >= 0));
	return report(w, status, e);
}

static int wait_for_something(const struct wire *w, const struct child *ch)
{
	bool room = wire_room(w, PIECE);
	struct pollfd p[] = {
		{w->fd,
		 (short)((ch->at == ch->len ? POLLIN : 0) | (w->out_at < w->out_end ? POLLOUT : 0)),
		 0},
		{ch->death, POLLIN, 0},
		{room ? ch->out : -1, POLLIN, 0},
		{room ? ch->err : -1, POLLIN, 0},
		{ch->at < ch->len ? ch->in : -1, POLLOUT, 0}};

	return poll(p, ARRAY_SIZE(p), -1);
}

static int carry_on(struct wire *w, struct child *ch, struct err *e)
{
	struct signalfd_siginfo info;
	int r, status;

	for (;;) {
		wait_for_something(w, ch);
		feed(ch);
		r = take_frames(w, ch, e);
		if (r < 0)
			return r;
		carry(w, &ch->out, WIRE_OUT);
		carry(w, &ch->err, WIRE_ERR);
		r = wire_flush(w);
		if (r < 0 && r != -EAGAIN)
			return r;
		if (read(ch->death, &info, sizeof info) > 0 &&
		    waitpid(ch->pid, &status, WNOHANG) == ch->pid)
			return finish(w, ch, status, e);
	}
}

int guest_exec(struct wire *w, struct err *e)
{
	static struct command c; /* large; this process runs one */
	static struct child ch;
	int r = gather(w, &c, e);

	if (r < 0 || (r = start(&c, &ch, e)) < 0)
		return r;
	r = wire_send(w, WIRE_DONE, NULL, 0, e);
	if (r == 0)
		r = carry_on(w, &ch, e);
	/* Gone before its command: the command is told, as at the end of a terminal. */
	if (r < 0) {
		kill(-ch.pid, SIGHUP);
		close_ends(&ch);
	}
	return r == -EPIPE ? 0 : r;
}
