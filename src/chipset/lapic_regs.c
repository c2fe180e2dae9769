/* lapic_regs: the registers of a local APIC in xAPIC mode (a page) and x2APIC mode (MSRs),
 * IA32_APIC_BASE, and their way to and from x86_state. Intel SDM volume 3A, chapter 11. */
#include "chipset/lapic_priv.h"

#include <string.h>

/* Register numbers: the page's offset / 16, the x2APIC MSR - 0x800. */
enum {
	REG_ID = 0x02,
	REG_VERSION,
	REG_TPR = 0x08,
	REG_APR,
	REG_PPR,
	REG_EOI,
	REG_RRD,
	REG_LDR,
	REG_DFR,
	REG_SVR,
	REG_ISR = 0x10,
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_LVT_CMCI = 0x2f,
	REG_ICR = 0x30,
	REG_ICR_HIGH,
	REG_LVT,
	REG_LVT_LAST = 0x37,
	REG_INITIAL,
	REG_CURRENT,
	REG_DIVIDE = 0x3e,
	REG_SELF_IPI,
};

#define VERSION          (0x14u | (LVT_COUNT - 1) << 16 | 1u << 24 /* EOI broadcast may be off */)
#define SVR_WRITABLE     0x11ffu
#define ICR_PENDING      0x1000u
#define ICR_WRITABLE     0xccfffu
#define MSR_APIC_BASE    0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC       0x800
#define BASE_RESERVED    (0x2ffull | ~(BIT(52) - 1))

static const uint32_t lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

static uint32_t id_register(const struct lapic *l)
{
	return lapic_x2(l) ? l->id : l->id << 24;
}

static uint32_t ldr_register(const struct lapic *l)
{
	return lapic_x2(l) ? (l->id >> 4) << 16 | 1u << (l->id & 15) : l->ldr;
}

/* False: there is no such register to read, in either mode. */
static bool read_register(struct lapic *l, unsigned reg, uint32_t *v)
{
	if (reg >= REG_ISR && reg < REG_ESR) {
		const uint32_t *set = reg < REG_TMR ? l->isr : reg < REG_IRR ? l->tmr : l->irr;

		*v = set[reg & 7];
		return true;
	}
	if (reg >= REG_LVT && reg <= REG_LVT_LAST) {
		*v = l->lvt[reg - REG_LVT];
		return true;
	}
	switch (reg) {
	case REG_ID: *v = id_register(l); break;
	case REG_VERSION: *v = VERSION; break;
	case REG_TPR: *v = l->tpr; break;
	case REG_PPR: *v = lapic_ppr(l); break;
	case REG_LDR: *v = ldr_register(l); break;
	case REG_SVR: *v = l->svr; break;
	case REG_ESR: *v = l->esr_seen; break;
	case REG_ICR: *v = l->icr; break;
	case REG_INITIAL: *v = l->initial; break;
	case REG_CURRENT: *v = lapic_timer_count(l); break;
	case REG_DIVIDE: *v = l->divide; break;
	default: return false;
	}
	return true;
}

static void write_svr(struct lapic *l, uint32_t v)
{
	l->svr = v & SVR_WRITABLE;
	if (l->svr & SVR_ENABLE)
		return;
	for (unsigned i = 0; i < LVT_COUNT; i++) /* 11.4.7.2 */
		l->lvt[i] |= LVT_MASKED;
	lapic_update(l);
}

static void write_lvt(struct lapic *l, enum lvt which, uint32_t v)
{
	enum timer_mode before = lapic_timer_mode(l);

	v &= lvt_writable[which];
	if (!(l->svr & SVR_ENABLE))
		v |= LVT_MASKED;
	l->lvt[which] = v;
	if (which == LVT_TIMER)
		lapic_timer_mode_changed(l, before);
	lapic_update(l);
}

/* Sends what ICR says (11.6.1); dest is 32 bits wide in x2APIC mode. */
static void send_icr(struct lapic *l)
{
	uint32_t low = l->icr, dest = lapic_x2(l) ? l->icr >> 32 : l->icr >> 56;
	struct lapic_msg m = {
		.mode = low >> 8 & 7,
		.vector = low,
		.logical = low & 0x800,
		.broadcast = dest == (lapic_x2(l) ? 0xffffffff : 0xff),
		.to = low >> 18 & 3,
		.dest = dest,
	};

	if (m.mode == DM_INIT && (low & 0xc000) == 0x8000)
		return; /* INIT level de-assert does nothing on processors since P6 */
	if (m.mode == 3 || m.mode == DM_EXTINT)
		return;
	if (m.mode <= DM_LOWEST && m.vector < 16) {
		lapic_error(l, ESR_SEND_VECTOR);
		return;
	}
	l->todo.send = true;
	l->todo.msg = m;
}

static void send_self(struct lapic *l, uint8_t vector)
{
	if (vector < 16)
		lapic_error(l, ESR_SEND_VECTOR);
	else
		lapic_raise(l, vector, false);
}

/* False: no such register, or not to be written. */
static bool write_register(struct lapic *l, unsigned reg, uint32_t v)
{
	if (reg >= REG_LVT && reg <= REG_LVT_LAST) {
		write_lvt(l, reg - REG_LVT, v);
		return true;
	}
	switch (reg) {
	case REG_TPR:
		l->tpr = v & 0xff;
		lapic_update(l);
		break;
	case REG_EOI: lapic_end_interrupt(l); break;
	case REG_SVR: write_svr(l, v); break;
	case REG_ESR:
		l->esr_seen = l->esr;
		l->esr = 0;
		break;
	case REG_ICR:
		l->icr = (l->icr & ~0xffffffffull) | (v & ICR_WRITABLE & ~ICR_PENDING);
		send_icr(l);
		break;
	case REG_INITIAL: lapic_timer_set_initial(l, v); break;
	case REG_DIVIDE: lapic_timer_set_divide(l, v); break;
	default: return false;
	}
	return true;
}

static uint32_t mmio_read_locked(struct lapic *l, uint32_t offset)
{
	uint32_t v = 0;

	if (!lapic_on(l) || lapic_x2(l))
		return 0xffffffff;
	switch (offset >> 4) {
	case REG_DFR: return l->dfr;
	case REG_ICR_HIGH: return l->icr >> 32;
	case REG_APR:
	case REG_RRD:
	case REG_EOI: return 0;
	}
	if (!read_register(l, offset >> 4, &v))
		lapic_error(l, ESR_REGISTER);
	return v;
}

uint32_t lapic_mmio_read(struct lapic_port *p, uint32_t offset)
{
	struct lapic *l = to_lapic(p);
	uint32_t v;

	lapic_lock(l);
	v = mmio_read_locked(l, offset);
	lapic_unlock(l);
	return v;
}

static void mmio_write_locked(struct lapic *l, uint32_t offset, uint32_t v)
{
	if (!lapic_on(l) || lapic_x2(l))
		return;
	switch (offset >> 4) {
	case REG_LDR: l->ldr = v & 0xff000000; return;
	case REG_DFR: l->dfr = v | 0x0fffffff; return;
	case REG_ICR_HIGH:
		l->icr = (l->icr & 0xffffffff) | (uint64_t)(v & 0xff000000) << 32;
		return;
	case REG_ID: /* read-only, as in x2APIC mode: IDs do not move */
	case REG_VERSION:
	case REG_APR:
	case REG_PPR:
	case REG_RRD:
	case REG_CURRENT: return;
	}
	if (!write_register(l, offset >> 4, v))
		lapic_error(l, ESR_REGISTER);
}

void lapic_mmio_write(struct lapic_port *p, uint32_t offset, uint32_t value)
{
	struct lapic *l = to_lapic(p);

	lapic_lock(l);
	mmio_write_locked(l, offset, value);
	lapic_unlock(l);
}

/* --- MSRs --- */

/* Which modes may follow which: figure 11-27. */
static bool write_base(struct lapic *l, uint64_t v)
{
	bool on = v & APIC_BASE_ON, x2 = v & APIC_BASE_X2;

	if ((v & BASE_RESERVED) || (x2 && !on))
		return false;
	if (x2 && !lapic_x2(l) && !lapic_on(l))
		return false; /* off -> x2APIC */
	if (on && !x2 && lapic_x2(l))
		return false; /* x2APIC -> xAPIC */
	if (!on && lapic_on(l))
		lapic_reset_registers(l);
	if (x2 && !lapic_x2(l))
		l->icr &= 0xffffffff;
	l->base = v;
	lapic_update(l);
	return true;
}

static bool x2_read(struct lapic *l, unsigned reg, uint64_t *v)
{
	uint32_t v32;

	if (reg == REG_ICR)
		*v = l->icr;
	else if (read_register(l, reg, &v32))
		*v = v32;
	else
		return false;
	return true;
}

/* Bits that raise #GP when set: all that are reserved (11.12.1.2). */
static uint64_t x2_reserved(unsigned reg)
{
	if (reg >= REG_LVT && reg <= REG_LVT_LAST) /* delivery status may be written back */
		return ~(uint64_t)(lvt_writable[reg - REG_LVT] | 0x5000u);
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI: return ~0xffull;
	case REG_SVR: return ~(uint64_t)SVR_WRITABLE;
	case REG_ICR: return ~(uint64_t)(ICR_WRITABLE)&0xffffffff;
	case REG_INITIAL: return ~0xffffffffull;
	case REG_DIVIDE: return ~0x0bull;
	default: return ~0ull; /* EOI and ESR take nothing but 0 */
	}
}

static bool x2_write(struct lapic *l, unsigned reg, uint64_t v)
{
	if (v & x2_reserved(reg))
		return false;
	switch (reg) {
	case REG_ICR:
		l->icr = v & ~(uint64_t)ICR_PENDING;
		send_icr(l);
		return true;
	case REG_SELF_IPI: send_self(l, v); return true;
	}
	return write_register(l, reg, v);
}

bool lapic_rdmsr(struct lapic_port *p, uint32_t msr, uint64_t *v)
{
	struct lapic *l = to_lapic(p);
	bool ok = true;

	lapic_lock(l);
	if (msr == MSR_APIC_BASE)
		*v = l->base;
	else if (msr == MSR_TSC_DEADLINE)
		*v = l->tsc_deadline;
	else
		ok = lapic_x2(l) && msr >= MSR_X2APIC && msr < MSR_X2APIC + 0x40 &&
		     x2_read(l, msr - MSR_X2APIC, v);
	lapic_unlock(l);
	return ok;
}

bool lapic_wrmsr(struct lapic_port *p, uint32_t msr, uint64_t v)
{
	struct lapic *l = to_lapic(p);
	bool ok = true;

	lapic_lock(l);
	if (msr == MSR_APIC_BASE)
		ok = write_base(l, v);
	else if (msr == MSR_TSC_DEADLINE)
		lapic_timer_set_deadline(l, v);
	else
		ok = lapic_x2(l) && msr >= MSR_X2APIC && msr < MSR_X2APIC + 0x40 &&
		     x2_write(l, msr - MSR_X2APIC, v);
	lapic_unlock(l);
	return ok;
}

/* --- x86_state --- */

static void put_reg(struct x86_state *s, unsigned reg, uint32_t v)
{
	store_le(s->lapic + reg * 16, v, 4);
}

static uint32_t get_reg(const struct x86_state *s, unsigned reg)
{
	return load_le(s->lapic + reg * 16, 4);
}

/* A latched NMI goes into events.nmi_pending; INIT and SIPI have been taken by then. */
void lapic_store(struct lapic_port *p, struct x86_state *s)
{
	struct lapic *l = to_lapic(p);
	uint32_t v;

	lapic_lock(l);
	memset(s->lapic, 0, sizeof s->lapic);
	for (unsigned reg = 0; reg < sizeof s->lapic / 16; reg++)
		if (read_register(l, reg, &v))
			put_reg(s, reg, v);
	put_reg(s, REG_DFR, l->dfr);
	put_reg(s, REG_ICR_HIGH, l->icr >> 32);
	s->apic_base = l->base;
	s->tsc_deadline = l->tsc_deadline;
	s->cr8 = l->tpr >> 4;
	s->events.nmi_pending |= atomic_load(&l->nmis) > 0;
	lapic_unlock(l);
}

static void load_registers(struct lapic *l, const struct x86_state *s)
{
	for (unsigned i = 0; i < 8; i++) {
		l->isr[i] = get_reg(s, REG_ISR + i);
		l->tmr[i] = get_reg(s, REG_TMR + i);
		l->irr[i] = get_reg(s, REG_IRR + i);
	}
	l->isr[0] &= ~0xffffu; /* vectors 0-15 do not exist */
	l->irr[0] &= ~0xffffu;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = get_reg(s, REG_LVT + i) & lvt_writable[i];
	l->tpr = get_reg(s, REG_TPR) & 0xff;
	l->ldr = lapic_x2(l) ? 0 : get_reg(s, REG_LDR) & 0xff000000;
	l->dfr = get_reg(s, REG_DFR) | 0x0fffffff;
	l->svr = get_reg(s, REG_SVR) & SVR_WRITABLE;
	l->esr = 0;
	l->esr_seen = get_reg(s, REG_ESR);
	l->icr = (get_reg(s, REG_ICR) & ICR_WRITABLE) | (uint64_t)get_reg(s, REG_ICR_HIGH) << 32;
	l->initial = get_reg(s, REG_INITIAL);
	l->divide = get_reg(s, REG_DIVIDE) & 0x0b;
	l->tsc_deadline = s->tsc_deadline;
}

void lapic_load(struct lapic_port *p, const struct x86_state *s)
{
	struct lapic *l = to_lapic(p);

	lapic_lock(l);
	l->base = s->apic_base & ~BASE_RESERVED;
	if (!(l->base & APIC_BASE_ON))
		l->base &= ~(uint64_t)APIC_BASE_X2;
	atomic_store(&l->nmis, 0);
	atomic_store(&l->init, false);
	atomic_store(&l->extint_msg, false);
	atomic_store(&l->sipi, -1);
	load_registers(l, s);
	lapic_timer_resume(l, get_reg(s, REG_CURRENT));
	atomic_store(&l->candidate, -1); /* so that anything pending wakes the vCPU */
	lapic_update(l);
	lapic_unlock(l);
}
