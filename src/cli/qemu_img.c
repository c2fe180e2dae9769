#include "cli/qemu_img.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/landlock.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"

#define READ_DIR  (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define RUN       (READ_DIR | LANDLOCK_ACCESS_FS_EXECUTE)
#define READ_FILE LANDLOCK_ACCESS_FS_READ_FILE
#define USE_FILE  (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE)
/* All that the first version of Landlock knows. */
#define ALL_RIGHTS ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)

static const struct {
	const char *path;
	uint64_t rights;
} always[] = {
	{"/usr", RUN},           {"/lib", RUN},
	{"/lib64", RUN},         {"/etc/ld.so.cache", READ_FILE},
	{"/dev/null", USE_FILE}, {"/dev/urandom", READ_FILE},
};

static int allow(int ruleset, const char *path, uint64_t rights)
{
	AUTO_CLOSE int fd = open(path, O_PATH | O_CLOEXEC);
	struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = fd};

	if (fd < 0)
		return -errno;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return -errno;
	return 0;
}

/* The rules, as a descriptor to be entered by the child. */
static int make_rules(const struct qemu_img *q, const char *program, struct err *e)
{
	const struct landlock_ruleset_attr attr = {.handled_access_fs = ALL_RIGHTS};
	int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0), r;

	if (fd < 0)
		return err_sys(e, errno, "confining qemu-img by Landlock");
	for (unsigned i = 0; i < ARRAY_SIZE(always); i++)
		(void)allow(fd, always[i].path, always[i].rights); /* not all are everywhere */
	r = allow(fd, program, READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE);
	if (r == 0)
		r = allow(fd, q->read_dir, READ_DIR);
	if (r == 0 && q->write_file)
		r = allow(fd, q->write_file, USE_FILE);
	if (r == 0)
		return fd;
	close(fd);
	return err_sys(e, -r, "confining qemu-img");
}

static int find_program(char path[PATH_MAX], struct err *e)
{
	const char *dirs = getenv("PATH");

	for (; dirs && *dirs; dirs += strspn(dirs, ":")) {
		size_t len = strcspn(dirs, ":");

		if (snprintf(path, PATH_MAX, "%.*s/qemu-img", (int)len, dirs) < PATH_MAX &&
		    access(path, X_OK) == 0)
			return 0;
		dirs += len;
	}
	return err_set(e, ENOENT,
		       "qemu-img reads that format, and is not here (Debian has it in "
		       "the package qemu-utils)");
}

/* Between fork and exec: system calls only. */
_Noreturn static void become(const char *program, const char *const argv[], int rules, int out)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 &&
	    dup2(out, STDOUT_FILENO) >= 0 && syscall(SYS_landlock_restrict_self, rules, 0) == 0)
		execv(program, (char *const *)argv);
	_exit(127);
}

static void read_output(const struct qemu_img *q, int fd, pid_t child, bool *stopped)
{
	struct pollfd f[] = {{.fd = fd, .events = POLLIN}, {.fd = q->stop_fd, .events = POLLIN}};
	char text[4096];

	for (;;) {
		ssize_t n;

		if (poll(f, ARRAY_SIZE(f), -1) < 0 && errno != EINTR)
			return;
		if (f[1].revents && !*stopped) {
			*stopped = true;
			f[1].fd = -1;
			kill(child, SIGTERM);
		}
		if (!f[0].revents)
			continue;
		n = read(fd, text, sizeof text);
		if (n <= 0)
			return;
		q->output(q->ctx, text, (size_t)n);
	}
}

static int wait_for(pid_t child)
{
	int status;
	pid_t r;

	do
		r = waitpid(child, &status, 0);
	while (r < 0 && errno == EINTR);
	return r == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run(const struct qemu_img *q, const char *program, int rules, struct err *e)
{
	const char *argv[ARRAY_SIZE(q->argv) + 1] = {"qemu-img"};
	bool stopped = false;
	int fd[2], status;
	pid_t child;

	memcpy(argv + 1, q->argv, sizeof q->argv);
	if (pipe2(fd, O_CLOEXEC) < 0)
		return err_sys(e, errno, "pipe");
	child = fork();
	if (child == 0)
		become(program, argv, rules, fd[1]);
	close(fd[1]);
	if (child < 0) {
		close(fd[0]);
		return err_sys(e, errno, "starting qemu-img");
	}
	read_output(q, fd[0], child, &stopped);
	close(fd[0]);
	status = wait_for(child);
	if (stopped)
		return err_set(e, ECANCELED, "interrupted");
	return status ? err_set(e, EIO, "qemu-img failed") : 0;
}

int qemu_img_run(const struct qemu_img *q, struct err *e)
{
	char program[PATH_MAX];
	int rules, r = find_program(program, e);

	if (r < 0)
		return r;
	rules = make_rules(q, program, e);
	if (rules < 0)
		return rules;
	r = run(q, program, rules, e);
	close(rules);
	return r;
}
