#include "cli/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "cli/cli.h"
#include "control/registry.h"

#define DELAY_MAX_S 60
#define CALM_S      60 /* a VM that ran for so long is started again soon */

struct starter {
	enum restart_policy restart;
	int (*run)(void *ctx, const char *name, struct detached *d);
	void *ctx;
	int up_fd;                  /* to the process that the terminal waits for */
	char name[VM_NAME_MAX + 1]; /* empty: not known yet */
	int signal_fd;
	bool ending; /* we were asked to end */
};

static void no_terminal(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (fd >= 0) {
		dup2(fd, STDIN_FILENO);
		dup2(fd, STDOUT_FILENO);
		close(fd);
	}
}

int detach_ready(struct detached *d, const char *name, const char *log_path, struct err *e)
{
	AUTO_CLOSE int log = -1;
	size_t len = strlen(name) + 1;

	if (d->ready_fd < 0)
		return 0;
	log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log < 0)
		return err_sys(e, errno, "'%s'", log_path);
	fflush(stderr);
	dup2(log, STDERR_FILENO);
	/* Nobody reads it when the terminal's process was killed; the VM is up all the same. */
	if (write(d->ready_fd, name, len) < 0)
		log_debug("nobody waits for this VM");
	close(d->ready_fd);
	d->ready_fd = -1;
	return 0;
}

/* Reads what detach_ready wrote; false: it was not reached. */
static bool read_name(int fd, char name[VM_NAME_MAX + 1])
{
	size_t len = 0;
	ssize_t n;

	while (len <= VM_NAME_MAX && (n = read(fd, name + len, VM_NAME_MAX + 1 - len)) != 0) {
		if (n < 0 && errno != EINTR)
			return false;
		len += n > 0 ? (size_t)n : 0;
		if (len && !name[len - 1])
			return true;
	}
	return false;
}

static int status_of(int wait_status)
{
	return WIFSIGNALED(wait_status) ? EXIT_SIGNALLED + WTERMSIG(wait_status)
					: WEXITSTATUS(wait_status);
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return EXIT_TROUBLE;
	return status_of(status);
}

/* --- the process that starts it again --- */

/* Forks the VM's process; with *up its name when it came up. */
static pid_t start_vm(struct starter *s, bool *up)
{
	int ready[2];
	pid_t pid;

	*up = false;
	if (pipe2(ready, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		struct detached d = {ready[1]};

		close(ready[0]);
		close(s->up_fd);
		if (s->signal_fd >= 0) {
			sigset_t none;

			close(s->signal_fd);
			sigemptyset(&none);
			sigprocmask(SIG_SETMASK, &none, NULL);
		}
		exit(s->run(s->ctx, *s->name ? s->name : NULL, &d));
	}
	close(ready[1]);
	if (pid > 0)
		*up = read_name(ready[0], s->name);
	close(ready[0]);
	return pid;
}

/* The VM's state file, or NULL; dir is where it lies. */
static json_t *state_of(const struct starter *s, struct vm_dir *dir)
{
	struct vm_seen v;

	if (vm_find(&v, s->name, NULL) < 0)
		return NULL;
	*dir = v.dir;
	return v.state;
}

/* A process that was killed has left no word. */
static void note_death(const struct starter *s, int sig)
{
	struct vm_dir dir;
	json_t *j = state_of(s, &dir);
	AUTO_FREE char *text = NULL, *why = NULL;

	char word[160];
	bool said = j && vm_last_word(&dir, word, sizeof word);

	if (j && !json_object_get(j, "ended") &&
	    asprintf(&why, "its process was ended by signal %d (%s)%s%s", sig, strsignal(sig),
		     said ? ": " : "", said ? word : "") > 0) {
		json_object_set_new(j, "state", json_string("ended"));
		json_object_set_new(j, "ended",
				    json_pack("{s:s, s:i, s:s, s:I}", "how", "died", "status",
					      EXIT_SIGNALLED + sig, "text", why, "time",
					      (json_int_t)time(NULL)));
		text = json_dumps(j, JSON_INDENT(2));
		if (text && vm_dir_write(&dir, "state.json", text, NULL) < 0)
			log_warn("%s: %s", s->name, why);
	}
	json_decref(j);
}

static bool wants_again(const struct starter *s, int status)
{
	struct vm_dir dir;
	json_t *j = state_of(s, &dir);
	const char *how = json_string_value(json_object_get(json_object_get(j, "ended"), "how"));
	bool asked = how && (!strcmp(how, "stopped") || !strcmp(how, "killed"));

	json_decref(j);
	if (s->ending || asked)
		return false;
	return s->restart == RESTART_ALWAYS || status != EXIT_DONE;
}

/* Keeps the lock by which others know that somebody will start it again, with our pid. */
static int hold_restart_lock(const struct starter *s)
{
	struct flock whole = {.l_type = F_WRLCK};
	char path[VM_PATH_MAX + 32];
	struct vm_dir dir;
	json_t *j = state_of(s, &dir);
	int fd;

	if (!j)
		return -1;
	json_decref(j);
	vm_dir_file(&dir, "restart.lock", path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && (fcntl(fd, F_OFD_SETLK, &whole) < 0 || ftruncate(fd, 0) < 0 ||
			dprintf(fd, "%d\n", (int)getpid()) < 0)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Waits for the VM's end, or for ms; what ends us is passed on to it. False: time is up. */
static bool wait_a_while(struct starter *s, pid_t pid, int ms)
{
	struct pollfd p = {.fd = s->signal_fd, .events = POLLIN};
	struct signalfd_siginfo info;

	if (poll(&p, 1, ms) <= 0)
		return false;
	if (read(s->signal_fd, &info, sizeof info) == sizeof info && info.ssi_signo != SIGCHLD) {
		s->ending = true;
		if (pid > 0)
			kill(pid, SIGTERM);
	}
	return true;
}

static int wait_for_vm(struct starter *s, pid_t pid)
{
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0)
		wait_a_while(s, pid, -1);
	if (WIFSIGNALED(status))
		note_death(s, WTERMSIG(status));
	return status_of(status);
}

static void wait_before_next(struct starter *s, unsigned delay_s)
{
	uint64_t end = (uint64_t)time(NULL) + delay_s;

	while (!s->ending && (uint64_t)time(NULL) < end)
		wait_a_while(s, -1, 1000);
}

static int keep_running(struct starter *s)
{
	unsigned delay_s = 1;
	int lock = -1, status;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return EXIT_TROUBLE;
	for (;;) {
		time_t begun = time(NULL);
		bool first = !*s->name, up;
		pid_t pid = start_vm(s, &up);

		if (pid < 0)
			return EXIT_TROUBLE;
		if (up && first) {
			lock = hold_restart_lock(s);
			if (write(s->up_fd, s->name, strlen(s->name) + 1) < 0)
				log_debug("nobody waits for this VM");
			close(s->up_fd);
			dup2(STDIN_FILENO, STDERR_FILENO); /* each VM opens its log itself */
		}
		status = wait_for_vm(s, pid);
		if ((first && !up) || !wants_again(s, status))
			break;
		delay_s = time(NULL) - begun > CALM_S ? 1
						      : (unsigned)min_u64(delay_s * 2, DELAY_MAX_S);
		wait_before_next(s, delay_s);
		if (s->ending)
			break;
	}
	if (lock >= 0)
		close(lock);
	return status;
}

/* --- */

int detach_run(enum restart_policy restart,
	       int (*run)(void *ctx, const char *name, struct detached *d), void *ctx)
{
	struct starter s = {.restart = restart, .run = run, .ctx = ctx, .signal_fd = -1};
	char name[VM_NAME_MAX + 1];
	int up[2];
	pid_t pid;

	if (pipe2(up, O_CLOEXEC) < 0)
		return EXIT_TROUBLE;
	pid = fork();
	if (pid < 0) {
		log_error("no process for the VM: %s", strerror(errno));
		return EXIT_TROUBLE;
	}
	if (pid == 0) {
		struct detached d = {up[1]};

		close(up[0]);
		s.up_fd = up[1];
		no_terminal();
		exit(restart == RESTART_NO ? run(ctx, NULL, &d) : keep_running(&s));
	}
	close(up[1]);
	if (!read_name(up[0], name)) {
		int status = wait_for(pid);

		return status == EXIT_DONE ? EXIT_TROUBLE : status;
	}
	puts(name);
	return EXIT_DONE;
}
