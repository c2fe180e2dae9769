/* fw_cfg: the ports by which firmware, and CPU test suites, ask the machine about itself (QEMU's
 * docs/specs/fw_cfg): a 16-bit selector at PORT_FW_CFG, the item's bytes at the port after it, and
 * a register that takes the address of a transfer descriptor in guest RAM (DMA).
 *
 * Items are numbers that are always there, and what the machine adds here before the guest runs:
 * items of fixed numbers, and files, which firmware finds by name in the directory item. */
#pragma once

#include "chipset/device.h"

#define FW_CFG_NAME_MAX 55 /* bytes of a file's name */

/* Item numbers that firmware knows for what it may be asked to start itself. */
enum fw_cfg_item {
	FW_CFG_KERNEL_SIZE = 0x08,
	FW_CFG_INITRD_SIZE = 0x0b,
	FW_CFG_BOOT_MENU = 0x0e,
	FW_CFG_KERNEL_DATA = 0x11,
	FW_CFG_INITRD_DATA = 0x12,
	FW_CFG_CMDLINE_SIZE = 0x14,
	FW_CFG_CMDLINE_DATA = 0x15,
	FW_CFG_SETUP_SIZE = 0x17,
	FW_CFG_SETUP_DATA = 0x18,
};

/* Both copy the bytes, and put them in the place of what had this number or name before. With the
 * vCPUs stopped. -ENOSPC: there are too many files; -EINVAL: the name is too long. */
WARN_UNUSED int fw_cfg_set_item(struct device *fw_cfg, enum fw_cfg_item item, const void *bytes,
				uint32_t len, struct err *e);
WARN_UNUSED int fw_cfg_set_file(struct device *fw_cfg, const char *name, const void *bytes,
				uint32_t len, struct err *e);
