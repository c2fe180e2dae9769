/* What several processors owe each other, tried from user space: memory order (litmus tests),
 * atomic operations, code that another thread changes, mappings that another thread takes away.
 * Prints one line per test, "NAME: ok" or what was wrong. usage: smp THREADS SECONDS_EACH */
#include <cpuid.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64
#define CELLS       512 /* of one batch of a litmus test */

static unsigned threads, cpus;
static double seconds;
static uint64_t end_ns;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool time_left(void)
{
	return now_ns() < end_ns;
}

static void relax(void)
{
	__builtin_ia32_pause();
}

static void say(const char *name, uint64_t wrong, const char *what)
{
	if (wrong)
		printf("%s: %llu %s\n", name, (unsigned long long)wrong, what);
	else
		printf("%s: ok\n", name);
	fflush(stdout);
}

/* --- threads, each on a processor of its own as far as there are --- */
struct job {
	void (*run)(unsigned n);
	unsigned n;
	pthread_t thread;
};

static void *start(void *arg)
{
	struct job *j = arg;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(j->n % cpus, &set);
	sched_setaffinity(0, sizeof set, &set);
	j->run(j->n);
	return NULL;
}

static void run_threads(unsigned count, void (*run)(unsigned n))
{
	struct job job[MAX_THREADS];

	end_ns = now_ns() + (uint64_t)(seconds * 1e9);
	for (unsigned n = 0; n < count; n++) {
		job[n] = (struct job){run, n, 0};
		if (pthread_create(&job[n].thread, NULL, start, &job[n])) {
			puts("no thread");
			exit(1);
		}
	}
	for (unsigned n = 0; n < count; n++)
		pthread_join(job[n].thread, NULL);
}

/* --- memory order: 8.2.3 of the Intel SDM, volume 3A --- */
struct cell {
	_Alignas(64) volatile uint64_t x;
	_Alignas(64) volatile uint64_t y;
	uint64_t seen[4][2];
};

static struct cell cells[CELLS];
static atomic_uint arrived, round_no;
static atomic_bool over;

/* All threads of a litmus test; the last one to come prepares the next batch. */
static bool next_batch(unsigned count, uint64_t (*check)(void), uint64_t *wrong)
{
	unsigned at = atomic_load(&round_no);

	if (atomic_fetch_add(&arrived, 1) == count - 1) {
		*wrong += check();
		memset(cells, 0, sizeof cells);
		atomic_store(&over, !time_left());
		atomic_store(&arrived, 0);
		atomic_store(&round_no, at + 1);
	} else {
		while (atomic_load(&round_no) == at)
			relax();
	}
	return !atomic_load(&over);
}

#define LITMUS(name, count, bad, ...)                                                              \
	static uint64_t name##_check(void)                                                         \
	{                                                                                          \
		uint64_t wrong = 0;                                                                \
		for (unsigned i = 0; i < CELLS; i++) {                                             \
			uint64_t(*r)[2] = cells[i].seen;                                           \
			wrong += bad;                                                              \
		}                                                                                  \
		return wrong;                                                                      \
	}                                                                                          \
	static uint64_t name##_wrong[MAX_THREADS];                                                 \
	static void name##_run(unsigned n)                                                         \
	{                                                                                          \
		for (unsigned i = CELLS; next_batch(count, name##_check, &name##_wrong[n]);)       \
			for (i = 0; i < CELLS; i++) {                                              \
				struct cell *c = &cells[i];                                        \
				uint64_t *r = c->seen[n];                                          \
				switch (n) {                                                       \
					__VA_ARGS__                                                \
				}                                                                  \
			}                                                                          \
	}                                                                                          \
	static void name(void)                                                                     \
	{                                                                                          \
		uint64_t wrong = 0;                                                                \
		/* before the first batch there is nothing to check */                             \
		for (unsigned i = 0; i < CELLS; i++)                                               \
			memset(cells[i].seen, 0xff, sizeof cells[i].seen);                         \
		arrived = 0;                                                                       \
		over = false;                                                                      \
		run_threads(count, name##_run);                                                    \
		for (unsigned i = 0; i < MAX_THREADS; i++)                                         \
			wrong += name##_wrong[i];                                                  \
		say("litmus-" #name, wrong, "forbidden outcomes");                                 \
	}

/* Operands by the letter, so that the compiler reorders nothing. */
#define PUT(to, v)  __asm__ volatile("movq %1, %0" : "=m"(to) : "r"((uint64_t)(v)) : "memory")
#define GET(to, at) __asm__ volatile("movq %1, %0" : "=r"(to) : "m"(at) : "memory")
#define MFENCE      __asm__ volatile("mfence" ::: "memory")
#define LOCKED      __asm__ volatile("lock orq $0, (%%rsp)" ::: "memory", "cc")
#define XCHG(at, v)                                                                                \
	do {                                                                                       \
		uint64_t old = (v);                                                                \
		__asm__ volatile("xchgq %0, %1" : "+r"(old), "+m"(at)::"memory");                  \
	} while (0)

/* Stores may pass loads, but not over a fence or a locked operation. */
LITMUS(store_buffer_mfence, 2, r[0][0] == 0 && r[1][0] == 0, case 0
       : PUT(c->x, 1);
       MFENCE; GET(r[0], c->y); break; case 1
       : PUT(c->y, 1);
       MFENCE; GET(r[0], c->x); break;)
LITMUS(store_buffer_locked, 2, r[0][0] == 0 && r[1][0] == 0, case 0
       : PUT(c->x, 1);
       LOCKED; GET(r[0], c->y); break; case 1
       : PUT(c->y, 1);
       LOCKED; GET(r[0], c->x); break;)
LITMUS(store_buffer_xchg, 2, r[0][0] == 0 && r[1][0] == 0, case 0
       : XCHG(c->x, 1);
       GET(r[0], c->y); break; case 1
       : XCHG(c->y, 1);
       GET(r[0], c->x); break;)
LITMUS(message_passing, 2, r[1][0] == 1 && r[1][1] == 0, case 0
       : PUT(c->x, 1);
       PUT(c->y, 1); break; case 1
       : GET(r[0], c->y);
       GET(r[1], c->x); break;)
LITMUS(load_buffer, 2, r[0][0] == 1 && r[1][0] == 1, case 0
       : GET(r[0], c->x);
       PUT(c->y, 1); break; case 1
       : GET(r[0], c->y);
       PUT(c->x, 1); break;)
/* A vCPU sees its own store first. */
LITMUS(own_store, 2, r[0][0] == 0 || r[1][0] == 0, case 0
       : PUT(c->x, 1);
       GET(r[0], c->x); GET(r[1], c->y); break; case 1
       : PUT(c->y, 1);
       GET(r[0], c->y); GET(r[1], c->x); break;)
/* Stores are seen in the same order by all others. */
LITMUS(independent_reads, 4, r[2][0] == 1 && r[2][1] == 0 && r[3][0] == 1 && r[3][1] == 0, case 0
       : PUT(c->x, 1);
       break; case 1
       : PUT(c->y, 1);
       break; case 2
       : GET(r[0], c->x);
       GET(r[1], c->y); break; case 3
       : GET(r[0], c->y);
       GET(r[1], c->x); break;)
/* What one has seen of another, a third sees as well. */
LITMUS(transitive, 3, r[1][0] == 1 && r[2][0] == 1 && r[2][1] == 0, case 0
       : PUT(c->x, 1);
       break; case 1
       : GET(r[0], c->x);
       PUT(c->y, 1); break; case 2
       : GET(r[0], c->y);
       GET(r[1], c->x); break;)

/* --- atomic operations --- */
#define PAGES  16
#define ACROSS 4 /* of so many operations one */

static struct {
	_Alignas(64) uint64_t xadd, cmpxchg, inc, bits[2], guarded;
	_Alignas(64) unsigned lock;
	_Alignas(16) unsigned __int128 wide;
	uint64_t *across; /* on two pages */
} shared;
static uint64_t done[MAX_THREADS], bits_lost[MAX_THREADS];

static void add_wide(void)
{
	uint64_t lo = 0, hi = 0;
	uint8_t ok;

	do /* both halves count */
		__asm__ volatile("lock cmpxchg16b %0; sete %3"
				 : "+m"(shared.wide), "+a"(lo), "+d"(hi), "=q"(ok)
				 : "b"(lo + 1), "c"(hi + 1)
				 : "memory", "cc");
	while (!ok);
}

static void count(unsigned n)
{
	while (time_left())
		for (unsigned i = 0; i < 200; i++) {
			uint64_t one = 1, old;
			uint8_t was;

			__asm__ volatile("lock xaddq %0, %1"
					 : "+r"(one), "+m"(shared.xadd)::"memory", "cc");
			__asm__ volatile("lock incq %0" : "+m"(shared.inc)::"memory", "cc");
			old = __atomic_load_n(&shared.cmpxchg, __ATOMIC_RELAXED);
			while (!__atomic_compare_exchange_n(&shared.cmpxchg, &old, old + 1, false,
							    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
				;
			add_wide();
			while (__atomic_exchange_n(&shared.lock, 1, __ATOMIC_ACQUIRE))
				relax();
			shared.guarded++;
			__atomic_store_n(&shared.lock, 0, __ATOMIC_RELEASE);
			__asm__ volatile("lock btcq %2, %0; setc %1"
					 : "+m"(shared.bits[n / 64]), "=q"(was)
					 : "r"((uint64_t)(n % 64))
					 : "memory", "cc");
			bits_lost[n] += was != (done[n] & 1);
			if (i % ACROSS == 0)
				__asm__ volatile("lock incq %0"
						 : "+m"(*shared.across)::"memory", "cc");
			done[n]++;
		}
}

static void atomics(void)
{
	uint8_t *pages = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t total = 0, lost = 0;

	for (unsigned i = 0; i < PAGES; i++) /* neighbours are apart in RAM */
		pages[i * 5 % PAGES * 4096] = 0;
	shared.across = (uint64_t *)(pages + 4096 - 3);
	run_threads(threads, count);
	for (unsigned n = 0; n < threads; n++) {
		total += done[n];
		lost += bits_lost[n];
	}
	say("atomic-xadd", total - shared.xadd, "lost");
	say("atomic-inc", total - shared.inc, "lost");
	say("atomic-cmpxchg", total - shared.cmpxchg, "lost");
	say("atomic-cmpxchg16b",
	    (total - (uint64_t)shared.wide) | (total - (uint64_t)(shared.wide >> 64)), "lost");
	say("atomic-lock", total - shared.guarded, "lost");
	say("atomic-bits", lost, "lost");
	say("atomic-across-pages", total / ACROSS - *shared.across, "lost");
	munmap(pages, PAGES * 4096);
}

/* --- code that is changed while it runs --- */
#define FUNCS 8
static struct {
	uint8_t *code; /* FUNCS functions that return a number, 64 bytes apart */
	_Alignas(64) _Atomic uint32_t published[FUNCS];
	uint64_t stale[MAX_THREADS];
	bool membarrier; /* the writer makes the others serialize */
} xmod;

typedef uint32_t number_fn(void);

static void put_function(uint8_t *at, uint32_t number)
{
	static const uint8_t mov_ret[] = {0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0, 0xc3};

	memcpy(at, mov_ret, sizeof mov_ret); /* the number is aligned */
	memcpy(at + 4, &number, 4);
}

static void serialize(void)
{
	unsigned a, b, c, d;

	__cpuid(0, a, b, c, d);
	(void)a, (void)b, (void)c, (void)d;
}

static void change_and_call(unsigned n)
{
	uint32_t v = 0;

	while (time_left())
		for (unsigned i = 0; i < 100; i++) {
			unsigned f = i % FUNCS;
			uint32_t before, got;

			if (n == 0) {
				v++;
				__atomic_store_n((uint32_t *)(xmod.code + 64 * f + 4), v,
						 __ATOMIC_RELEASE);
				if (xmod.membarrier)
					syscall(SYS_membarrier,
						MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
				atomic_store(&xmod.published[f], v);
				if (i % 10 == 0)
					sched_yield();
				continue;
			}
			before = atomic_load(&xmod.published[f]);
			if (!xmod.membarrier)
				serialize();
			got = ((number_fn *)(xmod.code + 64 * f))();
			xmod.stale[n] += (int32_t)(got - before) < 0;
		}
}

static void changed_code(const char *name, bool membarrier)
{
	uint64_t stale = 0;

	memset(&xmod, 0, sizeof xmod);
	xmod.membarrier = membarrier;
	if (membarrier && syscall(SYS_membarrier,
				  MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) < 0) {
		say(name, 0, "");
		return;
	}
	xmod.code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (unsigned f = 0; f < FUNCS; f++)
		put_function(xmod.code + 64 * f, 0);
	run_threads(threads, change_and_call);
	for (unsigned n = 0; n < threads; n++)
		stale += xmod.stale[n];
	say(name, stale, "calls of what was replaced");
	munmap(xmod.code, 4096);
}

/* Each thread makes code at ever new places that others' code was at, and runs it. */
static uint64_t wrong_code[MAX_THREADS];

static void make_code(unsigned n)
{
	for (uint32_t v = 1; time_left(); v++) {
		uint8_t *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				  -1, 0);
		uint8_t *at = p + (v % 100 == 0 ? 4096 - 6 : 64 * (v % 60)); /* some across pages */

		for (unsigned again = 0; again < 3; again++) {
			uint32_t number = (uint32_t)n << 24 | (v + again);

			mprotect(p, 8192, PROT_READ | PROT_WRITE);
			put_function(at, number);
			mprotect(p, 8192, PROT_READ | PROT_EXEC);
			wrong_code[n] += ((number_fn *)at)() != number;
		}
		munmap(p, 8192);
	}
}

static void made_code(void)
{
	uint64_t wrong = 0;

	run_threads(threads, make_code);
	for (unsigned n = 0; n < threads; n++)
		wrong += wrong_code[n];
	say("made-code", wrong, "calls of other code");
}

/* Data that lies beside code which runs, and is written all the time. */
static struct beside {
	uint8_t *page;
	uint64_t lost[MAX_THREADS];
} beside;

static void write_beside(unsigned n)
{
	volatile uint32_t *mine = (uint32_t *)(beside.page + 2048 + 8 * n);
	uint8_t *code = beside.page + 64 * (n % 16);
	uint32_t v = 0;

	while (time_left())
		for (unsigned i = 0; i < 50; i++) {
			*mine = ++v;
			if (i == 25 && n < 16) { /* its own function anew */
				put_function(code, v);
				beside.lost[n] += ((number_fn *)code)() != v;
			}
			beside.lost[n] += *mine != v;
		}
}

static void data_beside_code(void)
{
	uint64_t lost = 0;

	beside.page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	run_threads(threads, write_beside);
	for (unsigned n = 0; n < threads; n++)
		lost += beside.lost[n];
	say("data-beside-code", lost, "lost");
	munmap(beside.page, 4096);
}

/* --- mappings that are taken away --- */
static struct {
	volatile uint64_t *page; /* a word per thread */
	atomic_uint generation;
	uint64_t late, old;
} map;
static _Thread_local sigjmp_buf out;

static void on_fault(int sig)
{
	siglongjmp(out, 1);
}

/* The others count in the page; once it is read-only nobody may get through, and once it is
 * another one nobody may see the old. */
static void take_away(unsigned n)
{
	if (n == 0) {
		for (uint64_t g = 1; time_left(); g++) {
			uint64_t seen[MAX_THREADS];

			mprotect((void *)map.page, 4096, PROT_READ);
			for (unsigned i = 1; i < threads; i++)
				seen[i] = map.page[i];
			for (unsigned i = 0; i < 20; i++)
				relax();
			for (unsigned i = 1; i < threads; i++)
				map.late += map.page[i] != seen[i];
			/* A new page in place of it: its counts begin anew. */
			if (mmap((void *)map.page, 4096, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
				map.late++;
			map.page[0] = g;
			atomic_store(&map.generation, (unsigned)g);
			sched_yield();
		}
		return;
	}
	while (time_left()) {
		if (sigsetjmp(out, 1))
			continue;
		for (unsigned i = 0; i < 200; i++) {
			unsigned g = atomic_load(&map.generation);
			uint64_t on_page = map.page[0];

			/* 0: between mmap and the number */
			if (on_page && on_page < g)
				__atomic_fetch_add(&map.old, 1, __ATOMIC_RELAXED);
			map.page[n]++;
		}
	}
}

static void taken_away(void)
{
	struct sigaction a = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};

	sigaction(SIGSEGV, &a, NULL);
	map.page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	run_threads(threads, take_away);
	say("mprotect", map.late, "writes through an old mapping");
	say("remap", map.old, "reads through an old mapping");
}

int main(int argc, char **argv)
{
	threads = argc > 1 ? (unsigned)atoi(argv[1]) : 4;
	seconds = argc > 2 ? atof(argv[2]) : 0.5;
	cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	if (threads < 2 || threads > MAX_THREADS)
		return 2;
	store_buffer_mfence();
	store_buffer_locked();
	store_buffer_xchg();
	message_passing();
	load_buffer();
	own_store();
	independent_reads();
	transitive();
	atomics();
	changed_code("changed-code", false);
	changed_code("changed-code-membarrier", true);
	made_code();
	data_beside_code();
	taken_away();
	return 0;
}
