/* string: MOVS, STOS, LODS, SCAS, CMPS with and without a repeat prefix (SDM volume 2).
 *
 * Elements that lie in plain RAM are worked off a page at a time by the host's own string
 * instruction of the same width and direction, so overlapping copies and flags come out as
 * the processor makes them. An element that crosses a page, or lies in MMIO or in watched
 * code, goes through jit_read and jit_write by itself. Registers are written after every
 * run, so a fault finds them as they should be; between runs an interrupt may be taken.
 * Quick code. */
#include "cpu/jit/sys_priv.h"

struct string_op {
	unsigned size, asize;
	enum x86_sreg seg;
	unsigned rep; /* as in the helper's argument: 0, 1 REPE, 2 REPNE */
	bool down;
};

static struct string_op string_op(const struct jit_cpu *c, uint64_t arg)
{
	struct string_op o = {
		.size = ARG_SIZE(arg),
		.asize = ARG_R1(arg),
		.seg = ARG_R2(arg),
		.rep = ARG_IMM(arg),
		.down = c->st.rflags & RFLAGS_DF,
	};

	return o;
}

static uint64_t remaining(const struct jit_cpu *c, const struct string_op *o)
{
	return o->rep ? gpr_read(c, X86_RCX, o->asize) : 1;
}

static void advance(struct jit_cpu *c, const struct string_op *o, unsigned reg, uint64_t n)
{
	uint64_t by = n * o->size, v = c->st.gpr[reg];

	gpr_write(c, reg, o->down ? v - by : v + by, o->asize);
}

/* n elements are done. True when the instruction is too, false when it is to be run again
 * (or goes on in the caller's loop). */
static bool count_down(struct jit_cpu *c, const struct string_op *o, uint64_t n)
{
	uint64_t left;

	if (!o->rep)
		return true;
	left = gpr_read(c, X86_RCX, o->asize) - n;
	gpr_write(c, X86_RCX, left, o->asize);
	return left == 0;
}

static bool interrupted(struct jit_cpu *c)
{
	return (c->st.rflags & RFLAGS_TF) ||
	       atomic_load_explicit(&c->attention, memory_order_relaxed);
}

/* How many elements from offset on may be touched in one run, as far as the segment and
 * the width of addresses go; at least 1, whose own check is jit_seg_addr's. */
static uint64_t room_in_segment(const struct jit_cpu *c, const struct string_op *o,
				enum x86_sreg seg, uint64_t offset)
{
	const struct x86_seg *s = &c->st.seg[seg % X86_SREGS];
	uint64_t top = o->asize == 8 ? ~UINT64_C(0) : BIT(o->asize * 8) - 1, n;

	if (!jit_code64(c)) {
		if ((s->attr & 0xc) == 4) /* expand-down: one at a time */
			return 1;
		top = min_u64(top, s->limit);
	}
	if (o->down)
		n = offset / o->size + 1;
	else
		n = offset > top ? 1 : (top - offset) / o->size + 1;
	return n ? n : UINT64_MAX; /* all 2^64 of them */
}

/* A run of elements in plain host memory. */
struct run {
	uint8_t *hva; /* of the first element; NULL: not RAM, or it crosses a page */
	uint64_t gva, n;
};

static void run_at(struct jit_cpu *c, const struct string_op *o, enum x86_sreg seg, unsigned reg,
		   enum jit_access acc, struct run *r)
{
	uint64_t offset = gpr_read(c, reg, o->asize);
	unsigned left, below;

	r->gva = jit_seg_addr(c, seg, offset, o->size, acc);
	r->hva = NULL;
	r->n = 1;
	jit_check_aligned(c, c->mmu, r->gva, o->size);
	if ((r->gva & 0xfff) + o->size > 0x1000) {
		jit_probe(c, c->mmu, r->gva, o->size, acc); /* sources fault first */
		return;
	}
	r->hva = jit_ram(c, c->mmu, r->gva, acc, &left);
	if (!r->hva)
		return;
	below = (unsigned)(r->gva & 0xfff);
	r->n = o->down ? below / o->size + 1 : left / o->size;
	r->n = min_u64(r->n, room_in_segment(c, o, seg, offset));
}

static uint64_t limit_run(struct jit_cpu *c, const struct string_op *o, uint64_t n)
{
	if (c->st.rflags & RFLAGS_TF)
		return 1;
	return min_u64(n, remaining(c, o));
}

/* The host's own string instructions, by width; DF as the guest has it. */
#define BY_WIDTH(size, insn, ...)                                                                  \
	do {                                                                                       \
		switch (size) {                                                                    \
		case 1: insn("b", __VA_ARGS__); break;                                             \
		case 2: insn("w", __VA_ARGS__); break;                                             \
		case 4: insn("l", __VA_ARGS__); break;                                             \
		default: insn("q", __VA_ARGS__); break;                                            \
		}                                                                                  \
	} while (0)

#define MOVS_UP(w, to, from, n)                                                                    \
	__asm__ volatile("rep movs" w : "+D"(to), "+S"(from), "+c"(n)::"memory")
#define MOVS_DOWN(w, to, from, n)                                                                  \
	__asm__ volatile("std; rep movs" w "; cld" : "+D"(to), "+S"(from), "+c"(n)::"memory", "cc")
#define STOS_UP(w, to, v, n) __asm__ volatile("rep stos" w : "+D"(to), "+c"(n) : "a"(v) : "memory")
#define STOS_DOWN(w, to, v, n)                                                                     \
	__asm__ volatile("std; rep stos" w "; cld" : "+D"(to), "+c"(n) : "a"(v) : "memory", "cc")

/* Each compares up to n (> 0) elements; ax gets the flags as jit_cpu.flags packs them. */
#define FLAGS_TAIL "; cld; lahf; seto %%al"
#define CMPS(w, pre, a, b, n, ax)                                                                  \
	__asm__ volatile(pre " cmps" w FLAGS_TAIL                                                  \
			 : "+S"(a), "+D"(b), "+c"(n), "=a"(ax)::"memory", "cc")
#define SCAS(w, pre, b, n, ax)                                                                     \
	__asm__ volatile(pre " scas" w FLAGS_TAIL : "+D"(b), "+c"(n), "+a"(ax)::"memory", "cc")
#define CMPS_REPE_UP(w, ...)    CMPS(w, "repe", __VA_ARGS__)
#define CMPS_REPE_DOWN(w, ...)  CMPS(w, "std; repe", __VA_ARGS__)
#define CMPS_REPNE_UP(w, ...)   CMPS(w, "repne", __VA_ARGS__)
#define CMPS_REPNE_DOWN(w, ...) CMPS(w, "std; repne", __VA_ARGS__)
#define SCAS_REPE_UP(w, ...)    SCAS(w, "repe", __VA_ARGS__)
#define SCAS_REPE_DOWN(w, ...)  SCAS(w, "std; repe", __VA_ARGS__)
#define SCAS_REPNE_UP(w, ...)   SCAS(w, "repne", __VA_ARGS__)
#define SCAS_REPNE_DOWN(w, ...) SCAS(w, "std; repne", __VA_ARGS__)

static void host_movs(const struct string_op *o, uint8_t *to, const uint8_t *from, uint64_t n)
{
	if (o->down)
		BY_WIDTH(o->size, MOVS_DOWN, to, from, n);
	else
		BY_WIDTH(o->size, MOVS_UP, to, from, n);
}

static void host_stos(const struct string_op *o, uint8_t *to, uint64_t v, uint64_t n)
{
	if (o->down)
		BY_WIDTH(o->size, STOS_DOWN, to, v, n);
	else
		BY_WIDTH(o->size, STOS_UP, to, v, n);
}

/* Returns how many elements were compared. */
static uint64_t host_cmps(const struct string_op *o, const uint8_t *a, const uint8_t *b, uint64_t n,
			  uint16_t *flags)
{
	uint64_t left = n, ax;

	if (o->rep == 2) {
		if (o->down)
			BY_WIDTH(o->size, CMPS_REPNE_DOWN, a, b, left, ax);
		else
			BY_WIDTH(o->size, CMPS_REPNE_UP, a, b, left, ax);
	} else {
		if (o->down)
			BY_WIDTH(o->size, CMPS_REPE_DOWN, a, b, left, ax);
		else
			BY_WIDTH(o->size, CMPS_REPE_UP, a, b, left, ax);
	}
	*flags = (uint16_t)ax;
	return n - left;
}

static uint64_t host_scas(const struct string_op *o, uint64_t v, const uint8_t *b, uint64_t n,
			  uint16_t *flags)
{
	uint64_t left = n, ax = v;

	if (o->rep == 2) {
		if (o->down)
			BY_WIDTH(o->size, SCAS_REPNE_DOWN, b, left, ax);
		else
			BY_WIDTH(o->size, SCAS_REPNE_UP, b, left, ax);
	} else {
		if (o->down)
			BY_WIDTH(o->size, SCAS_REPE_DOWN, b, left, ax);
		else
			BY_WIDTH(o->size, SCAS_REPE_UP, b, left, ax);
	}
	*flags = (uint16_t)ax;
	return n - left;
}

/* Runs one step after another until the count, an interrupt or (compares) the flags end
 * it. A step returns the elements done and tells by stop that the condition ended it. */
typedef uint64_t string_step(struct jit_cpu *c, const struct string_op *o, bool *stop);

static void run_string(struct jit_cpu *c, uint64_t arg, string_step *step)
{
	struct string_op o = string_op(c, arg);
	bool stop = false;

	while (remaining(c, &o)) {
		uint64_t n = step(c, &o, &stop);

		if (count_down(c, &o, n) || stop)
			break;
		if (interrupted(c))
			return; /* st.rip unchanged: the rest is run again */
	}
	c->st.rip = next_rip(c, arg);
}

static uint64_t step_movs(struct jit_cpu *c, const struct string_op *o, bool *stop)
{
	struct run from, to;
	uint64_t n = 1;

	run_at(c, o, o->seg, X86_RSI, ACC_READ, &from);
	run_at(c, o, X86_ES, X86_RDI, ACC_WRITE, &to);
	if (from.hva && to.hva) {
		n = limit_run(c, o, min_u64(from.n, to.n));
		host_movs(o, to.hva, from.hva, n);
	} else {
		jit_write(c, c->mmu, to.gva, jit_read(c, c->mmu, from.gva, o->size), o->size);
	}
	advance(c, o, X86_RSI, n);
	advance(c, o, X86_RDI, n);
	return n;
}

static uint64_t step_stos(struct jit_cpu *c, const struct string_op *o, bool *stop)
{
	struct run to;
	uint64_t n = 1;

	run_at(c, o, X86_ES, X86_RDI, ACC_WRITE, &to);
	if (to.hva) {
		n = limit_run(c, o, to.n);
		host_stos(o, to.hva, c->st.gpr[X86_RAX], n);
	} else {
		jit_write(c, c->mmu, to.gva, gpr_read(c, X86_RAX, o->size), o->size);
	}
	advance(c, o, X86_RDI, n);
	return n;
}

static uint64_t step_lods(struct jit_cpu *c, const struct string_op *o, bool *stop)
{
	uint64_t gva = jit_seg_addr(c, o->seg, gpr_read(c, X86_RSI, o->asize), o->size, ACC_READ);

	gpr_write(c, X86_RAX, jit_read(c, c->mmu, gva, o->size), o->size);
	advance(c, o, X86_RSI, 1);
	return 1;
}

/* The condition that ends a repeated compare, from flags in jit_cpu.flags' format. */
static bool compare_ends(const struct string_op *o, uint16_t flags)
{
	bool zf = flags & 0x4000;

	return o->rep == 1 ? !zf : o->rep == 2 ? zf : true;
}

static uint64_t step_scas(struct jit_cpu *c, const struct string_op *o, bool *stop)
{
	uint64_t n = 1, one;
	struct run at;

	run_at(c, o, X86_ES, X86_RDI, ACC_READ, &at);
	if (at.hva) {
		n = limit_run(c, o, at.n);
	} else {
		one = jit_read(c, c->mmu, at.gva, o->size);
		at.hva = (uint8_t *)&one;
	}
	n = host_scas(o, c->st.gpr[X86_RAX], at.hva, n, &c->flags);
	advance(c, o, X86_RDI, n);
	*stop = compare_ends(o, c->flags);
	return n;
}

static uint64_t step_cmps(struct jit_cpu *c, const struct string_op *o, bool *stop)
{
	uint64_t n = 1, one, two;
	struct run a, b;

	run_at(c, o, o->seg, X86_RSI, ACC_READ, &a);
	run_at(c, o, X86_ES, X86_RDI, ACC_READ, &b);
	if (a.hva && b.hva) {
		n = limit_run(c, o, min_u64(a.n, b.n));
	} else {
		one = jit_read(c, c->mmu, a.gva, o->size);
		two = jit_read(c, c->mmu, b.gva, o->size);
		a.hva = (uint8_t *)&one;
		b.hva = (uint8_t *)&two;
	}
	n = host_cmps(o, a.hva, b.hva, n, &c->flags);
	advance(c, o, X86_RSI, n);
	advance(c, o, X86_RDI, n);
	*stop = compare_ends(o, c->flags);
	return n;
}

void h_movs(struct jit_cpu *c, uint64_t arg)
{
	run_string(c, arg, step_movs);
}

void h_stos(struct jit_cpu *c, uint64_t arg)
{
	run_string(c, arg, step_stos);
}

void h_lods(struct jit_cpu *c, uint64_t arg)
{
	run_string(c, arg, step_lods);
}

void h_scas(struct jit_cpu *c, uint64_t arg)
{
	run_string(c, arg, step_scas);
}

void h_cmps(struct jit_cpu *c, uint64_t arg)
{
	run_string(c, arg, step_cmps);
}
