#include "oddity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "compare.h"
#include "make.h"

#define WILD_RSP UINT64_C(0x123456789abcdef0)

static const struct trial {
	const char *text;
	uint8_t len, bytes[3];
	uint8_t vector; /* by which it shows */
} trials[ODDITIES] = {
	[ODD_FAULT_UD] = {"#GP in ring 3 becomes #UD", 3, {0x0f, 0x58, 0x07}, X86_UD},
	[ODD_EMULATED] = {"ring 3 is emulated, without INT3 and much else", 1, {0xcc}, X86_UD},
	[ODD_MONITOR] = {"MONITOR and MWAIT in ring 3 are #GP", 3, {0x0f, 0x01, 0xc8}, X86_GP},
	[ODD_SERIALIZE] = {"0F 01 E8 is accepted", 3, {0x0f, 0x01, 0xe8}, X86_BP},
	[ODD_NT] = {"a trap from ring 3 loses NT", 1, {0x90}, X86_BP},
	[ODD_ALIGN] = {"ring 3 is emulated, without alignment checks",
		       3,
		       {0x8b, 0x47, 0x01},
		       X86_UD},
};

static void make_trial(struct user_case *c, enum oddity n, bool compat)
{
	memset(c, 0, sizeof *c);
	c->compat = compat;
	c->len = trials[n].len;
	memcpy(c->bytes, trials[n].bytes, c->len);
	c->start.rip = make_entry(n, 0);
	c->start.rflags = RFLAGS_FIXED | RFLAGS_IF;
	if (n == ODD_NT)
		c->start.rflags |= RFLAGS_NT;
	if (n == ODD_ALIGN)
		c->start.rflags |= RFLAGS_AC;
	c->start.gpr[X86_RSP] = (n == ODD_EMULATED || n == ODD_ALIGN) && !compat
					? WILD_RSP
					: DATA_BASE + PAGE + PAGE / 2;
	c->start.gpr[X86_RDI] = DATA_BASE + PAGE + 8; /* ADDPS wants 16 */
	store_le(c->start.xsave, 0x37f, 2);
	store_le(c->start.xsave + 24, 0x1f80, 4);
}

/* Where INT3 is #UD too, the place tells. */
static bool shows(enum oddity n, const struct user_case *c, const struct user_end *end)
{
	if (n == ODD_SERIALIZE && end->vector == X86_UD)
		return end->s.rip == c->start.rip + c->len;
	if (n == ODD_NT && (end->s.rflags & RFLAGS_NT))
		return false;
	return end->vector == trials[n].vector;
}

int oddity_look(struct oddities *o, struct batch_runner *guest, const struct user_image *image,
		bool compat, struct err *e)
{
	static struct user_case cases[ODDITIES];
	struct user_end *end = batch_results(ODDITIES);
	int r;

	if (!end)
		return err_set(e, ENOMEM, "results");
	for (unsigned n = 0; n < ODDITIES; n++)
		make_trial(&cases[n], n, compat);
	r = batch_run(guest, cases, ODDITIES, image, end, e);
	for (unsigned n = 0; n < ODDITIES && r == 0; n++)
		o->seen[n] = end[n].ran && shows(n, &cases[n], &end[n]);
	batch_results_free(end, ODDITIES);
	return r;
}

static bool is_wild(uint64_t rsp)
{
	return rsp >> 47 != 0 && rsp >> 47 != 0x1ffff;
}

static bool is_emulated(const struct user_case *c)
{
	return c->compat || is_wild(c->start.gpr[X86_RSP]);
}

static bool agrees(const struct user_case *c, const struct forms *fs, const struct user_end *want,
		   const struct user_end *got)
{
	char text[2000];

	return compare_ends(c, fs, want, got, text, sizeof text);
}

static uint8_t *page_of(void *ctx, unsigned n)
{
	struct user_end *end = ctx;

	for (unsigned i = 0; i < DATA_RW_PAGES; i++)
		if (data_rw_page(i) == n)
			return end->mem[i];
	return NULL;
}

/* #UD on the first instruction, with nothing changed. */
static void unstarted(const struct user_case *c, const struct forms *fs,
		      const struct user_image *image, struct user_end *end)
{
	memset(end, 0, sizeof *end);
	end->s = c->start;
	end->ran = true;
	end->vector = X86_UD;
	for (unsigned i = 0; i < DATA_RW_PAGES; i++)
		memcpy(end->mem[i], image->page[i], PAGE);
	user_apply_patches(c, page_of, end);
	compare_normalize(c, fs, end);
}

/* The emulator writes the part of a store before the page's end although the rest faults. */
static void take_split_write(struct user_end *w, const struct user_end *got)
{
	for (unsigned i = 0; i < DATA_RW_PAGES; i++)
		memcpy(w->mem[i] + PAGE - 8, got->mem[i] + PAGE - 8, 8);
}

static void take_bytes(struct user_end *w, const struct user_end *got, uint64_t at, unsigned n)
{
	for (; n; n--, at++)
		for (unsigned i = 0; i < DATA_RW_PAGES; i++)
			if (align_down(at, PAGE) == DATA_BASE + data_rw_page(i) * PAGE)
				w->mem[i][at % PAGE] = got->mem[i][at % PAGE];
}

/* Where the emulator differs in what it does emulate. */
static void take_inexact(ZydisMnemonic m, struct user_end *w, const struct user_end *got)
{
	unsigned differ = 0;

	for (unsigned i = 0; i < 16; i++)
		differ += w->s.gpr[i] != got->s.gpr[i];
	switch (m) {
	case ZYDIS_MNEMONIC_LZCNT: /* done as BSR and BSF */
	case ZYDIS_MNEMONIC_TZCNT:
		if (differ == 1)
			memcpy(w->s.gpr, got->s.gpr, sizeof w->s.gpr);
		/* fall through */
	case ZYDIS_MNEMONIC_AAD: /* undefined flags */
	case ZYDIS_MNEMONIC_AAM:
	case ZYDIS_MNEMONIC_DAA:
	case ZYDIS_MNEMONIC_DAS:
		w->s.rflags = (w->s.rflags & ~RFLAGS_ARITH) | (got->s.rflags & RFLAGS_ARITH);
		break;
	case ZYDIS_MNEMONIC_PUSH: /* a selector takes all of its slot */
		take_bytes(w, got, w->s.gpr[X86_RSP] + 2, 2);
		break;
	case ZYDIS_MNEMONIC_POPA: /* what came before the fault is in its register */
	case ZYDIS_MNEMONIC_POPAD:
		if (w->vector == X86_PF)
			memcpy(w->s.gpr, got->s.gpr, sizeof w->s.gpr);
		break;
	default: break;
	}
}

/* The emulator's ENTER does not probe the stack that it made. */
static bool entered_without_probe(const struct user_case *c, ZydisMnemonic m,
				  const struct user_end *want, const struct user_end *got)
{
	return m == ZYDIS_MNEMONIC_ENTER && want->vector == X86_PF && got->vector == X86_UD &&
	       got->s.rip == c->start.rip + c->len;
}

static bool emulated(const struct user_case *c, const struct forms *fs,
		     const struct user_image *image, const struct user_end *want,
		     const struct user_end *got, struct user_end *w)
{
	take_inexact(fs->f[c->form[0]].mnemonic, w, got);
	if (entered_without_probe(c, fs->f[c->form[0]].mnemonic, want, got))
		return true;
	if (want->vector == X86_PF && got->vector == X86_PF) {
		take_split_write(w, got);
		return agrees(c, fs, w, got);
	}
	if (got->vector != X86_UD)
		return false;
	if (got->s.rip == c->start.rip) {
		unstarted(c, fs, image, w);
		return agrees(c, fs, w, got);
	}
	if (want->vector != X86_BP) /* the INT3 that ends each case is what it lacks */
		return false;
	w->vector = X86_UD;
	w->s.rip--;
	return agrees(c, fs, w, got);
}

static bool holds(enum oddity n, const struct user_case *c, const struct forms *fs,
		  const struct user_image *image, const struct user_end *want,
		  const struct user_end *got)
{
	ZydisMnemonic m = fs->f[c->form[c->forms - 1]].mnemonic;
	static struct user_end w;

	w = *want;
	switch (n) {
	case ODD_FAULT_UD:
		w.vector = X86_UD;
		w.error = 0;
		return want->vector == X86_GP && agrees(c, fs, &w, got);
	case ODD_EMULATED:
		if (c->forms > 1) /* ends at the first that is not known, anywhere in it */
			return is_wild(want->s.gpr[X86_RSP]) && got->vector == X86_UD;
		return (is_emulated(c) || is_wild(want->s.gpr[X86_RSP])) &&
		       emulated(c, fs, image, want, got, &w);
	case ODD_MONITOR:
		w.vector = X86_GP;
		return (m == ZYDIS_MNEMONIC_MONITOR || m == ZYDIS_MNEMONIC_MWAIT) &&
		       want->vector == X86_UD && agrees(c, fs, &w, got);
	case ODD_SERIALIZE:
		w.vector = got->vector;
		w.s.rip += c->len + (got->vector == X86_BP);
		return (m == ZYDIS_MNEMONIC_SERIALIZE || m == ZYDIS_MNEMONIC_SETSSBSY ||
			m == ZYDIS_MNEMONIC_XSUSLDTRK) &&
		       want->vector == X86_UD && c->forms == 1 && agrees(c, fs, &w, got);
	case ODD_NT: w.s.rflags &= ~(uint64_t)RFLAGS_NT; return agrees(c, fs, &w, got);
	case ODD_ALIGN: /* it ends in whatever the unchecked access leads to */
		return want->vector == X86_AC && got->vector != X86_AC &&
		       (is_emulated(c) || is_wild(want->s.gpr[X86_RSP]));
	default: return false;
	}
}

bool oddity_excuses(struct oddities *o, const struct user_case *c, const struct forms *fs,
		    const struct user_image *image, const struct user_end *want,
		    const struct user_end *got)
{
	if (!want->ran || !got->ran)
		return false;
	for (unsigned n = 0; n < ODDITIES; n++)
		if (o->seen[n] && holds(n, c, fs, image, want, got)) {
			o->excused[n]++;
			return true;
		}
	return false;
}

bool oddity_bars_stream(const struct oddities *o, const struct user_case *c)
{
	return o->seen[ODD_EMULATED] && is_emulated(c);
}

void oddity_print(const struct oddities *o)
{
	for (unsigned n = 0; n < ODDITIES; n++)
		if (o->seen[n])
			printf("%u ended as this host's KVM has it: %s\n", o->excused[n],
			       trials[n].text);
}
