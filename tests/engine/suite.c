/* suite: user-mode instructions on an engine against the processor underneath.
 *
 * Each case follows from (seed, mode, form, number) alone, so a failure names the command
 * that repeats it. Cases run in batches: natively, then in a guest, then compared. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "compare.h"
#include "guest.h"
#include "make.h"
#include "native.h"
#include "oddity.h"
#include "vm.h"

struct suite {
	/* options */
	const char *engine, *filter;
	bool windows;
	uint64_t seed;
	unsigned count, streams, stream_len;
	unsigned show; /* failures to print in full per mnemonic */
	int64_t only_form, only_k;
	unsigned seconds; /* stop starting batches after this; 0: no limit */
	bool list_left_out, verbose, stream_only;
	uint32_t stream_forms[8];
	/* run */
	struct forms fs;
	struct user_image image;
	struct batch_runner native, *guest;
	struct guest_runner guest_runner;
	struct user_case *cases;
	struct user_end *want, *got;
	uint32_t k[BATCH_CASES];
	unsigned n;
	bool stream;                     /* the batch under way is of streams */
	unsigned *passed_by, *failed_by; /* per form */
	bool *usable;                    /* form ended at the trap at least once natively */
	unsigned passed, failed, unmade, no_cases;
	bool odd_host;
	struct oddities odd;
	time_t start;
};

static uint64_t mix_seed(const struct suite *s, uint64_t a, uint64_t b)
{
	struct rng r = {s->seed * 0x100000001b3u + a};
	uint64_t x = rng_next(&r);

	r.x = x ^ b * 0x9e3779b97f4a7c15u;
	return rng_next(&r);
}

static void print_failure(struct suite *s, unsigned i, const char *text)
{
	const struct user_case *c = &s->cases[i];
	char asm_text[600];

	make_print(c, &s->fs, asm_text, sizeof asm_text);
	printf("FAIL %s\n\tbytes", asm_text);
	for (unsigned b = 0; b < c->len; b++)
		printf(" %02x", c->bytes[b]);
	printf("\n%s\trepeat: suite --engine %s%s%s --seed %lu", text, s->engine,
	       s->fs.compat ? " --compat" : "", s->windows ? " --windows" : "", s->seed);
	if (s->stream)
		printf(" --stream-case %u\n", s->k[i]);
	else
		printf(" --case %u:%u\n", c->form[0], s->k[i]);
	if (s->verbose) {
		for (int g = 0; g < 16; g++)
			printf("\tr%d=%lx%s", g, c->start.gpr[g], g % 4 == 3 ? "\n" : "");
		printf("\trip=%lx rflags=%lx fs=%lx gs=%lx mxcsr=%lx; native vector %u error %x cr2 %lx\n",
		       c->start.rip, c->start.rflags, c->start.fs_base, c->start.gs_base,
		       load_le(c->start.xsave + 24, 4), s->want[i].vector, s->want[i].error,
		       s->want[i].cr2);
	}
}

/* A stream that loops. */
static bool is_no_case(const struct suite *s, unsigned i)
{
	return !s->want[i].ran && !strcmp(s->want[i].broke, "it hung");
}

static void judge(struct suite *s, unsigned i)
{
	const struct user_case *c = &s->cases[i];
	uint32_t form = c->form[0];
	char text[2000];

	if (is_no_case(s, i)) {
		s->no_cases++;
		return;
	}
	if (s->want[i].ran && s->want[i].vector == X86_BP)
		s->usable[form] = true;
	if (compare_ends(c, &s->fs, &s->want[i], &s->got[i], text, sizeof text)) {
		s->passed++;
		s->passed_by[form]++;
		return;
	}
	if (s->odd_host && oddity_excuses(&s->odd, c, &s->fs, &s->image, &s->want[i], &s->got[i]))
		return;
	s->failed++;
	if (s->stream || s->failed_by[form]++ < s->show)
		print_failure(s, i, text);
}

static int run_batch(struct suite *s)
{
	struct err e = {0};

	if (!s->n)
		return 0;
	if (batch_run(&s->native, s->cases, s->n, &s->image, s->want, &e) < 0 ||
	    batch_run(s->guest, s->cases, s->n, &s->image, s->got, &e) < 0) {
		fprintf(stderr, "suite: %s\n", e.text);
		return -1;
	}
	for (unsigned i = 0; i < s->n; i++) {
		compare_normalize(&s->cases[i], &s->fs, &s->want[i]);
		compare_normalize(&s->cases[i], &s->fs, &s->got[i]);
		judge(s, i);
	}
	s->n = 0;
	return 0;
}

static bool out_of_time(const struct suite *s)
{
	return s->seconds && time(NULL) - s->start >= (time_t)s->seconds;
}

/* Whether word stands in the comma-separated list. */
static bool is_listed(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (;; list++) {
		if (!strncasecmp(list, word, len) && (!list[len] || list[len] == ','))
			return true;
		list = strchr(list, ',');
		if (!list)
			return false;
	}
}

static bool wanted(const struct suite *s, const struct form *f)
{
	return !f->left_out &&
	       (!s->filter || is_listed(s->filter, ZydisMnemonicGetString(f->mnemonic)));
}

static void add(struct suite *s, const uint32_t *forms, unsigned n, uint32_t k, struct rng *r)
{
	/* One case in eight lies across a page boundary; a page holds eight slots. */
	unsigned cross = s->n % 8 == 7 ? 1 + rng_below(r, 14) : 0;

	if (!make_case(&s->cases[s->n], &s->fs, forms, n, make_entry(s->n, cross), r))
		s->unmade++;
	else if (!s->stream || !oddity_bars_stream(&s->odd, &s->cases[s->n]))
		s->k[s->n++] = k;
}

/* Number k of every form, then number k + 1: time running out hits all forms alike. */
static int run_forms(struct suite *s)
{
	for (uint32_t k = 0; k < s->count; k++)
		for (uint32_t f = 0; f < s->fs.n; f++) {
			struct rng r = {mix_seed(s, f, k)};

			if (!wanted(s, &s->fs.f[f]) ||
			    (s->only_form >= 0 && (f != s->only_form || k != s->only_k)))
				continue;
			if (out_of_time(s))
				return run_batch(s);
			add(s, &f, 1, k, &r);
			if (s->n == BATCH_CASES && run_batch(s) < 0)
				return -1;
		}
	return run_batch(s);
}

/* Straight-line streams of forms that the host has. */
static int run_streams(struct suite *s)
{
	s->stream = true;
	for (uint32_t k = 0; k < s->streams; k++) {
		struct rng r = {mix_seed(s, BIT(40), k)};
		uint32_t forms[8];
		unsigned n = 2 + rng_below(&r, 7);

		for (unsigned i = 0; i < n; i++)
			do
				forms[i] = rng_below(&r, s->fs.n);
			while (!s->usable[forms[i]]);
		if (s->only_k >= 0 && k != s->only_k)
			continue;
		if (out_of_time(s))
			break;
		add(s, forms, n, k, &r);
		if (s->n == BATCH_CASES && run_batch(s) < 0)
			return -1;
	}
	return run_batch(s);
}

/* Which forms the host has and streams may use: found by running each a few times natively,
 * the same in every run with the same seed. */
static int find_usable(struct suite *s)
{
	struct err e = {0};
	bool any = false;

	for (uint32_t f = 0, k = 0; f < s->fs.n || s->n;) {
		if (f < s->fs.n && s->n < BATCH_CASES) {
			struct rng r = {mix_seed(s, f, k)};

			if (!s->fs.f[f].left_out)
				add(s, &f, 1, k, &r);
			if (++k == 3) {
				k = 0;
				f++;
			}
			continue;
		}
		if (batch_run(&s->native, s->cases, s->n, &s->image, s->want, &e) < 0) {
			fprintf(stderr, "suite: %s\n", e.text);
			return -1;
		}
		for (unsigned i = 0; i < s->n; i++)
			if (s->want[i].ran && s->want[i].vector == X86_BP &&
			    s->want[i].s.rip == s->cases[i].start.rip + s->cases[i].len + 1) {
				s->usable[s->cases[i].form[0]] = true;
				any = true;
			}
		s->n = 0;
	}
	if (!any)
		fprintf(stderr, "suite: no instruction runs natively\n");
	return any ? 0 : -1;
}

static void list_left_out(const struct suite *s)
{
	ZydisMnemonic last = ZYDIS_MNEMONIC_INVALID;

	for (unsigned i = 0; i < s->fs.n; i++) {
		const struct form *f = &s->fs.f[i];

		if (f->left_out && f->mnemonic != last)
			printf("%s: %s\n", ZydisMnemonicGetString(f->mnemonic), f->left_out);
		last = f->mnemonic;
	}
	printf("%u forms found\n", s->fs.n);
}

static void print_by_mnemonic(const struct suite *s)
{
	for (unsigned i = 0; i < s->fs.n;) {
		ZydisMnemonic m = s->fs.f[i].mnemonic;
		unsigned bad = 0, good = 0;

		for (; i < s->fs.n && s->fs.f[i].mnemonic == m; i++) {
			bad += s->failed_by[i];
			good += s->passed_by[i];
		}
		if (bad)
			printf("%-20s %u of %u failed\n", ZydisMnemonicGetString(m), bad,
			       bad + good);
	}
}

static int suite_run(struct suite *s)
{
	struct rng r = {s->seed};
	bool compat = s->fs.compat;
	struct err e = {0};

	if (!forms_find(&s->fs, compat))
		return -1;
	if (s->list_left_out) {
		list_left_out(s);
		return 0;
	}
	make_image(&s->image, &r);
	s->cases = aligned_alloc(64, BATCH_CASES * sizeof *s->cases);
	s->want = batch_results(BATCH_CASES);
	s->got = batch_results(BATCH_CASES);
	s->passed_by = calloc(s->fs.n, sizeof *s->passed_by);
	s->failed_by = calloc(s->fs.n, sizeof *s->failed_by);
	s->usable = calloc(s->fs.n, sizeof *s->usable);
	if (!s->cases || !s->want || !s->got || !s->passed_by || !s->failed_by || !s->usable)
		return -1;
	if (s->odd_host && oddity_look(&s->odd, s->guest, &s->image, compat, &e) < 0) {
		fprintf(stderr, "suite: %s\n", e.text);
		return -1;
	}
	if (!s->stream_only && run_forms(s) < 0)
		return -1;
	if (s->only_form < 0 && !s->filter && s->streams) {
		memset(s->usable, 0, s->fs.n);
		if (find_usable(s) < 0 || run_streams(s) < 0)
			return -1;
	}
	print_by_mnemonic(s);
	if (s->unmade)
		printf("%u forms could not be drawn\n", s->unmade);
	if (s->no_cases)
		printf("%u looped\n", s->no_cases);
	oddity_print(&s->odd);
	printf("%u passed, %u failed\n", s->passed, s->failed);
	return s->failed ? 1 : 0;
}

static void suite_done(struct suite *s)
{
	free(s->cases);
	batch_results_free(s->want, BATCH_CASES);
	batch_results_free(s->got, BATCH_CASES);
	free(s->passed_by);
	free(s->failed_by);
	free(s->usable);
	forms_done(&s->fs);
}

static const char usage[] =
	"usage: suite [--engine jit|kvm|native] [--compat] [--windows] [--filter MNEMONIC,...] [--seed N]\n"
	"             [--count N] [--streams N] [--seconds N] [--show N] [--verbose] [--case FORM:K]\n"
	"             [--stream-case K] [--list-left-out]\n";

static bool parse(struct suite *s, int argc, char **argv)
{
	enum {
		ENGINE = 1,
		COMPAT,
		WINDOWS,
		FILTER,
		SEED,
		COUNT,
		STREAMS,
		SECONDS,
		SHOW,
		VERBOSE,
		CASE,
		STREAM_CASE,
		LEFT_OUT
	};
	static const struct option options[] = {{"engine", 1, NULL, ENGINE},
						{"compat", 0, NULL, COMPAT},
						{"windows", 0, NULL, WINDOWS},
						{"filter", 1, NULL, FILTER},
						{"seed", 1, NULL, SEED},
						{"count", 1, NULL, COUNT},
						{"streams", 1, NULL, STREAMS},
						{"seconds", 1, NULL, SECONDS},
						{"show", 1, NULL, SHOW},
						{"verbose", 0, NULL, VERBOSE},
						{"case", 1, NULL, CASE},
						{"stream-case", 1, NULL, STREAM_CASE},
						{"list-left-out", 0, NULL, LEFT_OUT},
						{0}};
	char *colon;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (o) {
		case ENGINE: s->engine = optarg; break;
		case COMPAT: s->fs.compat = true; break;
		case WINDOWS: s->windows = true; break;
		case FILTER: s->filter = optarg; break;
		case SEED: s->seed = strtoull(optarg, NULL, 0); break;
		case COUNT: s->count = (unsigned)strtoul(optarg, NULL, 0); break;
		case STREAMS: s->streams = (unsigned)strtoul(optarg, NULL, 0); break;
		case SECONDS: s->seconds = (unsigned)strtoul(optarg, NULL, 0); break;
		case SHOW: s->show = (unsigned)strtoul(optarg, NULL, 0); break;
		case VERBOSE: s->verbose = true; break;
		case LEFT_OUT: s->list_left_out = true; break;
		case CASE:
			s->only_form = strtoll(optarg, &colon, 0);
			s->only_k = *colon ? strtoll(colon + 1, NULL, 0) : 0;
			s->count = (unsigned)s->only_k + 1;
			s->verbose = true;
			break;
		case STREAM_CASE:
			s->only_k = strtoll(optarg, NULL, 0);
			s->streams = (unsigned)s->only_k + 1;
			s->stream_only = s->verbose = true;
			break;
		default: return false;
		}
	return optind == argc;
}

int main(int argc, char **argv)
{
	struct suite s = {.engine = "jit",
			  .seed = 1,
			  .count = 4,
			  .streams = 4000,
			  .show = 1,
			  .only_form = -1,
			  .only_k = -1,
			  .native = native_runner};
	int r;

	if (!parse(&s, argc, argv)) {
		fputs(usage, stderr);
		return 2;
	}
	s.start = time(NULL);
	s.guest = &s.native;
	if (strcmp(s.engine, "native")) {
		const struct engine *engine = vm_engine(s.engine);

		if (!engine) {
			printf("engine %s is not in this build\n", s.engine);
			return 77; /* Meson: skipped */
		}
		switch (vm_host(engine)) {
		case VM_HOST_UNFIT: return 77;
		case VM_HOST_ODD: s.odd_host = true; break;
		case VM_HOST_FIT: break;
		}
		guest_runner_init(&s.guest_runner, engine);
		s.guest_runner.windows = s.windows;
		s.guest = &s.guest_runner.runner;
	}
	r = suite_run(&s);
	suite_done(&s);
	return r < 0 ? 2 : r;
}
