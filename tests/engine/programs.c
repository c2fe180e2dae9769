/* programs: random programs (program.h) on an engine against the processor underneath. Program
 * number k follows from seed and k alone. One that ends differently is cut down to the few
 * instructions that it takes, and printed. Runs for minutes or hours with --seconds. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "compare.h"
#include "guest.h"
#include "native.h"
#include "program.h"
#include "vm.h"

/* Two to a page: one within it, one across its end. */
#define PER_BATCH (BATCH_CASES * SLOT_BYTES / PAGE * 2)
#define SHOWN_MAX 10

struct run {
	/* options */
	const char *engine;
	uint64_t seed;
	unsigned count, seconds;
	int64_t only;
	bool whole, batch;
	/* what runs */
	struct forms fs;
	struct program_forms pf;
	struct user_image image;
	struct batch_runner native, *guest;
	struct guest_runner guest_runner;
	bool windows, moved;
	struct program *program;
	struct user_case *cases;
	struct user_end *want, *got;
	unsigned k[PER_BATCH], n;
	unsigned passed, failed, hung, faulted;
	time_t start;
};

static struct rng rng_of(const struct run *s, uint64_t k)
{
	struct rng r = {s->seed * 0x100000001b3u + s->fs.compat};
	uint64_t x = rng_next(&r);

	return (struct rng){x ^ (k + 1) * 0x9e3779b97f4a7c15u};
}

static uint64_t entry(unsigned slot, struct rng *r)
{
	uint64_t page = CODE_BASE + slot / 2 * PAGE;

	return slot % 2 ? page + PAGE - 1 - rng_below(r, 600) : page + 1024 + rng_below(r, 64);
}

/* --- one batch --- */
static int run_cases(struct run *s, unsigned n)
{
	struct err e = {0};

	if (batch_run(&s->native, s->cases, n, &s->image, s->want, &e) < 0 ||
	    batch_run(s->guest, s->cases, n, &s->image, s->got, &e) < 0) {
		fprintf(stderr, "programs: %s\n", e.text);
		return -1;
	}
	for (unsigned i = 0; i < n; i++) {
		compare_normalize(&s->cases[i], &s->fs, &s->want[i]);
		compare_normalize(&s->cases[i], &s->fs, &s->got[i]);
	}
	return 0;
}

/* It jumped into another program of the batch, and faulted there. What may be open about such an
 * end (compare.h) cannot be told from its own instructions. */
static bool strayed(const struct user_case *c, const struct user_end *end)
{
	return end->ran && end->vector != X86_BP && end->s.rip - c->start.rip > c->len;
}

static bool differs(struct run *s, unsigned i, char *text, unsigned len)
{
	*text = 0;
	if (strayed(&s->cases[i], &s->want[i]) && s->got[i].ran)
		return s->want[i].s.rip != s->got[i].s.rip;
	return s->want[i].ran &&
	       !compare_ends(&s->cases[i], &s->fs, &s->want[i], &s->got[i], text, len);
}

/* --- a failure --- */
static bool still_differs(struct run *s, const struct program *p, uint64_t rip)
{
	char text[2000];

	return program_assemble(p, &s->fs, rip, &s->cases[0]) && run_cases(s, 1) == 0 &&
	       differs(s, 0, text, sizeof text);
}

/* Drops pieces, first many at once, as long as a difference stays. */
static void shrink(struct run *s, struct program *p, uint64_t rip)
{
	for (unsigned chunk = p->n / 2; chunk; chunk /= 2)
		for (unsigned from = 0; from < p->n; from += chunk) {
			struct program before = *p;
			unsigned fresh = 0;

			for (unsigned i = from; i < from + chunk && i < p->n; i++) {
				fresh += !p->piece[i].dropped;
				p->piece[i].dropped = true;
			}
			if (fresh && !still_differs(s, p, rip))
				*p = before;
		}
}

/* first: how it differed in its batch. */
static void explain(struct run *s, struct program *p, unsigned k, uint64_t rip, const char *first)
{
	static char text[4000];

	if (!s->whole)
		shrink(s, p, rip);
	if (!still_differs(s, p, rip)) {
		printf("FAIL program %u differs, but not when it runs alone (--case %u --batch)\n%s",
		       k, k, first);
		program_print(&s->cases[0], &s->fs, s->want[0].s.rip);
		return;
	}
	differs(s, 0, text, sizeof text);
	printf("FAIL program %u; native ends with vector %u at %lx, the engine with %u at %lx\n", k,
	       s->want[0].vector, s->want[0].s.rip, s->got[0].vector, s->got[0].s.rip);
	program_print(&s->cases[0], &s->fs, s->want[0].s.rip);
	printf("%s", text);
	for (int g = 0; g < 16; g++)
		printf("\tr%d=%lx%s", g, p->start.gpr[g], g % 4 == 3 ? "\n" : "");
	printf("\trflags=%lx; repeat: engine-programs --engine %s%s%s%s --seed %lu --case %u\n",
	       p->start.rflags, s->engine, s->fs.compat ? " --compat" : "",
	       s->windows ? " --windows" : "", s->moved ? " --moved" : "", s->seed, k);
}

static int run_batch(struct run *s)
{
	static char text[SHOWN_MAX + 1][4000];
	unsigned bad[SHOWN_MAX], bads = 0;
	uint64_t rip[SHOWN_MAX];

	if (!s->n || run_cases(s, s->n) < 0)
		return s->n ? -1 : 0;
	for (unsigned i = 0; i < s->n; i++) {
		if (!s->want[i].ran) {
			s->hung++;
			continue;
		}
		s->faulted += s->want[i].vector != X86_BP;
		if (!differs(s, i, text[bads], sizeof text[0])) {
			s->passed++;
			continue;
		}
		if (s->failed++ < SHOWN_MAX) {
			bad[bads] = i;
			rip[bads++] = s->cases[i].start.rip;
		}
	}
	for (unsigned b = 0; b < bads; b++)
		explain(s, &s->program[bad[b]], s->k[bad[b]], rip[b], text[b]);
	s->n = 0;
	return 0;
}

static bool out_of_time(const struct run *s)
{
	return s->seconds && time(NULL) - s->start >= (time_t)s->seconds;
}

static int run_all(struct run *s)
{
	for (unsigned k = 0; (k < s->count || !s->count) && !out_of_time(s); k++) {
		struct rng r;
		uint64_t rip;

		if (s->only >= 0 &&
		    (s->batch ? k / PER_BATCH != s->only / PER_BATCH : k != s->only))
			continue;
		r = rng_of(s, k);
		rip = entry(k % PER_BATCH, &r);
		program_make(&s->program[s->n], &s->pf, &r);
		if (!program_assemble(&s->program[s->n], &s->fs, rip, &s->cases[s->n]))
			continue;
		s->k[s->n++] = k;
		if ((s->n == PER_BATCH || k % PER_BATCH == PER_BATCH - 1) && run_batch(s) < 0)
			return -1;
	}
	return run_batch(s);
}

/* --- the forms --- */
static bool is_general(const struct run *s, const struct user_case *c)
{
	ZydisDecodedInstruction in;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&s->fs.decoder, c->bytes, c->len, &in, op)) &&
	       in.meta.isa_ext == ZYDIS_ISA_EXT_BASE && in.meta.category != ZYDIS_CATEGORY_STRINGOP;
}

static void take_usable(struct run *s, uint32_t *any, uint32_t *general, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct user_case *c = &s->cases[i];
		uint32_t form = c->form[0];

		if (!s->want[i].ran || s->want[i].vector != X86_BP ||
		    s->want[i].s.rip != c->start.rip + c->len + 1)
			continue;
		if (!s->pf.any_n || any[s->pf.any_n - 1] != form)
			any[s->pf.any_n++] = form;
		if (is_general(s, c) && (!s->pf.general_n || general[s->pf.general_n - 1] != form))
			general[s->pf.general_n++] = form;
	}
}

/* Those that the host has: tried three times each. */
static int find_usable(struct run *s)
{
	uint32_t *any = calloc(s->fs.n, sizeof *any), *general = calloc(s->fs.n, sizeof *any);
	struct err e = {0};
	unsigned n = 0;

	s->pf = (struct program_forms){.fs = &s->fs, .any = any, .general = general};
	for (uint32_t f = 0; any && general && f < s->fs.n; f++) {
		for (unsigned k = 0; k < 3 && !s->fs.f[f].left_out; k++) {
			struct rng r = {s->seed ^ (3 * f + k) * UINT64_C(0x9e3779b97f4a7c15)};

			n += make_case(&s->cases[n], &s->fs, &f, 1, make_entry(n, 0), &r);
		}
		if (n + 3 < BATCH_CASES && f + 1 < s->fs.n)
			continue;
		if (batch_run(&s->native, s->cases, n, &s->image, s->want, &e) < 0) {
			fprintf(stderr, "programs: %s\n", e.text);
			return -1;
		}
		take_usable(s, any, general, n);
		n = 0;
	}
	if (!s->pf.general_n)
		fprintf(stderr, "programs: no instruction runs natively\n");
	return s->pf.general_n ? 0 : -1;
}

static int run_init(struct run *s)
{
	struct rng r = {s->seed};

	if (!forms_find(&s->fs, s->fs.compat))
		return -1;
	make_image(&s->image, &r);
	s->program = calloc(PER_BATCH, sizeof *s->program);
	s->cases = aligned_alloc(64, BATCH_CASES * sizeof *s->cases);
	s->want = batch_results(BATCH_CASES);
	s->got = batch_results(BATCH_CASES);
	return s->program && s->cases && s->want && s->got ? find_usable(s) : -1;
}

static void run_done(struct run *s)
{
	free(s->program);
	free(s->cases);
	free((void *)s->pf.any);
	free((void *)s->pf.general);
	batch_results_free(s->want, BATCH_CASES);
	batch_results_free(s->got, BATCH_CASES);
	forms_done(&s->fs);
}

static const char usage[] =
	"usage: engine-programs [--engine jit|kvm|native] [--compat] [--windows] [--moved] [--seed N]\n"
	"                       [--count N] [--seconds N] [--case K [--batch]] [--whole]\n"
	"--moved: each runs at two other addresses first, so that the JIT copies its code.\n"
	"--count 0: until --seconds are over. --batch: with those that ran beside it.\n"
	"--whole: a program that fails is not cut down.\n";

static bool parse(struct run *s, int argc, char **argv)
{
	static const struct option options[] = {{"engine", 1, NULL, 'e'},
						{"compat", 0, NULL, 'c'},
						{"seed", 1, NULL, 's'},
						{"count", 1, NULL, 'n'},
						{"seconds", 1, NULL, 't'},
						{"case", 1, NULL, 'k'},
						{"whole", 0, NULL, 'w'},
						{"batch", 0, NULL, 'b'},
						{"windows", 0, NULL, 'd'},
						{"moved", 0, NULL, 'm'},
						{0}};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (o) {
		case 'e': s->engine = optarg; break;
		case 'c': s->fs.compat = true; break;
		case 's': s->seed = strtoull(optarg, NULL, 0); break;
		case 'n': s->count = (unsigned)strtoul(optarg, NULL, 0); break;
		case 't': s->seconds = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'w': s->whole = true; break;
		case 'b': s->batch = true; break;
		case 'd': s->windows = true; break;
		case 'm': s->moved = true; break;
		case 'k':
			s->only = strtoll(optarg, NULL, 0);
			s->count = ((unsigned)s->only / PER_BATCH + 1) * PER_BATCH;
			break;
		default: return false;
		}
	return optind == argc && (s->count || s->seconds);
}

int main(int argc, char **argv)
{
	struct run s = {
		.engine = "jit", .seed = 1, .count = 4000, .only = -1, .native = native_runner};
	int r;

	if (!parse(&s, argc, argv)) {
		fputs(usage, stderr);
		return 2;
	}
	s.guest = &s.native;
	if (strcmp(s.engine, "native")) {
		const struct engine *engine = vm_engine(s.engine);

		if (!engine) {
			printf("engine %s is not in this build\n", s.engine);
			return 77; /* Meson: skipped */
		}
		if (vm_host(engine) != VM_HOST_FIT)
			return 77;
		guest_runner_init(&s.guest_runner, engine);
		s.guest_runner.windows = s.windows;
		s.guest_runner.moved = s.moved;
		s.guest = &s.guest_runner.runner;
	}
	r = run_init(&s);
	s.start = time(NULL);
	if (r == 0)
		r = run_all(&s);
	if (r == 0)
		printf("%u passed (%u of all ended in a fault), %u failed, %u hung natively\n",
		       s.passed, s.faulted, s.failed, s.hung);
	run_done(&s);
	return r < 0 ? 2 : s.failed ? 1 : 0;
}
