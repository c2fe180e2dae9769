#include "machine/machine_priv.h"

#include <time.h>

static const struct device_type *const slot_type[DEV_SLOTS] = {
	[DEV_PIC] = &pic_type,
	[DEV_IOAPIC] = &ioapic_type,
	[DEV_PIT] = &pit_type,
	[DEV_RTC] = &rtc_type,
	[DEV_UART] = &uart_type,
	[DEV_I8042] = &i8042_type,
	[DEV_VGA] = &vga_type,
	[DEV_PM] = &pm_type,
	[DEV_PLUG] = &plug_type,
	[DEV_PCI_HOST] = &pci_host_type,
	[DEV_FW_CFG] = &fw_cfg_type,
	[DEV_DEBUGCON] = &debugcon_type,
	[DEV_VMGENID] = &vmgenid_type,
	[DEV_DEBUG_EXIT] = &debug_exit_type,
	[DEV_TEST_DEVICE] = &test_device_type,
};

static void discard(struct byte_sink *s, const uint8_t *bytes, uint32_t len)
{
}

static bool wanted(const struct machine *m, unsigned slot)
{
	switch (slot) {
	case DEV_DEBUG_EXIT:
	case DEV_TEST_DEVICE: return m->debug_exit;
	case DEV_VGA: return m->vga;
	case DEV_DEBUGCON: return m->firmware;
	case DEV_VMGENID: return !m->firmware; /* firmware is where it would lie */
	default: return true;
	}
}

int machine_make_devices(struct machine *m, struct byte_sink *serial_out, struct err *e)
{
	m->serial_null.put = discard;
	irq_router_init(&m->irq);

	const struct device_env env = {
		.bus = m->bus,
		.mem = m->mem,
		.clock = loop_clock(m->loop),
		.irq = m->irq.lines,
		.msi = &m->irq.msi,
		.serial_out = serial_out ? serial_out : &m->serial_null,
		.debug_out = machine_debug_sink(m),
		.machine = &m->port,
		.nmi = &m->irq.nmi,
		.extint = &m->irq.extint,
		.rtc_epoch_s = m->wall_epoch_ns / 1000000000u,
		.ram_bytes = mem_size(m->mem),
		.cpus = m->cpus,
		.keyboard = m->keyboard,
	};

	for (unsigned i = 0; i < DEV_SLOTS; i++) {
		int r = wanted(m, i) ? slot_type[i]->new (&m->device[i], &env, e) : 0;

		if (r < 0)
			return err_wrap(e, "device %s", slot_type[i]->name);
	}
	irq_router_connect(&m->irq, m->device[DEV_PIC], m->device[DEV_IOAPIC]);
	return 0;
}

void machine_reset_devices(struct machine *m)
{
	for (unsigned i = 0; i < DEV_SLOTS; i++)
		if (m->device[i])
			slot_type[i]->reset(m->device[i]);
	machine_reset_firmware(m);
}

void machine_free_devices(struct machine *m)
{
	machine_free_firmware(m);
	for (unsigned i = DEV_SLOTS; i-- > 0;)
		if (m->device[i])
			slot_type[i]->free(m->device[i]);
}
