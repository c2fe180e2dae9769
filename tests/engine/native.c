#include "native.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

struct native_frame { /* native_entry.S knows the offsets */
	uint64_t gpr[16];
	uint64_t rip, rflags, fs_base, gs_base;
	const void *xsave;
	uint64_t xfeatures;
	uint64_t cs, ss;
};

void native_enter(const struct native_frame *f);
void native_handler(int sig, siginfo_t *info, void *ucontext);
void native_trapped(const ucontext_t *u, uint64_t fs_base, uint64_t gs_base);

/* In the child only: where the running case's result goes. */
static struct user_end *running;

static const uint8_t greg_of_gpr[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

void native_trapped(const ucontext_t *u, uint64_t fs_base, uint64_t gs_base)
{
	const greg_t *g = u->uc_mcontext.gregs;
	struct user_end *end = running;
	uint64_t features = user_xfeatures();
	uint32_t bytes = 576;

	for (unsigned n = 2; n < 8; n++) {
		uint32_t size, at;

		if (!(features & BIT(n)))
			continue;
		at = user_xoffset(n, &size);
		if (at + size > bytes)
			bytes = at + size;
	}
	for (int i = 0; i < 16; i++)
		end->s.gpr[i] = (uint64_t)g[greg_of_gpr[i]];
	end->s.rip = (uint64_t)g[REG_RIP];
	end->s.rflags = (uint64_t)g[REG_EFL];
	end->s.fs_base = fs_base;
	end->s.gs_base = gs_base;
	memcpy(end->s.xsave, u->uc_mcontext.fpregs, bytes);
	end->vector = (uint8_t)g[REG_TRAPNO];
	end->error = (uint32_t)g[REG_ERR];
	end->cr2 = end->vector == X86_PF ? (uint64_t)g[REG_CR2] : 0;
	end->ran = true;
}

static uint8_t *child_page(void *ctx, unsigned n)
{
	return n == 1 || n == 2 || n == 5 ? (uint8_t *)DATA_BASE + n * PAGE : NULL;
}

static int map_windows(const struct user_case *cases, unsigned n, const struct user_image *image)
{
	uint8_t *code = (uint8_t *)CODE_BASE, *data = (uint8_t *)DATA_BASE;
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE;

	if (mmap(code, CODE_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0) != code ||
	    mmap(data, DATA_PAGES * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) != data)
		return -errno;
	memset(code, 0xcc, CODE_BYTES);
	for (unsigned i = 0; i < n; i++)
		memcpy((void *)cases[i].start.rip, cases[i].bytes, cases[i].len);
	memcpy(data + DATA_RO_PAGE * PAGE, image->page[DATA_RW_PAGES], PAGE);
	if (mprotect(code, CODE_BYTES, PROT_READ | PROT_EXEC) < 0 ||
	    mprotect(data, PAGE, PROT_NONE) < 0 ||
	    mprotect(data + DATA_RO_PAGE * PAGE, PAGE, PROT_READ) < 0 ||
	    mprotect(data + 4 * PAGE, PAGE, PROT_NONE) < 0 ||
	    mprotect(data + 6 * PAGE, PAGE, PROT_NONE) < 0)
		return -errno;
	return 0;
}

static int take_signals(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
	static uint8_t stack[65536] __attribute__((aligned(64)));
	stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
	struct sigaction sa = {.sa_sigaction = native_handler,
			       .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	if (sigaltstack(&alt, NULL) < 0)
		return -errno;
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		if (sigaction(signals[i], &sa, NULL) < 0)
			return -errno;
	return 0;
}

static int prepare(struct batch_runner *b, const struct user_case *cases, unsigned n,
		   const struct user_image *image, struct err *e)
{
	int r = map_windows(cases, n, image);

	if (r < 0)
		return err_sys(e, -r, "map the native windows");
	r = take_signals();
	return r < 0 ? err_sys(e, -r, "take signals") : 0;
}

static void run_one(struct batch_runner *b, const struct user_case *c,
		    const struct user_image *image, struct user_end *end)
{
	struct native_frame f = {.rip = c->start.rip,
				 .rflags = c->start.rflags,
				 .fs_base = c->start.fs_base,
				 .gs_base = c->start.gs_base,
				 .xsave = c->start.xsave,
				 .xfeatures = user_xfeatures(),
				 .cs = c->compat ? USER_CS32 : USER_CS64,
				 .ss = USER_SS};

	for (unsigned i = 0; i < DATA_RW_PAGES; i++)
		memcpy(child_page(NULL, data_rw_page(i)), image->page[i], PAGE);
	user_apply_patches(c, child_page, NULL);
	memcpy(f.gpr, c->start.gpr, sizeof f.gpr);
	running = end;
	native_enter(&f);
	for (unsigned i = 0; i < DATA_RW_PAGES; i++)
		memcpy(end->mem[i], child_page(NULL, data_rw_page(i)), PAGE);
	for (int i = 0; c->compat && i < 16; i++)
		end->s.gpr[i] = i < 8 ? end->s.gpr[i] & 0xffffffff : 0;
}

const struct batch_runner native_runner = {.prepare = prepare, .one = run_one};
