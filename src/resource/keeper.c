#include "resource/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"

#define TRIES    1000 /* of one directory */
#define PAUSE_NS 10000000

/* A group is busy until the last of its processes is gone altogether. */
static void remove_dir(const char *dir)
{
	const struct timespec pause = {.tv_nsec = PAUSE_NS};

	for (int i = 0; i < TRIES && rmdir(dir) < 0 && errno == EBUSY; i++)
		nanosleep(&pause, NULL);
}

static void move_home(const char *home)
{
	AUTO_CLOSE int fd = open(home, O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		dprintf(fd, "%d\n", (int)getpid());
}

static _Noreturn void keep(int end, const char *const *dir, unsigned n, const char *home)
{
	int null = open("/dev/null", O_RDWR);
	sigset_t all;
	char byte;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	setsid();
	prctl(PR_SET_NAME, "holon-keeper");
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	dup2(end, 3);
	close_range(4, ~0u, 0);
	if (home)
		move_home(home);
	while (read(3, &byte, 1) < 0 && errno == EINTR)
		;
	for (unsigned i = 0; i < n; i++)
		remove_dir(dir[i]);
	_exit(0);
}

int keeper_start(const char *const *dir, unsigned n, const char *home, struct err *e)
{
	int end[2];
	pid_t pid;

	if (pipe2(end, O_CLOEXEC) < 0)
		return err_sys(e, errno, "pipe");
	pid = fork();
	if (pid == 0) {
		close(end[1]);
		keep(end[0], dir, n, home);
	}
	close(end[0]);
	if (pid > 0)
		return end[1];
	close(end[1]);
	return err_sys(e, errno, "fork");
}
