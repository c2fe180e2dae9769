/* The machine as ACPI describes it to the guest (ACPI 6.5). Addresses that the machine
 * chooses at run time are \HB32 .. \HVGA: acpi.c puts them into the compiled table. Everything else stands in chipset/layout.h, and must agree with it. */
DefinitionBlock ("", "DSDT", 2, "HOLON", "HOLONPC", 1)
{
	// Soft off: SLP_TYP 5. First: boot loaders that look for it know little AML
	Name (\_S5, Package () { 5, 5, 0, 0 })

	// Set by acpi.c
	Name (HB32, 0xFFFFFFFFFFFFFFF0)	// PCI window below 4 GiB: first address
	Name (HL32, 0xFFFFFFFFFFFFFFF0)	// and length
	Name (HB64, 0xFFFFFFFFFFFFFFF0)	// PCI window above RAM
	Name (HL64, 0xFFFFFFFFFFFFFFF0)
	Name (HECM, 0xFFFFFFFFFFFFFFF0)	// ECAM
	Name (HECL, 0xFFFFFFFFFFFFFFF0)
	Name (HVGN, 0xFFFFFFFFFFFFFFF0)	// whether there is a generation identifier
	Name (HVGA, 0xFFFFFFFFFFFFFFF0)	// whether there are a VGA and a keyboard

	Scope (\_SB)
	{
		// What the board itself decodes, so that no one hands it out: ECAM, ACPI ports
		Device (MBRD)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_UID, 0)
			Method (_CRS, 0, Serialized)
			{
				Name (RBUF, ResourceTemplate ()
				{
					IO (Decode16, 0x0600, 0x0600, 1, 0x0C)
					QWordMemory (ResourceConsumer, PosDecode, MinFixed, MaxFixed,
						NonCacheable, ReadWrite, 0, 0, 0, 0, 0, , , ECAM)
				})
				CreateQWordField (RBUF, ECAM._MIN, EMIN)
				CreateQWordField (RBUF, ECAM._MAX, EMAX)
				CreateQWordField (RBUF, ECAM._LEN, ELEN)
				EMIN = \HECM
				ELEN = \HECL
				EMAX = \HECM + \HECL - 1
				Return (RBUF)
			}
		}

		// Virtual machine generation identifier: VMGENID_BASE (chipset/vmgenid.c)
		Device (VGEN)
		{
			Name (_HID, "HOLN0001")
			Name (_CID, "VM_Gen_Counter")
			Name (_DDN, "VM_Gen_Counter")
			Name (ADDR, Package () { 0x000F1000, 0 })
			Method (_STA, 0, NotSerialized)
			{
				If (\HVGN)
				{
					Return (0x0F)
				}
				Return (0)
			}
		}

		// Events without a fixed register: IRQ_GED says that the identifier changed
		Device (GED)
		{
			Name (_HID, "ACPI0013")
			Name (_UID, 0)
			Name (_CRS, ResourceTemplate ()
			{
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 20 }
			})
			Method (_EVT, 1, Serialized)
			{
				If (Arg0 == 20)
				{
					Notify (\_SB.VGEN, 0x80)
				}
			}
		}

		Device (PCI0)
		{
			Name (_HID, EisaId ("PNP0A08"))
			Name (_CID, EisaId ("PNP0A03"))
			Name (_UID, 0)
			Name (_SEG, 0)
			Name (_BBN, 0)

			Method (_CRS, 0, Serialized)
			{
				Name (RBUF, ResourceTemplate ()
				{
					WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
						0, 0, 0xFF, 0, 0x100)
					IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
					WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
						0, 0, 0x0CF7, 0, 0x0CF8)
					WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
						0, 0x0D00, 0xFFFF, 0, 0xF300)
					QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed,
						NonCacheable, ReadWrite, 0, 0, 0, 0, 0, , , PM32)
					QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed,
						Cacheable, ReadWrite, 0, 0, 0, 0, 0, , , PM64)
				})
				CreateQWordField (RBUF, PM32._MIN, LMIN)
				CreateQWordField (RBUF, PM32._MAX, LMAX)
				CreateQWordField (RBUF, PM32._LEN, LLEN)
				CreateQWordField (RBUF, PM64._MIN, HMIN)
				CreateQWordField (RBUF, PM64._MAX, HMAX)
				CreateQWordField (RBUF, PM64._LEN, HLEN)
				LMIN = \HB32
				LLEN = \HL32
				LMAX = \HB32 + \HL32 - 1
				HMIN = \HB64
				HLEN = \HL64
				HMAX = \HB64 + \HL64 - 1
				Return (RBUF)
			}

			// INTx of slot s, pin p (0: INTA#) is GSI 16 + (s + p) % 4, level, active low
			Method (_PRT, 0, Serialized)
			{
				Local0 = Package (128) {}
				Local1 = 0
				While (Local1 < 128)
				{
					Local2 = Package (4) { 0, 0, 0, 0 }
					Local2[0] = ((Local1 >> 2) << 16) | 0xFFFF
					Local2[1] = Local1 & 3
					Local2[3] = 16 + (((Local1 >> 2) + Local1) & 3)
					Local0[Local1] = Local2
					Local1++
				}
				Return (Local0)
			}

			// The OS may drive all of PCI Express by itself (PCI Firmware 3.3, 4.5.1)
			Method (_OSC, 4, Serialized)
			{
				CreateDWordField (Arg3, 0, STAT)
				If (Arg0 != ToUUID ("33DB4D5B-1FF7-401C-9657-7441C03DD766"))
				{
					STAT |= 4	// unrecognized UUID
				}
				ElseIf (Arg1 != 1)
				{
					STAT |= 8	// unrecognized revision
				}
				Return (Arg3)
			}

			Device (PIC)
			{
				Name (_HID, EisaId ("PNP0000"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x0020, 0x0020, 1, 2)
					IO (Decode16, 0x00A0, 0x00A0, 1, 2)
					IO (Decode16, 0x04D0, 0x04D0, 1, 2)
					IRQNoFlags () { 2 }
				})
			}

			Device (TIMR)
			{
				Name (_HID, EisaId ("PNP0100"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x0040, 0x0040, 1, 4)
					IRQNoFlags () { 0 }
				})
			}

			Device (SPKR)
			{
				Name (_HID, EisaId ("PNP0800"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x0061, 0x0061, 1, 1)
				})
			}

			Device (RTC)
			{
				Name (_HID, EisaId ("PNP0B00"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x0070, 0x0070, 1, 2)
					IRQNoFlags () { 8 }
				})
			}

			Device (KBD)
			{
				Name (_HID, EisaId ("PNP0303"))
				Method (_STA, 0, NotSerialized)
				{
					If (\HVGA)
					{
						Return (0x0F)
					}
					Return (0)
				}
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x0060, 0x0060, 1, 1)
					IO (Decode16, 0x0064, 0x0064, 1, 1)
					IRQNoFlags () { 1 }
				})
			}

			Device (COM1)
			{
				Name (_HID, EisaId ("PNP0501"))
				Name (_UID, 1)
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x03F8, 0x03F8, 1, 8)
					IRQNoFlags () { 4 }
				})
			}
		}
	}
}
