#include "machine/irq_router.h"

#include <stddef.h>

#include "base/bits.h"
#include "chipset/chipset.h"

#define PIC_CASCADE 2
#define PIC_INPUTS  16
#define IRQ0_PIN    2

/* Message for an NMI at physical destination 0 (SDM vol. 3, 11.11.2). */
#define MSI_DATA_NMI 0x400u

static void gsi_set(struct irq_line *l, bool level)
{
	struct irq_gsi *g = container_of(l, struct irq_gsi, line);

	if (g->pic)
		irq_set(g->pic, level);
	if (g->ioapic)
		irq_set(g->ioapic, level);
}

static void extint_set(struct irq_line *l, bool level)
{
	struct irq_router *r = container_of(l, struct irq_router, extint);

	if (r->lapic0)
		lapic_extint_changed(r->lapic0);
	else if (level && r->vcpu0)
		r->vcpu0->engine->irq(r->vcpu0);
}

static void nmi_set(struct irq_line *l, bool level)
{
	struct irq_router *r = container_of(l, struct irq_router, nmi);

	if (r->lapic0)
		irq_set(lapic_nmi_line(r->lapic0), level);
	else if (level && r->msi_to)
		msi_send(r->msi_to, LAPIC_BASE, MSI_DATA_NMI);
}

static void msi_forward(struct msi_sink *s, uint64_t addr, uint32_t data)
{
	struct irq_router *r = container_of(s, struct irq_router, msi);

	if (r->msi_to)
		msi_send(r->msi_to, addr, data);
}

void irq_router_init(struct irq_router *r)
{
	*r = (struct irq_router){
		.extint.set = extint_set,
		.nmi.set = nmi_set,
		.msi.send = msi_forward,
	};
	for (unsigned n = 0; n < IOAPIC_PINS; n++) {
		r->gsi[n].line.set = gsi_set;
		r->lines[n] = &r->gsi[n].line;
	}
}

void irq_router_connect(struct irq_router *r, struct device *pic, struct device *ioapic)
{
	for (unsigned n = 0; n < IOAPIC_PINS; n++) {
		if (n == PIC_CASCADE)
			continue;
		if (n < PIC_INPUTS)
			r->gsi[n].pic = pic_input(pic, n);
		r->gsi[n].ioapic = ioapic_input(ioapic, n ? n : IRQ0_PIN);
	}
}

void irq_router_aim(struct irq_router *r, struct msi_sink *msi, struct lapic *lapic0,
		    struct vcpu *vcpu0)
{
	r->msi_to = msi;
	r->lapic0 = lapic0;
	r->vcpu0 = vcpu0;
}
