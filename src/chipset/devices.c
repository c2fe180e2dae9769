#include "chipset/chipset.h"

#include <stddef.h>

const struct device_type *const device_types[] = {
	&pic_type,     &ioapic_type,   &pit_type,        &rtc_type,
	&uart_type,    &i8042_type,    &pm_type,         &pci_host_type,
	&fw_cfg_type,  &debugcon_type, &debug_exit_type, &test_device_type,
	&vmgenid_type, &vga_type,      &plug_type,       NULL,
};
