/* io: IN, OUT, INS, OUTS (SDM volume 1, 18.5): IOPL and the TSS's I/O permission bitmap,
 * then the bus. Not quick: every entry gives up the vector state first. */
#include "cpu/jit/core.h"
#include "cpu/jit/sys_priv.h"

#define TSS_IOMAP_BASE 0x66

static void check_ports(struct jit_cpu *c, uint16_t port, unsigned size)
{
	const struct x86_seg *tr = &c->st.tr;
	uint32_t base, at, bits;

	if (!(c->st.cr0 & CR0_PE) || (!cpu_v86(c) && jit_cpl(c) <= cpu_iopl(c)))
		return;
	if ((tr->attr & SEG_UNUSABLE) || !(tr->attr & 8) || tr->limit < TSS_IOMAP_BASE + 1)
		jit_raise_err(c, X86_GP, 0);
	base = (uint32_t)jit_read(c, MMU_SYSTEM, sys_addr(c, tr->base, TSS_IOMAP_BASE), 2);
	at = base + port / 8;
	if (at + 1 > tr->limit)
		jit_raise_err(c, X86_GP, 0);
	bits = (uint32_t)jit_read(c, MMU_SYSTEM, sys_addr(c, tr->base, at), 2);
	if (bits >> (port & 7) & ((1u << size) - 1))
		jit_raise_err(c, X86_GP, 0);
}

static uint16_t port_of(const struct jit_cpu *c, uint64_t arg)
{
	return (uint16_t)(ARG_R1(arg) ? c->st.gpr[X86_RDX] : ARG_IMM(arg));
}

/* All ports are reached through these two. */
static uint64_t port_read(struct jit_cpu *c, uint16_t port, unsigned size)
{
	uint64_t v;

	if (c->st.dr7 & 0xff)
		jit_watch_port(c, port, size);
	jit_still(c, WORLD_MID); /* a device may take its time */
	v = bus_read(c->env->bus, BUS_PIO, port, size);
	jit_move(c);
	return v;
}

static void port_write(struct jit_cpu *c, uint16_t port, uint64_t v, unsigned size)
{
	if (c->st.dr7 & 0xff)
		jit_watch_port(c, port, size);
	jit_still(c, WORLD_MID);
	bus_write(c->env->bus, BUS_PIO, port, v, size);
	jit_move(c);
}

static __attribute__((noinline)) void in_body(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_SIZE(arg);
	uint16_t port = port_of(c, arg);

	check_ports(c, port, size);
	gpr_write(c, X86_RAX, port_read(c, port, size), size);
}

void h_in(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	in_body(c, arg);
}

static __attribute__((noinline)) void out_body(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_SIZE(arg);
	uint16_t port = port_of(c, arg);

	check_ports(c, port, size);
	port_write(c, port, gpr_read(c, X86_RAX, size), size);
}

void h_out(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	out_body(c, arg);
}

/* One element; the memory side is checked before a port is read. */
static void ins_once(struct jit_cpu *c, uint16_t port, unsigned size, unsigned asize)
{
	uint64_t di = gpr_read(c, X86_RDI, asize);
	uint64_t gva = jit_seg_addr(c, X86_ES, di, size, ACC_WRITE);

	jit_probe(c, c->mmu, gva, size, ACC_WRITE);
	jit_write(c, c->mmu, gva, port_read(c, port, size), size);
	di = c->st.rflags & RFLAGS_DF ? di - size : di + size;
	gpr_write(c, X86_RDI, di, asize);
}

static void outs_once(struct jit_cpu *c, uint16_t port, unsigned size, unsigned asize,
		      enum x86_sreg seg)
{
	uint64_t si = gpr_read(c, X86_RSI, asize);
	uint64_t v = jit_read(c, c->mmu, jit_seg_addr(c, seg, si, size, ACC_READ), size);

	port_write(c, port, v, size);
	si = c->st.rflags & RFLAGS_DF ? si - size : si + size;
	gpr_write(c, X86_RSI, si, asize);
}

static __attribute__((noinline)) void string_body(struct jit_cpu *c, uint64_t arg, bool in)
{
	unsigned size = ARG_SIZE(arg), asize = ARG_R1(arg);
	uint16_t port = (uint16_t)c->st.gpr[X86_RDX];
	bool rep = ARG_IMM(arg), once = c->st.rflags & RFLAGS_TF;

	check_ports(c, port, size);
	for (;;) {
		uint64_t left = rep ? gpr_read(c, X86_RCX, asize) : 1;

		if (left == 0)
			break;
		if (in)
			ins_once(c, port, size, asize);
		else
			outs_once(c, port, size, asize, ARG_R2(arg));
		if (rep)
			gpr_write(c, X86_RCX, --left, asize);
		if (left == 0)
			break;
		if (once || atomic_load_explicit(&c->attention, memory_order_relaxed))
			return; /* goes on at the same instruction */
	}
	c->st.rip = next_rip(c, arg);
}

void h_ins(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	string_body(c, arg, true);
}

void h_outs(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	string_body(c, arg, false);
}
