/* loop: a direct block that jumps back to its own start. What its body would check each time round is
 * checked before it, and held where the body begins:
 *
 *	entries; checks
 *	top:	poll
 *		body, whose jump back goes to top
 *
 * That is right as long as the registers of an address change by constants alone, and each way round
 * ends as near to the lane as it is taken to begin: it does not move them, or an access has shown
 * since where they are. r13 and r14 hold the first two; if there are more, or the body needs r13 or
 * r14 for something else too, all have slots (jit_cpu.held) that they are loaded from.
 *
 * A check here that fails for good has the first instruction executed in step mode, as if it had made
 * that access; then a block that begins behind it goes on. */
#include "cpu/jit/translate.h"

#include <string.h>

static bool jumps_back(const struct xlate *x, const struct insn *i)
{
	bool jump = i->rule->kind == RULE_JCC || (i->rule->kind == RULE_JMP && !i->followed);

	return jump && i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	       x_branch_target(x, i) == x->b.gva;
}

void x_loop_init(struct xlate *x)
{
	unsigned n = x->direct ? x->n : 0;

	while (n && !jumps_back(x, &x->in[n - 1]))
		n--;
	x->loop = (struct x_loop){.length = n ? n : x->n};
}

void x_loop_want(struct xlate *x, const struct x_want *w)
{
	struct x_loop *l = &x->loop;

	if (l->on || l->wants == HELD_SLOTS ||
	    (w->held.index != R_NONE && w->held.index < 16 &&
	     jit_host_reg[w->held.index] == R_NONE))
		return;
	for (unsigned n = 0; n < l->wants; n++)
		if (x_held_same(&l->want[n].held, &w->held))
			return;
	l->want[l->wants++] = *w;
}

void x_loop_enter(struct xlate *x)
{
	struct x_loop *l = &x->loop;

	x->flags = FLAGS_SLOT;
	for (unsigned n = HELD_SLOTS; n--;) {
		unsigned to = n == 1 ? R_14 : R_13;

		if (!l->head[n].held.valid)
			continue;
		x_direct_hold(x, &x->in[0], to, &l->head[n]);
		if (!l->slots)
			continue;
		e_store(&x->hot, OFF(held) + 8 * n, to);
		x->held[2 + n] = x->held[to == R_14];
	}
	for (unsigned n = 0; n < 2; n++)
		x->held[n].valid = l->head[n].held.valid;
	for (unsigned n = 0; n < X_HELD; n++)
		x->held[n].far = X_LOOP_FAR;
	l->top = x->hot.p;
}

static bool holds(const struct x_held *h, const struct x_held *head)
{
	return h->valid && x_held_same(h, head) && h->added == head->added && !h->off &&
	       h->far <= X_LOOP_FAR;
}

const uint8_t *x_loop_back(struct xlate *x, uint64_t target)
{
	struct x_loop *l = &x->loop;

	if (!x->direct || target != x->b.gva)
		return NULL;
	l->found = l->wants;
	if (!l->on || !((x->flags & FLAGS_SLOT) || x->b.flags_dead))
		return NULL;
	l->broken = 0;
	for (unsigned n = 0; n < HELD_SLOTS; n++) {
		const struct x_held *head = &l->head[n].held;
		bool kept = l->slots ? holds(&x->held[2 + n], head) : holds(&x->held[n], head);

		if (head->valid && !kept)
			l->broken |= 1u << n;
	}
	if (l->broken)
		return NULL;
	for (unsigned n = 0; n < 2; n++) {
		if (!l->head[n].held.valid || holds(&x->held[n], &l->head[n].held))
			continue;
		e_load(&x->hot, n ? R_14 : R_13, OFF(held) + 8 * n);
		x->held[n] = x->held[2 + n];
	}
	l->taken++;
	return l->top;
}

/* w as it can be held all the way round; false: it cannot. */
static bool can_stay(const struct xlate *x, struct x_held *h)
{
	const uint8_t term[] = {h->base, h->index};

	for (unsigned n = 0; n < 2; n++) {
		enum x_change c = term[n] < 16 ? x_change_of(x, term[n]) : X_STAYS;

		if (c == X_CHANGES || (c == X_MOVES && jit_host_reg[term[n]] == R_NONE))
			return false;
		if (c == X_MOVES)
			h->added &= (uint8_t) ~(n ? ADDED_INDEX : ADDED_BASE);
	}
	return true;
}

/* The heads, from what was wanted. false: there are none. */
static bool choose(struct xlate *x)
{
	struct x_loop *l = &x->loop;
	unsigned heads = 0;

	memset(l->head, 0, sizeof l->head);
	for (unsigned n = 0; n < l->found; n++) {
		struct x_want w = l->want[n];

		if (!can_stay(x, &w.held))
			continue;
		w.held.valid = true;
		l->head[heads++] = w;
	}
	l->slots = heads > 2;
	return heads;
}

static bool drop_broken(struct x_loop *l)
{
	unsigned left = 0;

	for (unsigned n = 0; n < HELD_SLOTS; n++) {
		if (l->broken >> n & 1)
			l->head[n].held.valid = false;
		left += l->head[n].held.valid;
	}
	return left;
}

bool x_loop_again(struct xlate *x)
{
	struct x_loop *l = &x->loop;

	if (!l->on) {
		l->on = l->found && !l->given_up && !x->b.needs_host_flags && !x->page2 &&
			choose(x);
		return l->on;
	}
	if (l->taken)
		return false;
	if (l->broken && !l->slots)
		l->slots = true;
	else
		l->on = l->broken && drop_broken(l);
	l->given_up = !l->on;
	return true;
}
