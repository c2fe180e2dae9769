/* holon exec: a command in a guest, as if it ran here: its input, output, terminal, signals and
 * exit status. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/client.h"
#include "cli/cli.h"
#include "cli/tty_mode.h"
#include "cli/vm.h"

#define PIECE     16384
#define VARIABLES (OPTION_LIST_MAX + 1) /* and TERM */

struct session {
	struct wire w;
	struct tty_mode tty_mode;
	bool tty, in_ended;
	int signals; /* signalfd */
	int last_signal;
};

static int trouble(const struct err *e, int status)
{
	fprintf(stderr, "holon exec: %s\n", e->text);
	return status;
}

/* --- starting --- */

struct variables {
	const char *list[VARIABLES];
	char *made[VARIABLES];
	unsigned n;
};

static void add_from_here(struct variables *v, const char *name)
{
	const char *value = getenv(name);

	if (value && asprintf(&v->made[v->n], "%s=%s", name, value) >= 0) {
		v->list[v->n] = v->made[v->n];
		v->n++;
	}
}

static void add_variables(struct variables *v, const struct exec_opts *o, bool tty)
{
	if (tty)
		add_from_here(v, "TERM");
	for (unsigned i = 0; i < o->env.n; i++)
		if (strchr(o->env.value[i], '='))
			v->list[v->n++] = o->env.value[i];
		else
			add_from_here(v, o->env.value[i]);
}

static int start(struct session *s, const struct exec_opts *o, int words, char **word,
		 struct err *e)
{
	struct variables v = {.n = 0};
	struct winsize size = {0};
	int r;

	ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	add_variables(&v, o, s->tty);
	r = agent_exec(&s->w,
		       &(struct agent_exec){.argv = (const char *const *)word + 1,
					    .args = (unsigned)words - 1,
					    .env = v.list,
					    .envs = v.n,
					    .user = o->user,
					    .dir = o->dir,
					    .tty = s->tty,
					    .rows = size.ws_row,
					    .columns = size.ws_col},
		       e);
	for (unsigned i = 0; i < v.n; i++)
		free(v.made[i]);
	return r;
}

/* --- carrying --- */

/* With a terminal, Ctrl-C is a byte for the guest's; a signal that comes all the same is for us. */
static int catch_signals(struct session *s, struct err *e)
{
	static const int carried[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
	sigset_t set;

	sigemptyset(&set);
	if (s->tty)
		sigaddset(&set, SIGWINCH);
	for (unsigned i = 0; i < ARRAY_SIZE(carried); i++) {
		struct sigaction now;

		if (sigaction(carried[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN) /* nohup */
			sigaddset(&set, carried[i]);
	}
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals < 0 ? err_sys(e, errno, "signalfd") : 0;
}

static void send_size(struct session *s)
{
	struct winsize size;
	uint8_t buf[4];

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !wire_room(&s->w, sizeof buf))
		return;
	store_le(buf, size.ws_row, 2);
	store_le(buf + 2, size.ws_col, 2);
	wire_put(&s->w, WIRE_RESIZE, buf, sizeof buf);
}

/* The signal that ends us, or 0. The command gets each; one that comes a second time is not only
 * for a command that heeds none. */
static int take_signal(struct session *s)
{
	struct signalfd_siginfo info;
	uint8_t buf[4];
	int sig;

	if (read(s->signals, &info, sizeof info) != sizeof info)
		return 0;
	sig = (int)info.ssi_signo;
	if (sig == SIGWINCH) {
		send_size(s);
		return 0;
	}
	if (s->tty || sig == s->last_signal || !wire_room(&s->w, sizeof buf))
		return sig;
	if (sig != SIGUSR1 && sig != SIGUSR2)
		s->last_signal = sig;
	store_le(buf, (uint64_t)sig, 4);
	wire_put(&s->w, WIRE_SIGNAL, buf, sizeof buf);
	return 0;
}

static void take_input(struct session *s)
{
	uint8_t buf[PIECE];
	ssize_t n = read(STDIN_FILENO, buf, sizeof buf);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	s->in_ended = n <= 0;
	wire_put(&s->w, WIRE_IN, buf, n < 0 ? 0 : (size_t)n);
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EAGAIN)
			poll(&(struct pollfd){fd, POLLOUT, 0}, 1, -1);
		else if (n < 0 && errno != EINTR)
			return -errno;
		else if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

/* 1: it has ended, with *status. */
static int take_frame(const struct frame *f, int *status, struct err *e)
{
	int r;

	if (f->type != WIRE_OUT && f->type != WIRE_ERR) {
		r = agent_status(f, status, e);
		return r < 0 ? r : 1;
	}
	r = write_all(f->type == WIRE_OUT ? STDOUT_FILENO : STDERR_FILENO, f->data, f->len);
	if (r == -EPIPE) { /* as a command that writes there itself */
		signal(SIGPIPE, SIG_DFL);
		raise(SIGPIPE);
	}
	return r < 0 ? err_sys(e, -r, "standard output") : 0;
}

static int take_frames(struct session *s, int *status, struct err *e)
{
	struct frame f;
	int r;

	do {
		r = wire_get(&s->w, &f);
		if (r == -EAGAIN)
			return 0;
		/* The words for what is wrong with it. */
		r = r < 0 ? wire_next(&s->w, &f, e) : take_frame(&f, status, e);
	} while (r == 0);
	return r;
}

static int carry_on(struct session *s, struct err *e)
{
	bool in_background = s->tty && tty_in_background(STDIN_FILENO);
	int sig, status = 0;
	/* The first output may have come with the answer to the start: no poll would tell of it. */
	int r = take_frames(s, &status, e);

	while (r == 0) {
		bool room = wire_room(&s->w, PIECE) && !s->in_ended && !in_background;
		bool more = s->w.out_at < s->w.out_end;
		struct pollfd p[] = {{s->w.fd, (short)(POLLIN | (more ? POLLOUT : 0)), 0},
				     {s->signals, POLLIN, 0},
				     {room ? STDIN_FILENO : -1, POLLIN, 0}};

		if (poll(p, ARRAY_SIZE(p), -1) < 0)
			continue;
		if (p[1].revents && (sig = take_signal(s)))
			return EXIT_SIGNALLED + sig;
		if (p[2].revents)
			take_input(s);
		r = wire_flush(&s->w);
		if (r < 0 && r != -EAGAIN && r != -EPIPE)
			return err_sys(e, -r, "the connection to the guest's agent");
		r = take_frames(s, &status, e);
	}
	return r < 0 ? r : status;
}

/* --- the command --- */

static int refused(const struct err *e)
{
	if (e->code == ENOENT)
		return EXIT_NOT_FOUND;
	return e->code == EACCES || e->code == ENOEXEC ? EXIT_NOT_RUN : EXIT_NOT_BEGUN;
}

int cmd_exec(const void *opts, int words, char **word)
{
	static struct session s; /* large */
	const struct exec_opts *o = opts;
	char path[VM_PATH_MAX + 32];
	struct err e = {0};
	int r;

	s.tty = o->tty || (!o->no_tty && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO));
	if (vm_vsock(word[0], path, &e) < 0 || agent_connect(&s.w, path, o->wait * 1000, &e) < 0 ||
	    catch_signals(&s, &e) < 0)
		return trouble(&e, EXIT_NOT_BEGUN);
	if (start(&s, o, words, word, &e) < 0)
		return trouble(&e, refused(&e));
	tty_mode_guard();
	s.tty_mode.plain_output = true;
	if (s.tty)
		tty_mode_raw(&s.tty_mode, STDIN_FILENO);
	r = carry_on(&s, &e);
	tty_mode_restore(&s.tty_mode);
	return r < 0 ? trouble(&e, EXIT_NOT_BEGUN) : r;
}
