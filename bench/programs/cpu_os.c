/* cpu_os: what the kernel does for programs. Tests with several processes keep them on one
 * processor, so that it switches between them natively as in a guest with one vCPU. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpu.h"

static uint64_t get_pid(void)
{
	uint64_t sum = 0;
	long first = syscall(SYS_getpid);

	for (unsigned i = 0; i < 20000; i++)
		sum += (uint64_t)(syscall(SYS_getpid) == first);
	return sum;
}

enum { MAPPED = 1 << 20, MAPPINGS = 8 };

static uint64_t map_touch_unmap(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < MAPPINGS; i++) {
		unsigned char *p = pages(MAPPED);

		for (unsigned at = 0; at < MAPPED; at += 4096)
			sum += ++p[at];
		munmap(p, MAPPED);
	}
	return sum;
}

static cpu_set_t all_processors;

static int stay(void)
{
	cpu_set_t here;
	int cpu = sched_getcpu();

	if (sched_getaffinity(0, sizeof all_processors, &all_processors) < 0)
		stop("sched_getaffinity");
	CPU_ZERO(&here);
	CPU_SET(cpu < 0 ? 0 : cpu, &here);
	if (sched_setaffinity(0, sizeof here, &here) < 0)
		stop("sched_setaffinity");
	return 0;
}

static void leave(void)
{
	sched_setaffinity(0, sizeof all_processors, &all_processors);
}

static uint64_t fork_exec_wait(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < 8; i++) {
		int status = -1;
		pid_t pid = fork();

		if (pid < 0)
			stop("fork");
		if (!pid) {
			execl(program_path, program_path, "exit", NULL);
			_exit(1);
		}
		waitpid(pid, &status, 0);
		sum += status == 0;
	}
	return sum;
}

/* Processes in a ring of pipes: each hands on what it was handed, after it has looked through
 * some memory of its own. */
enum { PING = 2, RING = 8, MAX_RING = 8, ROUNDS = 1600, TOUCHED = 16 << 10 };
static int pipes[MAX_RING][2];
static pid_t members[MAX_RING];
static unsigned ring_size;
static unsigned char touched[TOUCHED];

static unsigned hand_on(unsigned member, unsigned touch)
{
	unsigned char c;

	if (read(pipes[member][0], &c, 1) != 1)
		return 0;
	for (unsigned i = 0; i < touch; i += 64)
		c = (unsigned char)(c + touched[i]);
	return write(pipes[(member + 1) % ring_size][1], &c, 1) == 1;
}

static void start_ring(unsigned size, unsigned touch)
{
	stay();
	memset(touched, 1, sizeof touched);
	ring_size = size;
	for (unsigned i = 0; i < size; i++)
		if (pipe(pipes[i]) < 0)
			stop("pipe");
	for (unsigned i = 1; i < size; i++) {
		members[i] = fork();
		if (members[i] < 0)
			stop("fork");
		if (members[i])
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (hand_on(i, touch))
			;
		_exit(0);
	}
}

static int ping_setup(void)
{
	start_ring(PING, 0);
	return 0;
}

static int ring_setup(void)
{
	start_ring(RING, TOUCHED);
	return 0;
}

static uint64_t pass(unsigned rounds, unsigned touch)
{
	uint64_t sum = 0;
	unsigned char c = 1;

	if (write(pipes[1 % ring_size][1], &c, 1) != 1)
		stop("write");
	for (unsigned i = 1; i < rounds; i++)
		sum += hand_on(0, touch);
	if (read(pipes[0][0], &c, 1) != 1)
		stop("read");
	return sum << 8 | c;
}

static uint64_t ping_pong(void)
{
	return pass(ROUNDS / PING, 0);
}

static uint64_t switch_ring(void)
{
	return pass(ROUNDS / RING, TOUCHED);
}

static void end_ring(void)
{
	for (unsigned i = 1; i < ring_size; i++) {
		kill(members[i], SIGKILL);
		waitpid(members[i], NULL, 0);
	}
	for (unsigned i = 0; i < ring_size; i++) {
		close(pipes[i][0]);
		close(pipes[i][1]);
	}
	leave();
}

const struct test os_tests[] = {
	{"os", "getpid", "call", 20000, get_pid, NULL, NULL},
	{"os", "map-touch-unmap", "page", MAPPINGS *(MAPPED / 4096), map_touch_unmap, NULL, NULL},
	{"os", "fork-exec-wait", "process", 8, fork_exec_wait, stay, leave},
	{"os", "pipe-ping-pong", "message", ROUNDS, ping_pong, ping_setup, end_ring},
	{"os", "switch-8", "switch", ROUNDS, switch_ring, ring_setup, end_ring},
	{0},
};
