#include "program.h"

#include <stdio.h>
#include <string.h>

#define COUNTERS   4u
#define COUNTER_AT (DATA_BASE + PAGE + 16)
#define DEPTH      3u

struct writer {
	struct program *p;
	const struct program_forms *f;
	struct rng *r;
	struct user_case c; /* for its registers */
	unsigned left;      /* instructions that may still be made */
	unsigned counters;
	bool in_call;
};

static void block(struct writer *w, unsigned want, unsigned depth);

/* --- making --- */
static struct piece *add(struct writer *w, enum piece_kind kind)
{
	struct piece *p = &w->p->piece[w->p->n];

	if (w->p->n == PROGRAM_PIECES - 1)
		return p; /* the last is written over, and not counted */
	w->p->n++;
	if (w->left)
		w->left--;
	*p = (struct piece){.kind = kind};
	return p;
}

static void set(struct writer *w, unsigned reg, uint32_t value)
{
	struct piece *p = add(w, PIECE_SET);

	p->reg_or_cc = (uint8_t)reg;
	p->value = value;
}

static void insn(struct writer *w)
{
	const struct program_forms *f = w->f;
	struct tame_insn i;

	for (unsigned tries = 0; tries < 50; tries++) {
		bool any = rng_below(w->r, 5) < 2;
		uint32_t form = any ? f->any[rng_below(w->r, f->any_n)]
				    : f->general[rng_below(w->r, f->general_n)];

		if (!make_tame(&w->c, f->fs, form, w->in_call, w->r, &i))
			continue;
		if (i.is_string) {
			set(w, X86_RCX, rng_below(w->r, 40));
			set(w, X86_RSI, (uint32_t)DATA_BASE + PAGE + 1024 + rng_below(w->r, 2048));
			set(w, X86_RDI, (uint32_t)DATA_BASE + PAGE + 1024 + rng_below(w->r, 2048));
		}
		add(w, PIECE_INSN)->insn = i;
		return;
	}
}

static void loop(struct writer *w, unsigned depth)
{
	struct piece *p;
	uint8_t counter = (uint8_t)w->counters++, start;

	p = add(w, PIECE_COUNT);
	p->counter = counter;
	p->value = 1 + rng_below(w->r, depth ? 6 : 40);
	start = (uint8_t)w->p->n;
	block(w, 1 + rng_below(w->r, 8), depth + 1);
	p = add(w, PIECE_LOOP);
	p->counter = counter;
	p->target = start;
}

static void skip(struct writer *w, unsigned depth)
{
	static const uint8_t kinds[] = {PIECE_JCC, PIECE_JCC,     PIECE_JCC,    PIECE_JCC,
					PIECE_JMP, PIECE_JMP_REG, PIECE_JMP_RET};
	unsigned at = w->p->n;
	struct piece *p = add(w, (enum piece_kind)kinds[rng_below(w->r, ARRAY_SIZE(kinds))]);

	p->reg_or_cc = (uint8_t)rng_below(w->r, 16);
	block(w, 1 + rng_below(w->r, 5), depth + 1);
	w->p->piece[at].target = (uint8_t)w->p->n;
}

static void call(struct writer *w, unsigned depth)
{
	unsigned at = w->p->n;
	bool outer = w->in_call;

	add(w, rng_odds(w->r, 3) ? PIECE_CALL_REG : PIECE_CALL);
	add(w, PIECE_JMP);
	w->p->piece[at].target = (uint8_t)w->p->n;
	w->in_call = true;
	block(w, 1 + rng_below(w->r, 6), depth + 1);
	w->in_call = outer;
	add(w, PIECE_RET);
	w->p->piece[at + 1].target = (uint8_t)w->p->n;
}

static void block(struct writer *w, unsigned want, unsigned depth)
{
	for (unsigned n = 0; n < want && w->left; n++) {
		bool nest = depth < DEPTH && w->left > 4 && w->p->n < PROGRAM_PIECES - 30;

		if (nest && w->counters < COUNTERS && rng_odds(w->r, 9))
			loop(w, depth);
		else if (nest && rng_odds(w->r, 6))
			skip(w, depth);
		else if (nest && rng_odds(w->r, 9))
			call(w, depth);
		else
			insn(w);
	}
}

void program_make(struct program *p, const struct program_forms *f, struct rng *r)
{
	struct writer w = {.p = p, .f = f, .r = r};

	p->n = 0;
	make_tame_start(&w.c, f->fs, r);
	p->start = w.c.start;
	w.left = 5 + rng_below(r, 46);
	block(&w, 50, 0);
}

/* --- assembling --- */
struct assembler {
	const struct program *p;
	bool compat;
	uint8_t *to;
	unsigned at;
	uint64_t rip;
	uint64_t *addr; /* of each piece, from the pass before */
};

static void put(struct assembler *a, uint64_t v, unsigned bytes)
{
	if (a->at + bytes <= CASE_BYTES)
		store_le(a->to + a->at, v, bytes);
	a->at += bytes;
}

static void put_rel32(struct assembler *a, uint64_t target)
{
	put(a, (uint32_t)(target - (a->rip + a->at + 4)), 4);
}

static void put_counter(struct assembler *a, uint8_t opcode, uint8_t reg, const struct piece *p)
{
	put(a, opcode, 1);
	if (a->compat) {
		put(a, reg << 3 | 5u, 1);
	} else { /* SIB, no base */
		put(a, reg << 3 | 4u, 1);
		put(a, 0x25, 1);
	}
	put(a, COUNTER_AT + 4 * p->counter, 4);
}

static void put_target_in_rax(struct assembler *a, uint64_t target)
{
	if (a->compat) {
		put(a, 0xb8, 1);
		put(a, (uint32_t)target, 4);
	} else {
		put(a, 0x058d48, 3);
		put_rel32(a, target);
	}
}

static void put_insn(struct assembler *a, const struct tame_insn *i)
{
	unsigned from = a->at;

	for (unsigned n = 0; n < i->len; n++)
		put(a, i->bytes[n], 1);
	if (i->rip_target && a->at <= CASE_BYTES)
		store_le(a->to + from + i->disp_at, i->rip_target - (a->rip + a->at), 4);
}

static void put_piece(struct assembler *a, const struct piece *p)
{
	uint64_t target = a->addr[p->target];

	switch (p->kind) {
	case PIECE_INSN: put_insn(a, &p->insn); break;
	case PIECE_SET:
		put(a, 0xb8u + p->reg_or_cc, 1);
		put(a, p->value, 4);
		break;
	case PIECE_COUNT:
		put_counter(a, 0xc7, 0, p);
		put(a, p->value, 4);
		break;
	case PIECE_LOOP:
		put_counter(a, 0x83, 5, p);
		put(a, 1, 1);
		put(a, 0x850f, 2);
		put_rel32(a, target);
		break;
	case PIECE_JCC:
		put(a, 0x0f, 1);
		put(a, 0x80u | p->reg_or_cc, 1);
		put_rel32(a, target);
		break;
	case PIECE_JMP:
		put(a, 0xe9, 1);
		put_rel32(a, target);
		break;
	case PIECE_JMP_REG:
		put_target_in_rax(a, target);
		put(a, 0xe0ff, 2);
		break;
	case PIECE_JMP_RET:
		put_target_in_rax(a, target);
		put(a, 0xc350, 2);
		break;
	case PIECE_CALL:
		put(a, 0xe8, 1);
		put_rel32(a, target);
		break;
	case PIECE_CALL_REG:
		put_target_in_rax(a, target);
		put(a, 0xd0ff, 2);
		break;
	case PIECE_RET: put(a, 0xc3, 1); break;
	}
}

bool program_assemble(const struct program *p, const struct forms *fs, uint64_t rip,
		      struct user_case *c)
{
	uint64_t addr[PROGRAM_PIECES + 1] = {0};
	struct assembler a = {
		.p = p, .compat = fs->compat, .to = c->bytes, .rip = rip, .addr = addr};

	c->start = p->start;
	c->start.rip = rip;
	c->compat = fs->compat;
	/* Sizes do not depend on addresses, so the second pass has the right ones. */
	for (unsigned pass = 0; pass < 2; pass++) {
		a.at = 0;
		c->forms = 0;
		for (unsigned i = 0; i < p->n; i++) {
			const struct piece *piece = &p->piece[i];

			addr[i] = rip + a.at;
			if (piece->dropped)
				continue;
			put_piece(&a, piece);
			if (piece->kind == PIECE_INSN && c->forms < CASE_FORMS)
				c->form[c->forms++] = piece->insn.form;
		}
		addr[p->n] = rip + a.at;
	}
	c->len = (uint16_t)a.at;
	c->patches = 0;
	for (unsigned i = 0; i < COUNTERS / 2; i++) /* loops end though COUNT is dropped */
		c->patch[c->patches++] =
			(struct user_patch){COUNTER_AT + 8 * i, UINT64_C(0x300000003)};
	return a.at <= CASE_BYTES;
}

void program_print(const struct user_case *c, const struct forms *fs, uint64_t mark)
{
	ZydisFormatter fmt;

	ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
	for (unsigned at = 0; at < c->len;) {
		ZydisDecodedInstruction in;
		ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
		char text[120];

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&fs->decoder, c->bytes + at, c->len - at,
							 &in, op)))
			break;
		ZydisFormatterFormatInstruction(&fmt, &in, op, in.operand_count_visible, text,
						sizeof text, c->start.rip + at, NULL);
		printf("%s%#lx  %-50s", c->start.rip + at == mark ? "->\t" : "\t",
		       c->start.rip + at, text);
		for (unsigned b = 0; b < in.length; b++)
			printf(" %02x", c->bytes[at + b]);
		printf("\n");
		at += in.length;
	}
}
