#include "batch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_US   500000
#define TICKS_MAX 10 /* a case that takes longer hangs */

enum { EXIT_HUNG = 98, EXIT_PREPARE = 99 };

/* In the child only, for the watchdog. */
static volatile unsigned current, seen, ticks;

/* Runs on whatever registers the case left, thread pointer and EFLAGS.AC included: touches nothing
 * but plain memory and ends the process. */
static void on_tick(int sig)
{
	__builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~(uint64_t)RFLAGS_AC);
	ticks = seen == current ? ticks + 1 : 0;
	seen = current;
	if (ticks > TICKS_MAX)
		_exit(EXIT_HUNG);
}

static void watch(void)
{
	struct sigaction sa = {.sa_handler = on_tick, .sa_flags = SA_ONSTACK | SA_RESTART};
	struct itimerval every = {{0, TICK_US}, {0, TICK_US}};

	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
}

static void child_main(struct batch_runner *b, const struct user_case *cases, unsigned from,
		       unsigned n, const struct user_image *image, struct user_end *end)
{
	struct err e = {0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (b->prepare(b, cases, n, image, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		_exit(EXIT_PREPARE);
	}
	watch();
	for (unsigned i = from; i < n; i++) {
		current = i;
		snprintf(end[i].broke, sizeof end[i].broke, "?"); /* where a child that dies was */
		b->one(b, &cases[i], image, &end[i]);
		if (end[i].ran)
			end[i].broke[0] = 0;
	}
	_exit(0);
}

/* Skips what the child finished; names what ended it. Returns the next case to run. */
static unsigned take_stock(struct user_end *end, unsigned from, unsigned n, int status)
{
	while (from < n && (end[from].ran || (end[from].broke[0] && strcmp(end[from].broke, "?"))))
		from++;
	if (from == n)
		return n;
	end[from].ran = false;
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_HUNG)
		snprintf(end[from].broke, sizeof end[from].broke, "it hung");
	else if (WIFSIGNALED(status))
		snprintf(end[from].broke, sizeof end[from].broke, "it died of signal %d",
			 WTERMSIG(status));
	else
		snprintf(end[from].broke, sizeof end[from].broke, "it ended with status %d",
			 WEXITSTATUS(status));
	return from + 1;
}

int batch_run(struct batch_runner *b, const struct user_case *cases, unsigned n,
	      const struct user_image *image, struct user_end *end, struct err *e)
{
	for (unsigned i = 0; i < n; i++) {
		end[i].ran = false;
		end[i].broke[0] = 0;
	}
	for (unsigned from = 0; from < n;) {
		pid_t pid;
		int status;

		fflush(NULL);
		pid = fork();
		if (pid < 0)
			return err_sys(e, errno, "fork");
		if (pid == 0)
			child_main(b, cases, from, n, image, end);
		if (waitpid(pid, &status, 0) < 0)
			return err_sys(e, errno, "waitpid");
		if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_PREPARE)
			return err_set(e, EIO, "the child could not prepare its run");
		from = take_stock(end, from, n, status);
	}
	return 0;
}

struct user_end *batch_results(unsigned n)
{
	void *p = mmap(NULL, n * sizeof(struct user_end), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void batch_results_free(struct user_end *end, unsigned n)
{
	if (end)
		munmap(end, n * sizeof *end);
}
