/* compare: what is left out of the comparison, by name:
 *
 * - RF in the flags: Linux clears it in the signal frame; tests/guest has it.
 * - The x87 instruction and data pointers and opcode (FIP, FDP, FOP), in the state and in
 *   the images that FNSAVE, FNSTENV, FXSAVE and XSAVE store: an engine that copies x87
 *   instructions leaves them as the copy has them.
 * - Bit P of a page fault's error code for kernel addresses: Linux sets it always, to hide
 *   its own mappings.
 *   Likewise where SGDT, SIDT, SLDT, SMSW or STR fault: where UMIP is on, Linux executes them.
 * - XINUSE (XSTATE_BV): which components are in their initial state is up to the
 *   implementation; the components are compared.
 * - Instructions that the host executes but the guest's CPUID does not show: they may be #UD
 *   (CLZERO, INVPCID, MOVDIRI, MOVDIR64B).
 * - CR2's lower bits where a state image (FNSAVE, FXSAVE, XSAVE and relatives) faults: which of
 *   its fields is touched first is the processor's choice.
 * - What a gather that faults has left above its last element in the destination: processors
 *   zero that at some element, which is not said anywhere (SDM volume 2, VPGATHERDD: "may").
 * - Alignment checks of vector operands under a mask: of which the processor checks the whole, and
 *   of which each element, follows no rule that the manuals have.
 * - MASKMOVQ and MASKMOVDQU that fault, on either side: whether bytes that the mask leaves
 *   alone fault is up to the implementation (SDM volume 2).
 * - After a fault, arithmetic flags that the instructions from there on overwrite before anything
 *   reads them: the translator does not keep them (docs/jit.md, "Flags").
 * - MXCSR_MASK and reserved parts of the XSAVE area. */
#include "compare.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool stores_x87_pointers(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64: return true;
	default: return false;
	}
}

static bool is_state_image(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64: return true;
	default: return stores_x87_pointers(m);
	}
}

static bool masked_store(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_MASKMOVQ || m == ZYDIS_MNEMONIC_MASKMOVDQU ||
	       m == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static bool may_be_hidden(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_CLZERO || m == ZYDIS_MNEMONIC_INVPCID ||
	       m == ZYDIS_MNEMONIC_MOVDIRI || m == ZYDIS_MNEMONIC_MOVDIR64B;
}

/* Nothing of memory is compared after such an instruction but that it is the same
 * elsewhere: the image's pointer fields lie at different offsets in each format. */
static void drop_x87_pointers(const struct user_case *c, struct user_end *end)
{
	for (unsigned p = 0; p < DATA_RW_PAGES; p++)
		memset(end->mem[p], 0, PAGE);
}

static bool is_gather(ZydisMnemonic m)
{
	const char *name = ZydisMnemonicGetString(m);

	return !strncmp(name, "vpgather", 8) || !strncmp(name, "vgather", 7);
}

/* Zeroes bytes from.. of vector register r. */
static void zero_vector_from(uint8_t *xsave, unsigned r, unsigned from)
{
	uint32_t size;

	for (unsigned b = from; b < 64; b++)
		if (r >= 16)
			xsave[user_xoffset(7, &size) + 64 * (r - 16) + b] = 0;
		else if (b < 16)
			xsave[160 + 16 * r + b] = 0;
		else if (b < 32)
			xsave[user_xoffset(2, &size) + 16 * r + b - 16] = 0;
		else
			xsave[user_xoffset(6, &size) + 32 * r + b - 32] = 0;
}

static bool decode_at(const struct user_case *c, uint64_t at, ZydisDecodedInstruction *z,
		      ZydisDecodedOperand *op)
{
	ZydisDecoder d;

	(void)ZydisDecoderInit(
		&d, c->compat ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64,
		c->compat ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
	return at < c->len &&
	       ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, c->bytes + at, c->len - at, z, op));
}

static bool decode_faulting(const struct user_case *c, const struct user_end *end,
			    ZydisDecodedInstruction *z, ZydisDecodedOperand *op)
{
	return decode_at(c, end->s.rip - c->start.rip, z, op);
}

static bool is_umips(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_SGDT || m == ZYDIS_MNEMONIC_SIDT || m == ZYDIS_MNEMONIC_SLDT ||
	       m == ZYDIS_MNEMONIC_SMSW || m == ZYDIS_MNEMONIC_STR;
}

static bool faults_in_umips(const struct user_case *c, const struct user_end *end)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

	return decode_faulting(c, end, &z, op) && is_umips(z.mnemonic);
}

static void drop_above_gather(const struct user_case *c, struct user_end *end)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	unsigned index, data, wider;
	const char *name;

	if (!decode_faulting(c, end, &z, op) || !is_gather(z.mnemonic))
		return;
	name = strstr(ZydisMnemonicGetString(z.mnemonic), "gather") + 6;
	index = name[0] == 'q' ? 8 : 4;
	data = name[1] == 'q' || name[2] == 'd' ? 8 : 4;
	wider = index > data ? index : data;
	zero_vector_from(end->s.xsave, (unsigned)ZydisRegisterGetId(op[0].reg.value),
			 z.avx.vector_length / 8 / wider * data);
}

static bool is_cmps(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_CMPSB || m == ZYDIS_MNEMONIC_CMPSW ||
	       m == ZYDIS_MNEMONIC_CMPSD || m == ZYDIS_MNEMONIC_CMPSQ;
}

/* Where CMPS may not read either operand, the processor's model decides which one faults: AMD's
 * Zen 4 looks at rDI first, Zen 5 at rSI. A fault at neither is left to be compared. */
static void drop_cmps_order(const struct user_case *c, struct user_end *end)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	const struct user_state *s = &end->s;

	if (end->vector != X86_PF || !decode_faulting(c, end, &z, op) || !is_cmps(z.mnemonic))
		return;
	uint64_t mask = trunc_bytes(UINT64_MAX, z.address_width / 8);
	uint64_t si = s->gpr[X86_RSI] & mask, di = s->gpr[X86_RDI] & mask;
	const uint64_t places[] = {si, si + s->fs_base, si + s->gs_base, di};

	for (unsigned i = 0; i < ARRAY_SIZE(places); i++)
		if (end->cr2 - places[i] < z.operand_width / 8) {
			end->cr2 = 0;
			end->error &= ~PF_P;
			return;
		}
}

/* Where Zydis says less: AF of logical instructions becomes 0, SBB does as SUB, and VPTEST as PTEST. */
static bool sets_all(const ZydisDecodedInstruction *z)
{
	return z->meta.category == ZYDIS_CATEGORY_LOGICAL || z->mnemonic == ZYDIS_MNEMONIC_SBB ||
	       z->mnemonic == ZYDIS_MNEMONIC_VPTEST;
}

/* From the fault on as long as the way is known, and past conditional jumps. */
static void drop_dead_flags(const struct user_case *c, struct user_end *end)
{
	uint64_t at = end->s.rip - c->start.rip, live = RFLAGS_ARITH;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction z;

	for (unsigned n = 0; n < 64 && live && decode_at(c, at, &z, op); n++) {
		const ZydisAccessedFlags *f = z.cpu_flags;
		uint64_t sets;

		at += z.length;
		if ((z.mnemonic == ZYDIS_MNEMONIC_JMP || z.mnemonic == ZYDIS_MNEMONIC_CALL) &&
		    op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
			at += op[0].imm.value.u;
		if (!f)
			continue;
		sets = f->modified | f->set_0 | f->set_1;
		if (sets_all(&z))
			sets = RFLAGS_ARITH;
		live &= ~(uint64_t)f->tested;
		end->s.rflags &= ~(live & sets);
		live &= ~sets;
	}
}

void compare_normalize(const struct user_case *c, const struct forms *fs, struct user_end *end)
{
	if (!end->ran)
		return;
	user_xsave_normalize(end->s.xsave);
	memset(end->s.xsave + 6, 0, 18);
	memset(end->s.xsave + 512, 0, 64);
	end->s.rflags &= ~(uint64_t)RFLAGS_RF;
	if (end->vector == X86_PF && (end->cr2 >> 47 || faults_in_umips(c, end)))
		end->error &= ~PF_P;
	for (unsigned i = 0; i < c->forms; i++)
		if (is_state_image(fs->f[c->form[i]].mnemonic))
			end->cr2 = align_down(end->cr2, PAGE);
	if (end->vector != X86_BP) {
		drop_above_gather(c, end);
		drop_dead_flags(c, end);
	}
	drop_cmps_order(c, end);
	for (unsigned i = 0; i < c->forms; i++)
		if (stores_x87_pointers(fs->f[c->form[i]].mnemonic))
			drop_x87_pointers(c, end);
}

/* Whether the end is a fault of which the manuals leave too much to the processor. */
static bool is_open(const struct user_case *c, const struct user_end *end)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

	if (end->vector != X86_AC || !decode_faulting(c, end, &z, op))
		return false;
	switch (z.mnemonic) {
	case ZYDIS_MNEMONIC_VCOMPRESSPD: /* these, without a mask too */
	case ZYDIS_MNEMONIC_VCOMPRESSPS:
	case ZYDIS_MNEMONIC_VPCOMPRESSB:
	case ZYDIS_MNEMONIC_VPCOMPRESSD:
	case ZYDIS_MNEMONIC_VPCOMPRESSQ:
	case ZYDIS_MNEMONIC_VPCOMPRESSW:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ: return true;
	default:
		return z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && z.avx.mask.reg &&
		       z.avx.mask.reg != ZYDIS_REGISTER_K0;
	}
}

struct text {
	char *to;
	unsigned len;
	bool any;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->to, t->len, fmt, ap);
	va_end(ap);
	t->any = true;
	if (n > 0 && (unsigned)n < t->len) {
		t->to += n;
		t->len -= (unsigned)n;
	}
}

static void say_u64(struct text *t, const char *name, uint64_t want, uint64_t got)
{
	if (want != got)
		say(t, "\t%s: want %#lx, got %#lx\n", name, want, got);
}

static const char *const gpr_name[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					 "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

static void compare_bytes(struct text *t, const char *name, const uint8_t *want, const uint8_t *got,
			  unsigned len)
{
	for (unsigned i = 0; i < len; i += 8)
		if (memcmp(want + i, got + i, 8)) {
			say(t, "\t%s+%#x: want %#lx, got %#lx\n", name, i, load_le(want + i, 8),
			    load_le(got + i, 8));
			return; /* one is enough to look at */
		}
}

/* Register file of component n (128-bit lanes etc.) by name. */
static void compare_xsave(struct text *t, const uint8_t *want, const uint8_t *got)
{
	static const char *const name[8] = {"", "", "ymm_hi", "", "", "k", "zmm_hi256", "hi16_zmm"};

	say_u64(t, "fcw", load_le(want, 2), load_le(got, 2));
	say_u64(t, "fsw", load_le(want + 2, 2), load_le(got + 2, 2));
	say_u64(t, "ftw", want[4], got[4]);
	say_u64(t, "mxcsr", load_le(want + 24, 4), load_le(got + 24, 4));
	compare_bytes(t, "st", want + 32, got + 32, 128);
	compare_bytes(t, "xmm", want + 160, got + 160, 256);
	for (unsigned n = 2; n < 8; n++) {
		uint32_t size, at = user_xoffset(n, &size);

		if (user_xfeatures() & BIT(n))
			compare_bytes(t, name[n], want + at, got + at, size);
	}
}

bool compare_ends(const struct user_case *c, const struct forms *fs, const struct user_end *want,
		  const struct user_end *got, char *text, unsigned len)
{
	struct text t = {text, len, false};

	*text = 0;
	for (unsigned i = 0; i < c->forms && want->ran && got->ran; i++)
		if (masked_store(fs->f[c->form[i]].mnemonic) &&
		    (want->vector == X86_PF || got->vector == X86_PF))
			return true;
	if (!want->ran || !got->ran) {
		say(&t, "\t%s: %s\n", want->ran ? "guest" : "native",
		    want->ran ? got->broke : want->broke);
		return false;
	}
	for (unsigned i = 0; i < c->forms; i++)
		if (may_be_hidden(fs->f[c->form[i]].mnemonic) && got->vector == X86_UD)
			return true;
	if (is_open(c, want) || is_open(c, got))
		return true;
	say_u64(&t, "vector", want->vector, got->vector);
	if (want->vector == got->vector)
		say_u64(&t, "error code", want->error, got->error);
	say_u64(&t, "cr2", want->cr2, got->cr2);
	say_u64(&t, "rip", want->s.rip, got->s.rip);
	say_u64(&t, "rflags", want->s.rflags, got->s.rflags);
	for (int i = 0; i < 16; i++)
		say_u64(&t, gpr_name[i], want->s.gpr[i], got->s.gpr[i]);
	say_u64(&t, "fs_base", want->s.fs_base, got->s.fs_base);
	say_u64(&t, "gs_base", want->s.gs_base, got->s.gs_base);
	compare_xsave(&t, want->s.xsave, got->s.xsave);
	for (unsigned p = 0; p < DATA_RW_PAGES; p++) {
		char name[24];

		snprintf(name, sizeof name, "mem[%#lx]", DATA_BASE + data_rw_page(p) * PAGE);
		compare_bytes(&t, name, want->mem[p], got->mem[p], PAGE);
	}
	return !t.any;
}
