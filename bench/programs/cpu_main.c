/* cpu_main: runs tests and prints a line for each.
 *
 *   cpu SECONDS [GROUP|TEST...]
 *
 *   HOLON-CPU GROUP/TEST units=N ops=N seconds=T best=T per=WHAT sum=HEX
 *
 * seconds is how long all units took together, best the fastest one, ops the operations in one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#include "cpu.h"

enum { WARM_UNITS = 2, MIN_UNITS = 3 };
static const double warm_share = 0.2; /* of the measured time, where a unit is short */

const char *program_path;

void stop(const char *what)
{
	perror(what);
	exit(1);
}

void *pages(unsigned long bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		stop("mmap");
	return p;
}

uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

uint64_t checksum(uint64_t sum, const void *data, unsigned long bytes)
{
	const unsigned char *p = data;

	while (bytes--)
		sum = (sum ^ *p++) * 0x100000001b3;
	return sum;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void measure(const struct test *t, double seconds)
{
	double begin = now(), last = begin, end, best = 1e9;
	unsigned long units = 0, warm = 0;
	uint64_t sum;

	do {
		sum = t->run();
		end = now();
	} while (++warm < WARM_UNITS || end - begin < seconds * warm_share);
	for (begin = last = end; units < MIN_UNITS || end - begin < seconds; units++, last = end) {
		if (t->run() != sum) {
			printf("HOLON-CPU wrong %s/%s: its result changes\n", t->group, t->name);
			return;
		}
		end = now();
		if (end - last < best)
			best = end - last;
	}
	printf("HOLON-CPU %s/%s units=%lu ops=%u seconds=%.6f best=%.9f per=%s sum=%016llx\n",
	       t->group, t->name, units, t->ops, end - begin, best, t->per,
	       (unsigned long long)sum);
}

static int wanted(const struct test *t, char **names)
{
	if (!*names)
		return 1;
	for (; *names; names++)
		if (!strcmp(*names, t->group) || !strcmp(*names, t->name))
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	const struct test *groups[] = {integer_tests, memory_tests, float_tests, os_tests};
	double seconds = argc > 1 ? atof(argv[1]) : 0;

	if (argc > 1 && !strcmp(argv[1], "exit"))
		return 0;
	if (seconds <= 0) {
		fputs("usage: cpu SECONDS [GROUP|TEST...]\n", stderr);
		return 1;
	}
	program_path = argv[0];
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	printf("\nHOLON-CPU begin %.6f\n", now());
	fflush(stdout);
	for (unsigned g = 0; g < sizeof groups / sizeof *groups; g++) {
		for (const struct test *t = groups[g]; t->name; t++) {
			if (!wanted(t, argv + 2))
				continue;
			if (t->setup && t->setup())
				printf("HOLON-CPU unable %s/%s\n", t->group, t->name);
			else
				measure(t, seconds);
			if (t->teardown)
				t->teardown();
			fflush(stdout);
		}
	}
	printf("HOLON-CPU end %.6f\n", now());
	return 0;
}
