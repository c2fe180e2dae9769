/* chipset_fuzz: all devices of the machine wired together, with two LAPICs and a PCI
 * function, under any sequence of accesses, wires, steps of time, resets, and loads of
 * state. What a guest does and what a snapshot holds must never hurt us. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "chipset/pci.h"
#include "chipset/test_board.h"
#include "chipset/vga.h"

#define APICS      2
#define DEVICES    24
#define DEVFN      (4 << 3)
#define MAX_OPS    400
#define TSC_HZ     2000000000ull
#define STEP_NS    1000 /* times 16 bits */
#define MSR_X2APIC 0x800

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct fan {
	struct irq_line line;
	struct irq_line *pic, *ioapic;
};

struct world {
	struct test_board board;
	struct device *device[DEVICES];
	unsigned devices;
	struct device *pic, *ioapic, *uart, *pm, *pci_host, *i8042, *vga;
	struct fan fan[24];
	struct irq_line extint;
	struct lapic_bus *apics;
	struct lapic *apic[APICS];
	struct pci_device function;
	struct bus_region regs;
	const uint8_t *at, *end;
};

static uint64_t take(struct world *w, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n && w->at < w->end; i++)
		v |= (uint64_t)*w->at++ << (i * 8);
	return v;
}

static void fan_set(struct irq_line *l, bool level)
{
	struct fan *f = container_of(l, struct fan, line);

	if (f->pic)
		irq_set(f->pic, level);
	if (f->ioapic)
		irq_set(f->ioapic, level);
}

static void extint_set(struct irq_line *l, bool level)
{
	struct world *w = container_of(l, struct world, extint);

	if (w->apic[0])
		lapic_extint_changed(w->apic[0]);
}

static uint64_t tsc_now(void *ctx)
{
	struct world *w = ctx;

	return mul_div(w->board.clock.now_ns, TSC_HZ, 1000000000);
}

static void wake(void *ctx)
{
}

static void end_of_interrupt(void *ctx, uint8_t vector)
{
	ioapic_eoi(ctx, vector);
}

static uint64_t regs_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return offset;
}

static void regs_write(struct bus_region *r, uint64_t offset, uint64_t v, unsigned size)
{
	struct world *w = container_of(r, struct world, regs);

	pci_msix_send(&w->function, v % 8);
}

static void must(int r)
{
	if (r < 0)
		abort();
}

static void add_devices(struct world *w)
{
	for (unsigned i = 0; device_types[i]; i++) {
		struct device *d = board_add(&w->board, device_types[i]);

		w->device[w->devices++] = d;
		if (d->type == &pic_type)
			w->pic = d;
		else if (d->type == &ioapic_type)
			w->ioapic = d;
		else if (d->type == &uart_type)
			w->uart = d;
		else if (d->type == &pm_type)
			w->pm = d;
		else if (d->type == &pci_host_type)
			w->pci_host = d;
		else if (d->type == &i8042_type)
			w->i8042 = d;
		else if (d->type == &vga_type)
			w->vga = d;
	}
}

static void wire(struct world *w)
{
	for (unsigned i = 0; i < 24; i++) {
		w->fan[i] = (struct fan){{fan_set},
					 i < 16 ? pic_input(w->pic, i) : NULL,
					 ioapic_input(w->ioapic, i)};
		w->board.wire[i].to = &w->fan[i].line;
	}
	w->extint.set = extint_set;
	w->board.extint.to = &w->extint;
	w->board.nmi.to = lapic_nmi_line(w->apic[0]);
	w->board.msi_to = lapic_bus_msi(w->apics);
}

static void add_apics(struct world *w)
{
	must(lapic_bus_new(&w->apics, NULL));
	for (unsigned i = 0; i < APICS; i++) {
		const struct lapic_env env = {
			.clock = &w->board.clock.clock,
			.timer_hz = 1000000000,
			.tsc_now = tsc_now,
			.tsc_hz = TSC_HZ,
			.wake = wake,
			.ctx = w,
			.extint = i ? NULL : pic_extint(w->pic),
			.eoi = end_of_interrupt,
			.eoi_ctx = w->ioapic,
		};

		must(lapic_new(&w->apic[i], w->apics, i, &env, NULL));
	}
}

static void add_function(struct world *w)
{
	static const struct pci_ids ids = {0x1af4, 0x1042, 0x1af4, 1, 0x010000, 1};

	w->regs = (struct bus_region){"regs", 1, 4, regs_read, regs_write};
	pci_init(&w->function, &ids);
	pci_add_bar(&w->function, 0, PCI_BAR_MEM64, 0x1000, &w->regs);
	pci_add_intx(&w->function, 1);
	must(pci_add_msix(&w->function, 2, 8));
	must(pci_attach(w->pci_host, &w->function, DEVFN, NULL));
}

/* A port or address near a device, by a byte; rarely one from anywhere. */
static uint64_t place(struct world *w, enum bus_space *space)
{
	static const uint16_t ports[] = {PORT_PIC1,       PORT_PIC2,     PORT_ELCR, PORT_PIT,
					 PORT_SPEAKER,    PORT_I8042,    PORT_RTC,  PORT_COM1,
					 PORT_DEBUG_EXIT, PORT_PM_EVT,   PORT_PLUG, PORT_PCI_CONFIG,
					 PORT_FW_CFG,     PORT_DEBUGCON, 0x92,      0x3b0,
					 0x3c0,           0x3d0};
	static const uint64_t pages[] = {IOAPIC_BASE, ECAM_BASE, ECAM_BASE + (DEVFN << 12),
					 PCI_MMIO_BASE};
	unsigned which = take(w, 1), offset = take(w, 1);

	*space = which & 0x80 ? BUS_MMIO : BUS_PIO;
	if (which == 0xff)
		return take(w, 8);
	if (*space == BUS_PIO)
		return ports[which % ARRAY_SIZE(ports)] + offset % 16;
	return pages[which % ARRAY_SIZE(pages)] + offset;
}

static void bus_op(struct world *w, bool write)
{
	enum bus_space space;
	uint64_t at = place(w, &space);
	unsigned size = 1u << take(w, 1) % 4;

	if (write)
		bus_write(w->board.bus, space, at, take(w, size), size);
	else
		(void)bus_read(w->board.bus, space, at, size);
}

static void apic_op(struct world *w)
{
	struct lapic_port *p = lapic_port(w->apic[take(w, 1) % APICS]);
	unsigned what = take(w, 1);
	uint32_t reg = take(w, 1) % 64;
	uint64_t v;

	switch (what % 10) {
	case 0: p->ops->mmio_write(p, reg * 16, take(w, 4)); break;
	case 1: (void)p->ops->mmio_read(p, reg * 16); break;
	case 2: (void)p->ops->wrmsr(p, MSR_X2APIC + reg, take(w, 8)); break;
	case 3: (void)p->ops->rdmsr(p, MSR_X2APIC + reg, &v); break;
	case 4: (void)p->ops->wrmsr(p, 0x1b, LAPIC_BASE | take(w, 2)); break;
	case 5: (void)p->ops->wrmsr(p, 0x6e0, tsc_now(w) + take(w, 4)); break;
	case 6: p->ops->set_cr8(p, take(w, 1)); break;
	case 7:
		(void)p->ops->take_nmi(p);
		(void)p->ops->take_init(p);
		(void)p->ops->take_sipi(p);
		(void)p->ops->send(p, reg & 3, take(w, 4));
		break;
	default:
		if (p->ops->pending(p) && p->ops->ack(p) > 255)
			abort();
		break;
	}
}

/* Takes a vCPU's state from one APIC, changes a few bytes, and gives it to another. */
static void apic_state(struct world *w)
{
	static struct x86_state s;
	struct lapic_port *from = lapic_port(w->apic[take(w, 1) % APICS]);
	struct lapic_port *to = lapic_port(w->apic[take(w, 1) % APICS]);

	from->ops->store(from, &s);
	for (unsigned n = take(w, 1) % 8; n; n--)
		s.lapic[take(w, 2) % sizeof s.lapic] = take(w, 1);
	s.apic_base ^= take(w, 2);
	s.tsc_deadline += take(w, 4);
	to->ops->load(to, &s);
}

static void walk(struct state *s, struct device *d)
{
	state_begin(s, d->type->name, d->instance);
	d->type->state(d, s);
	state_end(s);
}

/* Replaces a device by a fresh one that loaded its state. */
static void device_state(struct world *w)
{
	struct device *d = w->device[take(w, 1) % w->devices];
	struct state *writer = state_writer(), *reader;
	const void *bytes;
	size_t len;

	walk(writer, d);
	bytes = state_written(writer, &len);
	d->type->reset(d);
	reader = state_reader(bytes, len);
	walk(reader, d);
	must(state_result(reader, NULL));
	state_free(reader);
	state_free(writer);
}

/* The screen is looked at, and a key pressed. */
static void person_op(struct world *w)
{
	static struct vga_text text;
	uint8_t codes[] = {take(w, 1), take(w, 1)};

	vga_read_text(w->vga, &text);
	if (text.columns > VGA_COLUMNS_MAX || text.rows > VGA_ROWS_MAX ||
	    (text.cursor && (text.cursor_x >= text.columns || text.cursor_y >= text.rows)))
		abort();
	while (i8042_type_keys(w->i8042, codes, sizeof codes) && take(w, 1) & 1)
		;
}

static void one_op(struct world *w)
{
	uint8_t op = take(w, 1), byte;

	switch (op % 16) {
	case 0 ... 4: bus_op(w, true); break;
	case 5 ... 6: bus_op(w, false); break;
	case 7: irq_set(w->board.lines[take(w, 1) % 24], op & 0x10); break;
	case 8: board_advance(&w->board, take(w, 2) * STEP_NS); break;
	case 9 ... 10: apic_op(w); break;
	case 11: apic_state(w); break;
	case 12: device_state(w); break;
	case 13:
		byte = take(w, 1);
		(void)uart_input(w->uart, &byte, 1);
		pm_power_button(w->pm);
		person_op(w);
		break;
	case 14:
		pci_irq(&w->function, op & 0x10);
		pci_msix_send(&w->function, take(w, 1));
		break;
	case 15:
		w->device[op / 16 % w->devices]->type->reset(w->device[op / 16 % w->devices]);
		break;
	}
}

static void tear_down(struct world *w)
{
	/* Apart from here on: devices no longer reach each other. */
	for (unsigned i = 0; i < 24; i++)
		w->board.wire[i].to = NULL;
	w->board.extint.to = NULL;
	w->board.nmi.to = NULL;
	w->board.msi_to = NULL;
	pci_detach(&w->function);
	pci_done(&w->function);
	for (unsigned i = 0; i < APICS; i++)
		lapic_free(w->apic[i]);
	lapic_bus_free(w->apics);
	while (w->devices) {
		struct device *d = w->device[--w->devices];

		d->type->free(d);
	}
	board_done(&w->board);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct world *w = calloc(1, sizeof *w);

	if (!w)
		return 0;
	w->at = bytes;
	w->end = bytes + len;
	board_init(&w->board);
	add_devices(w);
	add_apics(w);
	add_function(w);
	wire(w);
	for (unsigned i = 0; i < MAX_OPS && w->at < w->end; i++)
		one_op(w);
	tear_down(w);
	free(w);
	return 0;
}
