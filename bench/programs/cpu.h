/* cpu.h: what a test of bench/cpu is. A test does a fixed piece of work again and again, always
 * from the same start, so that each time has the same checksum, natively and under any hypervisor.
 *
 * The program runs natively and as a guest's only process; it is linked statically. */
#ifndef CPU_H
#define CPU_H

#include <stdint.h>

struct test {
	const char *group, *name;
	const char *per; /* what one operation is */
	unsigned ops;    /* operations in one piece of work: about 2 to 40 ms natively */
	uint64_t (*run)(void);
	int (*setup)(void); /* NULL: none. Not 0: this processor cannot run the test */
	void (*teardown)(void);
};

extern const struct test integer_tests[], memory_tests[], float_tests[], os_tests[];

/* Of this program, to be executed again; with the argument "exit" it ends at once. */
extern const char *program_path;

__attribute__((noreturn)) void stop(const char *what);
/* Memory in pages of 4 KiB, natively as in a guest. */
void *pages(unsigned long bytes);
/* Numbers that are the same everywhere. */
uint64_t next_random(uint64_t *seed);
uint64_t checksum(uint64_t sum, const void *data, unsigned long bytes);

#endif
