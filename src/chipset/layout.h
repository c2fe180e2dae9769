/* layout: where the machine's fixed devices live; ACPI tables and devices agree here. */
#pragma once

#define LAPIC_BASE       0xfee00000u
#define IOAPIC_BASE      0xfec00000u
#define IOAPIC_PINS      24
#define ECAM_BASE        0xb0000000u /* 256 buses, 256 MiB; where firmware puts a Q35's */
#define ECAM_LAST_BUS    255
#define PCI_MMIO_BASE    0xc0000000u /* window for BARs below 4 GiB */
#define PCI_MMIO_LEN     0x3e000000u
#define TEST_MEMORY_BASE 0xff000000u
#define PCI_MMIO64_LEN   0x800000000ull /* 32 GiB, starts above RAM, 1 GiB aligned */

#define VMGENID_BASE 0xf1000u /* in the memory below 1 MiB that the guest leaves alone */
#define VMGENID_LEN  16

#define PORT_PIC1       0x20
#define PORT_PIC2       0xa0
#define PORT_ELCR       0x4d0
#define PORT_PIT        0x40
#define PORT_SPEAKER    0x61
#define PORT_I8042      0x60
#define PORT_RTC        0x70
#define PORT_COM1       0x3f8
#define PORT_DEBUG_EXIT 0xf4
#define PORT_FW_CFG     0x510
#define PORT_DEBUGCON   0x402
#define PORT_TEST_LATCH 0xe0 /* these three: chipset/test_device.c */
#define PORT_TEST_LINES 0x2000
#define PORT_PCI_CONFIG 0xcf8
#define PORT_RESET      0xcf9 /* FADT reset register too: write 0x06 */
#define PORT_PM_EVT     0x600 /* PM1a_EVT_BLK: status, enable (4 bytes) */
#define PORT_PM_CNT     0x604 /* PM1a_CNT_BLK (2 bytes); S5 is SLP_TYP 5 */
#define PORT_PM_TMR     0x608 /* 4 bytes */

/* chipset/plug.h: behind the 128 bytes at PORT_PM_EVT in which firmware looks for what an ICH9 has */
#define PORT_PLUG     0x680
#define PORT_PLUG_LEN 0x0c

#define IRQ_PIT  0
#define IRQ_COM1 4
#define IRQ_RTC  8
#define IRQ_SCI  9  /* level, active high */
#define IRQ_GED  20 /* events of dsdt.asl's Generic Event Device: edge, active high */
#define IRQ_PLUG 21 /* likewise: chipset/plug.h has news of slots */
