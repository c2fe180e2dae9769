#include "gdb/regs.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"

enum kind {
	GPR,
	RIP,
	FLAGS,
	SELECTOR,
	ST,
	X87, /* index: enum x87 */
	XMM,
	MXCSR,
	YMMH,
	ORIG_RAX, /* Linux's, of a system call that can be restarted: never one */
	SEG_BASE,
	FIELD, /* index: of fields[] */
};

enum x87 { FCTRL, FSTAT, FTAG, FISEG, FIOFF, FOSEG, FOOFF, FOP };

/* In the XSAVE area (SDM volume 1, 13.4); AVX as the standard format has it on all processors. */
#define AT_FCW   0
#define AT_FSW   2
#define AT_FTW   4
#define AT_FOP   6
#define AT_FIP   8
#define AT_FDP   16
#define AT_MXCSR 24
#define AT_ST    32
#define AT_XMM   160
#define AT_BV    512
#define AT_YMMH  576
#define FCW_INIT 0x37f

#define F(field) offsetof(struct x86_state, field)
static const struct {
	const char *name;
	uint16_t offset;
	uint8_t bytes;
	bool fixed; /* cannot be set */
} fields[] = {
	{"k_gs_base", F(kernel_gs_base), 8},
	{"cr0", F(cr0), 8},
	{"cr2", F(cr2), 8},
	{"cr3", F(cr3), 8},
	{"cr4", F(cr4), 8},
	{"cr8", F(cr8), 8, true},
	{"efer", F(efer), 8},
	{"dr0", F(dr[0]), 8},
	{"dr1", F(dr[1]), 8},
	{"dr2", F(dr[2]), 8},
	{"dr3", F(dr[3]), 8},
	{"dr6", F(dr6), 8},
	{"dr7", F(dr7), 8},
	{"gdt_base", F(gdtr.base), 8},
	{"gdt_limit", F(gdtr.limit), 2},
	{"idt_base", F(idtr.base), 8},
	{"idt_limit", F(idtr.limit), 2},
	{"ldt", F(ldtr.sel), 2, true},
	{"ldt_base", F(ldtr.base), 8, true},
	{"tr", F(tr.sel), 2, true},
	{"tr_base", F(tr.base), 8, true},
};

static const uint8_t gpr_order[8] = {X86_RAX, X86_RBX, X86_RCX, X86_RDX,
				     X86_RSI, X86_RDI, X86_RBP, X86_RSP};
static const uint8_t gpr_order_i386[8] = {X86_RAX, X86_RCX, X86_RDX, X86_RBX,
					  X86_RSP, X86_RBP, X86_RSI, X86_RDI};
static const uint8_t seg_order[X86_SREGS] = {X86_CS, X86_SS, X86_DS, X86_ES, X86_FS, X86_GS};
static const char *const seg_names[X86_SREGS] = {[X86_ES] = "es", [X86_CS] = "cs", [X86_SS] = "ss",
						 [X86_DS] = "ds", [X86_FS] = "fs", [X86_GS] = "gs"};

/* --- the description --- */

struct text {
	char *to;
	uint32_t used;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
	uint32_t left = GDB_TARGET_BYTES - t->used;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->to + t->used, left, fmt, ap);
	va_end(ap);
	t->used += n < 0 ? 0 : (uint32_t)n < left ? (uint32_t)n : left - 1;
}

struct maker {
	struct gdb_regs *r;
	struct text xml;
};

static void add(struct maker *m, enum kind kind, unsigned index, unsigned bytes, const char *type,
		const char *fmt, unsigned n)
{
	struct gdb_reg *g = &m->r->reg[m->r->n++];

	g->kind = (uint8_t)kind;
	g->index = (uint8_t)index;
	g->bytes = (uint8_t)bytes;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(g->name, sizeof g->name, fmt, n);
#pragma GCC diagnostic pop
	put(&m->xml, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>\n", g->name, bytes * 8, type);
}

static void begin(struct maker *m, const char *feature)
{
	put(&m->xml, "<feature name=\"%s\">\n", feature);
}

static void end(struct maker *m)
{
	put(&m->xml, "</feature>\n");
}

static void flags_type(struct maker *m, const char *id, const char *const *name, unsigned n)
{
	put(&m->xml, "<flags id=\"%s\" size=\"4\">\n", id);
	for (unsigned i = 0; i < n; i++)
		if (name[i])
			put(&m->xml, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>\n", name[i], i,
			    i);
	put(&m->xml, "</flags>\n");
}

static void add_core(struct maker *m)
{
	static const char *const flags[] = {
		"CF", [2] = "PF",  [4] = "AF",  [6] = "ZF", "SF", "TF",  "IF",  "DF",
		"OF", [14] = "NT", [16] = "RF", "VM",       "AC", "VIF", "VIP", "ID"};
	static const char *const names[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"};
	static const char *const names_i386[] = {"eax", "ecx", "edx", "ebx",
						 "esp", "ebp", "esi", "edi"};
	static const char *const x87[] = {"fctrl", "fstat", "ftag",  "fiseg",
					  "fioff", "foseg", "fooff", "fop"};
	bool i386 = m->r->i386;
	unsigned word = i386 ? 4 : 8;

	begin(m, "org.gnu.gdb.i386.core");
	flags_type(m, "i386_eflags", flags, ARRAY_SIZE(flags));
	for (unsigned i = 0; i < 8; i++) {
		unsigned n = i386 ? gpr_order_i386[i] : gpr_order[i];
		bool pointer = n == X86_RSP || n == X86_RBP;

		add(m, GPR, n, word,
		    pointer ? "data_ptr"
		    : i386  ? "int32"
			    : "int64",
		    i386 ? names_i386[i] : names[i], 0);
	}
	for (unsigned n = 8; n < 16 && !i386; n++)
		add(m, GPR, n, word, "int64", "r%u", n);
	add(m, RIP, 0, word, "code_ptr", i386 ? "eip" : "rip", 0);
	add(m, FLAGS, 0, 4, "i386_eflags", "eflags", 0);
	for (unsigned i = 0; i < X86_SREGS; i++)
		add(m, SELECTOR, seg_order[i], 4, "int32", seg_names[seg_order[i]], 0);
	for (unsigned i = 0; i < 8; i++)
		add(m, ST, i, 10, "i387_ext", "st%u", i);
	for (unsigned i = 0; i < 8; i++)
		add(m, X87, i, 4, "int", x87[i], 0);
	end(m);
}

static void add_sse(struct maker *m)
{
	static const char *const flags[] = {"IE", "DE", "ZE", "OE", "UE", "PE", "DAZ",
					    "IM", "DM", "ZM", "OM", "UM", "PM", [15] = "FZ"};
	unsigned n = m->r->i386 ? 8 : 16;

	begin(m, "org.gnu.gdb.i386.sse");
	put(&m->xml, "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>\n"
		     "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\n"
		     "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>\n"
		     "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>\n"
		     "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>\n"
		     "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\n"
		     "<union id=\"vec128\">\n"
		     "<field name=\"v4_float\" type=\"v4f\"/>\n"
		     "<field name=\"v2_double\" type=\"v2d\"/>\n"
		     "<field name=\"v16_int8\" type=\"v16i8\"/>\n"
		     "<field name=\"v8_int16\" type=\"v8i16\"/>\n"
		     "<field name=\"v4_int32\" type=\"v4i32\"/>\n"
		     "<field name=\"v2_int64\" type=\"v2i64\"/>\n"
		     "<field name=\"uint128\" type=\"uint128\"/>\n"
		     "</union>\n");
	flags_type(m, "i386_mxcsr", flags, ARRAY_SIZE(flags));
	for (unsigned i = 0; i < n; i++)
		add(m, XMM, i, 16, "vec128", "xmm%u", i);
	add(m, MXCSR, 0, 4, "i386_mxcsr", "mxcsr", 0);
	end(m);
}

static void add_rest(struct maker *m, bool avx)
{
	bool i386 = m->r->i386;

	begin(m, "org.gnu.gdb.i386.linux");
	add(m, ORIG_RAX, 0, i386 ? 4 : 8, "int", i386 ? "orig_eax" : "orig_rax", 0);
	end(m);
	if (!i386) {
		begin(m, "org.gnu.gdb.i386.segments");
		add(m, SEG_BASE, X86_FS, 8, "int", "fs_base", 0);
		add(m, SEG_BASE, X86_GS, 8, "int", "gs_base", 0);
		end(m);
	}
	if (avx) {
		begin(m, "org.gnu.gdb.i386.avx");
		for (unsigned i = 0; i < (i386 ? 8 : 16); i++)
			add(m, YMMH, i, 16, "uint128", "ymm%uh", i);
		end(m);
	}
}

/* A feature of our own: GDB shows what it does not know. */
static void add_system(struct maker *m)
{
	static const char *const bases[X86_SREGS] = {
		[X86_ES] = "es_base", [X86_CS] = "cs_base", [X86_SS] = "ss_base",
		[X86_DS] = "ds_base", [X86_FS] = "fs_base", [X86_GS] = "gs_base"};
	static const char *const types[] = {[2] = "uint16", [8] = "uint64"};

	begin(m, "holon.x86.system");
	for (unsigned s = 0; s < (m->r->i386 ? X86_SREGS : X86_FS); s++)
		add(m, SEG_BASE, s, 8, "uint64", bases[s], 0);
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		add(m, FIELD, i, fields[i].bytes, types[fields[i].bytes], fields[i].name, 0);
	end(m);
}

void gdb_regs_init(struct gdb_regs *r, bool i386, bool avx)
{
	struct maker m = {.r = r, .xml = {.to = r->xml}};

	r->i386 = i386;
	r->n = 0;
	put(&m.xml,
	    "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
	    "<target version=\"1.0\">\n<architecture>%s</architecture>\n",
	    i386 ? "i386" : "i386:x86-64");
	add_core(&m);
	add_sse(&m);
	add_rest(&m, avx);
	add_system(&m);
	put(&m.xml, "</target>\n");
}

/* --- the XSAVE area, of which a component may be in its initial state, its bytes stale --- */

static bool in_use(const struct x86_state *s, uint64_t component)
{
	return load_le(s->xsave + AT_BV, 8) & component;
}

static void use(struct x86_state *s, uint64_t component)
{
	if (in_use(s, component))
		return;
	if (component == XCR0_X87) {
		memset(s->xsave, 0, AT_MXCSR);
		memset(s->xsave + AT_ST, 0, AT_XMM - AT_ST);
		store_le(s->xsave + AT_FCW, FCW_INIT, 2);
	} else if (component == XCR0_SSE) {
		memset(s->xsave + AT_XMM, 0, 256);
	} else {
		memset(s->xsave + AT_YMMH, 0, 256);
	}
	store_le(s->xsave + AT_BV, load_le(s->xsave + AT_BV, 8) | component, 8);
}

static const uint8_t *st_at(const struct x86_state *s, unsigned i)
{
	return s->xsave + AT_ST + 16 * i;
}

/* The full tag word (SDM volume 1, 8.1.7), of which there is one bit per register. */
static uint16_t full_tags(const struct x86_state *s)
{
	unsigned top = load_le(s->xsave + AT_FSW, 2) >> 11 & 7, tags = 0;

	for (unsigned phys = 0; phys < 8; phys++) {
		const uint8_t *st = st_at(s, (phys - top) & 7);
		uint64_t mantissa = load_le(st, 8);
		unsigned exponent = load_le(st + 8, 2) & 0x7fff, tag = 2;

		if (!(s->xsave[AT_FTW] >> phys & 1))
			tag = 3;
		else if (exponent == 0 && mantissa == 0)
			tag = 1;
		else if (exponent != 0 && exponent != 0x7fff && mantissa >> 63)
			tag = 0;
		tags |= tag << 2 * phys;
	}
	return (uint16_t)tags;
}

static uint64_t x87_get(const struct x86_state *s, enum x87 which)
{
	if (!in_use(s, XCR0_X87))
		return which == FCTRL ? FCW_INIT : which == FTAG ? 0xffff : 0;
	switch (which) {
	case FCTRL: return load_le(s->xsave + AT_FCW, 2);
	case FSTAT: return load_le(s->xsave + AT_FSW, 2);
	case FTAG: return full_tags(s);
	case FISEG: return load_le(s->xsave + AT_FIP + 4, 2);
	case FIOFF: return load_le(s->xsave + AT_FIP, 4);
	case FOSEG: return load_le(s->xsave + AT_FDP + 4, 2);
	case FOOFF: return load_le(s->xsave + AT_FDP, 4);
	case FOP: return load_le(s->xsave + AT_FOP, 2);
	}
	return 0;
}

static void x87_set(struct x86_state *s, enum x87 which, uint32_t v)
{
	unsigned used = 0;

	use(s, XCR0_X87);
	switch (which) {
	case FCTRL: store_le(s->xsave + AT_FCW, v, 2); break;
	case FSTAT: store_le(s->xsave + AT_FSW, v, 2); break;
	case FTAG:
		for (unsigned phys = 0; phys < 8; phys++)
			used |= (unsigned)((v >> 2 * phys & 3) != 3) << phys;
		s->xsave[AT_FTW] = (uint8_t)used;
		break;
	case FISEG: store_le(s->xsave + AT_FIP + 4, v, 2); break;
	case FIOFF: store_le(s->xsave + AT_FIP, v, 4); break;
	case FOSEG: store_le(s->xsave + AT_FDP + 4, v, 2); break;
	case FOOFF: store_le(s->xsave + AT_FDP, v, 4); break;
	case FOP: store_le(s->xsave + AT_FOP, v & 0x7ff, 2); break;
	}
}

/* --- */

static const uint8_t *vector_at(const struct x86_state *s, const struct gdb_reg *r)
{
	if (r->kind == ST)
		return in_use(s, XCR0_X87) ? st_at(s, r->index) : NULL;
	if (r->kind == XMM)
		return in_use(s, XCR0_SSE) ? s->xsave + AT_XMM + 16 * r->index : NULL;
	return in_use(s, XCR0_AVX) ? s->xsave + AT_YMMH + 16 * r->index : NULL;
}

static uint64_t number(const struct gdb_reg *r, const struct x86_state *s)
{
	switch ((enum kind)r->kind) {
	case GPR: return s->gpr[r->index];
	case RIP: return s->rip;
	case FLAGS: return s->rflags;
	case SELECTOR: return s->seg[r->index].sel;
	case X87: return x87_get(s, r->index);
	case MXCSR: return load_le(s->xsave + AT_MXCSR, 4); /* there in any case */
	case ORIG_RAX: return ~UINT64_C(0);
	case SEG_BASE: return s->seg[r->index].base;
	case FIELD: return load_le((const uint8_t *)s + fields[r->index].offset, r->bytes);
	default: return 0;
	}
}

void gdb_reg_get(const struct gdb_reg *r, const struct x86_state *s, uint8_t to[GDB_REG_BYTES])
{
	const uint8_t *v = NULL;

	memset(to, 0, GDB_REG_BYTES);
	switch ((enum kind)r->kind) {
	case ST:
	case XMM:
	case YMMH:
		v = vector_at(s, r);
		if (v)
			memcpy(to, v, r->bytes);
		break;
	default: store_le(to, number(r, s), r->bytes); break;
	}
}

/* A selector alone, without its descriptor: only where that is all there is to a segment. */
static void selector_set(struct x86_state *s, unsigned index, uint16_t sel)
{
	struct x86_seg *g = &s->seg[index];

	if (!(s->cr0 & CR0_PE) || (s->rflags & RFLAGS_VM)) {
		g->sel = sel;
		g->base = (uint64_t)sel << 4;
	}
}

void gdb_reg_set(const struct gdb_reg *r, struct x86_state *s, const uint8_t from[GDB_REG_BYTES])
{
	static const uint64_t component[] = {[ST] = XCR0_X87, [XMM] = XCR0_SSE, [YMMH] = XCR0_AVX};
	uint64_t v = load_le(from, r->bytes < 8 ? r->bytes : 8);

	switch ((enum kind)r->kind) {
	case GPR: s->gpr[r->index] = v; break;
	case RIP: s->rip = v; break;
	case FLAGS:
		s->rflags = (v & 0x3f7fd7 & ~(uint64_t)RFLAGS_VM) | (s->rflags & RFLAGS_VM) |
			    RFLAGS_FIXED;
		break;
	case SELECTOR: selector_set(s, r->index, (uint16_t)v); break;
	case ST:
	case XMM:
	case YMMH:
		use(s, component[r->kind]);
		memcpy((uint8_t *)vector_at(s, r), from, r->bytes);
		break;
	case X87: x87_set(s, r->index, (uint32_t)v); break;
	case MXCSR: store_le(s->xsave + AT_MXCSR, v & 0xffff, 4); break;
	case ORIG_RAX: break;
	case SEG_BASE: s->seg[r->index].base = v; break;
	case FIELD:
		if (!fields[r->index].fixed)
			memcpy((uint8_t *)s + fields[r->index].offset, from, r->bytes);
		break;
	}
}
