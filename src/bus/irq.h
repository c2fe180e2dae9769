/* irq: an interrupt wire as a device sees it, and a message-signalled interrupt as
 * IOAPIC and PCI devices send it. Any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct irq_line {
	void (*set)(struct irq_line *l, bool level);
};

static inline void irq_set(struct irq_line *l, bool level)
{
	l->set(l, level);
}

/* Where MSIs go: the engine's LAPICs (KVM in-kernel, or chipset/lapic). Address and
 * data are as in Intel SDM vol. 3, 11.11 (message address/data register formats). */
struct msi_sink {
	void (*send)(struct msi_sink *s, uint64_t addr, uint32_t data);
};

static inline void msi_send(struct msi_sink *s, uint64_t addr, uint32_t data)
{
	s->send(s, addr, data);
}
