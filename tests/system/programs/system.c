/* system: what a process asks of the kernel and the MMU: signals with their addresses, copy on
 * write, pipes, threads, code made and patched at run time, 32-bit system calls. Prints one line
 * a check; run on the host and in a guest, the two outputs must be equal. */
#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf env;
static volatile long fault_addr, fault_code, fault_trap, fault_err;

static void on_fault(int sig, siginfo_t *i, void *context)
{
	ucontext_t *u = context;

	fault_addr = (long)i->si_addr;
	fault_code = i->si_code;
	fault_trap = u->uc_mcontext.gregs[REG_TRAPNO];
	fault_err = u->uc_mcontext.gregs[REG_ERR];
	siglongjmp(env, sig);
}

static void faults(void)
{
	struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	char *page = mmap((void *)0x10000000, 8192, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	volatile int zero = 0, sink;
	int sig;

	for (int s = 1; s < 32; s++)
		if (s == SIGSEGV || s == SIGFPE || s == SIGILL || s == SIGBUS || s == SIGTRAP)
			sigaction(s, &a, NULL);
	mprotect(page, 4096, PROT_READ);
	munmap(page + 4096, 4096);
#define TRY(name, what)                                                                            \
	do {                                                                                       \
		fault_addr = fault_code = 0;                                                       \
		sig = sigsetjmp(env, 1);                                                           \
		if (!sig)                                                                          \
			what;                                                                      \
		printf("%-20s signal %d code %ld addr %lx trap %ld err %lx\n", name, sig,          \
		       fault_code, sig == SIGSEGV ? fault_addr : 0, fault_trap, fault_err);        \
	} while (0)
	TRY("write read-only", page[10] = 1);
	TRY("read unmapped", sink = page[4096 + 7]);
	TRY("read across", sink = *(volatile int *)(page + 4094));
	TRY("write null", *(volatile char *)0 = 1);
	TRY("non-canonical", sink = *(volatile int *)0x8000000000000000ul);
	TRY("execute data", ((void (*)(void))page)());
	TRY("divide", sink = 1 / zero);
	TRY("divide overflow", __asm__ volatile("idivl %0" ::"r"(1), "a"(0), "d"(0x7fffffff)));
	TRY("ud2", __asm__ volatile("ud2"));
	TRY("int3", __asm__ volatile("int3"));
	TRY("hlt", __asm__ volatile("hlt"));
	TRY("cli", __asm__ volatile("cli"));
	TRY("in", __asm__ volatile("inb $0x60, %%al" ::: "rax"));
	TRY("mov cr3", __asm__ volatile("mov %%cr3, %%rax" ::: "rax"));
	TRY("misaligned movaps",
	    __asm__ volatile("movaps %%xmm0, (%0)" ::"r"(&env[0].__jmpbuf[0] + 1), "r"(0)
			     : "memory"));
	TRY("float divide", {
		feenableexcept(FE_DIVBYZERO);
		volatile double d = 0;
		d = 1 / d;
	});
	feclearexcept(FE_ALL_EXCEPT);
	TRY("float invalid", {
		feenableexcept(FE_INVALID);
		volatile long double d = 0;
		d = d / d;
		__asm__ volatile("fwait");
	});
	__asm__ volatile("fninit");
	(void)sink;
}

static void *counter(void *p)
{
	for (int i = 0; i < 100000; i++)
		__atomic_fetch_add((long *)p, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static long turn;

static void *ping(void *me)
{
	for (int i = 0; i < 2000; i++) {
		pthread_mutex_lock(&lock);
		while (turn % 2 != (long)me)
			pthread_cond_wait(&cond, &lock);
		turn++;
		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static void threads(void)
{
	pthread_t t[4];
	long n = 0;

	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, counter, &n);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	printf("atomic count %ld\n", n);
	for (long i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, ping, (void *)i);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	printf("turns %ld\n", turn);
}

static void processes(char *self)
{
	uint64_t *shared = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0),
		 sum = 0;
	int fd[2], status, failed = 0;
	char buf[4096];

	for (int i = 0; i < 1 << 17; i++)
		shared[i] = (uint64_t)i;
	for (int n = 0; n < 20; n++) {
		pid_t pid = fork();

		if (!pid) {
			for (int i = 0; i < 1 << 17; i += 512)
				shared[i] += 1;
			_exit((int)(shared[512] & 0x7f));
		}
		waitpid(pid, &status, 0);
		failed += WEXITSTATUS(status) != ((512 + 1) & 0x7f);
	}
	for (int i = 0; i < 1 << 17; i++)
		sum += shared[i];
	printf("copy on write %lu, %d failed\n", sum, failed);
	if (pipe(fd))
		return;
	if (!fork()) {
		dup2(fd[1], 1);
		execl("/proc/self/exe", self, "child", NULL);
		_exit(1);
	}
	close(fd[1]);
	buf[read(fd[0], buf, sizeof buf - 1)] = 0;
	wait(&status);
	printf("child said %s with status %d\n", buf, WEXITSTATUS(status));
}

/* Code that is made, run, changed and run again. */
static void made_code(void)
{
	uint8_t *code = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static const uint8_t body[] = {0xb8, 0,    0,    0,   0,
				       0x83, 0xc0, 0x05, 0xc3}; /* mov eax, n; add eax, 5; ret */
	/* mov byte [rip + 1], 7; mov eax, 1 with its immediate patched; ret */
	static const uint8_t patcher[] = {0xc6, 0x05, 1, 0, 0, 0, 7, 0xb8, 1, 0, 0, 0, 0xc3};
	long sum = 0;

	for (int i = 0; i < 2000; i++) {
		uint8_t *at = code + (i * 37) % 8000;

		memcpy(at, body, sizeof body);
		memcpy(at + 1, &i, 4);
		sum += ((int (*)(void))at)();
		at[7] = (uint8_t)i & 0x7f;
		sum += ((int (*)(void))at)();
	}
	memcpy(code, patcher, sizeof patcher);
	printf("made code %ld, patched ahead %d\n", sum, ((int (*)(void))code)());
}

static volatile sig_atomic_t alarms;

static void on_alarm(int s)
{
	alarms++;
}

static void timers(void)
{
	struct itimerval t = {{0, 5000}, {0, 5000}};
	struct timespec a, b;
	volatile double x = 1;
	int back = 0;

	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &t, NULL);
	clock_gettime(CLOCK_MONOTONIC, &a);
	while (alarms < 20) {
		x = x * 1.0000001 + 0.5;
		clock_gettime(CLOCK_MONOTONIC, &b);
		back += b.tv_sec < a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec < a.tv_nsec);
		a = b;
	}
	memset(&t, 0, sizeof t);
	setitimer(ITIMER_REAL, &t, NULL);
	printf("alarms %d, clock went back %d times\n", alarms >= 20, back);
}

/* int 0x80 from 64-bit code: getpid by the 32-bit table. */
static void compat(void)
{
	int r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
	printf("int 0x80 getpid %s\n", r == getpid() || r == -ENOSYS ? "as it should be" : "wrong");
}

int main(int argc, char **argv)
{
	setbuf(stdout, NULL);
	if (argc > 1) {
		printf("%s", argv[1]);
		return 7;
	}
	faults();
	threads();
	processes(argv[0]);
	made_code();
	timers();
	compat();
	return 0;
}
