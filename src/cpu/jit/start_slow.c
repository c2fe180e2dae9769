/* start: INIT and SIPI (SDM volume 3A, 8.4 and table 9-1). */
#include <string.h>

#include "cpu/jit/core.h"

/* What INIT does to the registers; x87 and vector state, XCR0, MSRs but EFER, and the time stay. */
static void reset_registers(struct jit_cpu *c)
{
	uint64_t cache_off = c->st.cr0 & (CR0_CD | CR0_NW);
	struct x86_state fresh;

	x86_state_reset(&fresh, c->vcpu.index);
	memcpy(&c->st, &fresh, offsetof(struct x86_state, xcr0));
	c->st.cr0 = CR0_ET | cache_off;
	c->st.efer = 0;
	c->st.mp_state = fresh.mp_state;
	c->st.events = fresh.events;
	jit_flags_set_arith(c, (uint32_t)c->st.rflags);
	c->delivering = false;
	c->dr6_hits = 0;
	c->p->step_once = false;
	jit_tlb_flush(c, true);
	jit_mode_update(c);
}

static void start_at(struct jit_cpu *c, uint8_t vector)
{
	struct x86_seg *cs = &c->st.seg[X86_CS];

	cs->sel = (uint16_t)(vector << 8);
	cs->base = (uint64_t)vector << 12;
	c->st.rip = 0;
	c->st.mp_state = X86_RUNNING;
	jit_mode_update(c);
}

void jit_take_start(struct jit_cpu *c)
{
	struct lapic_port *l = c->vcpu.lapic;
	int vector;

	if (!l)
		return;
	if (l->ops->take_init(l))
		reset_registers(c);
	vector = l->ops->take_sipi(l);
	if (vector >= 0 && c->st.mp_state == X86_WAIT_SIPI)
		start_at(c, (uint8_t)vector);
}
