/* The machine as ACPI describes it to the guest (ACPI 6.5). Addresses that the machine
 * chooses at run time are \HB32 .. \HKBD: acpi.c puts them into the compiled table. Everything else stands in chipset/layout.h, and must agree with it. */
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
	Name (HKBD, 0xFFFFFFFFFFFFFFF0)	// whether there is a keyboard

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
					IO (Decode16, 0x0680, 0x0680, 1, 0x0C)
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

		// What is plugged in and out: chipset/plug.h has the registers
		OperationRegion (PLGR, SystemIO, 0x0680, 0x0C)
		Field (PLGR, DWordAcc, NoLock, WriteAsZeros)
		{
			PLUP, 32,	// slots with something new
			PLDN, 32,	// slots to be let go of
			PLOF, 32	// slots that are let go of
		}

		Method (PLEJ, 1, Serialized)
		{
			PLOF = (1 << Arg0)
		}

		// Tells the drivers: 1, look at the slot; 3, let go of the device
		Method (PLSN, 0, Serialized)
		{
			Local0 = PLUP
			PLUP = Local0
			\_SB.PCI0.SNFY (Local0, 1)
			Local0 = PLDN
			PLDN = Local0
			\_SB.PCI0.SNFY (Local0, 3)
		}

		// Events without a fixed register: IRQ_GED says that the identifier changed
		Device (GED)
		{
			Name (_HID, "ACPI0013")
			Name (_UID, 0)
			Name (_CRS, ResourceTemplate ()
			{
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 20 }
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 21 }
			})
			Method (_EVT, 1, Serialized)
			{
				If (Arg0 == 20)
				{
					Notify (\_SB.VGEN, 0x80)
				}
				If (Arg0 == 21)
				{
					PLSN ()
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

			// Slots whose device can come and go; not those of the first network cards, after
			// whose slots guests would name them
			Device (S0C) { Name (_ADR, 0x0C0000) Name (_SUN, 12) Method (_EJ0, 1) { \_SB.PLEJ (12) } }
			Device (S0D) { Name (_ADR, 0x0D0000) Name (_SUN, 13) Method (_EJ0, 1) { \_SB.PLEJ (13) } }
			Device (S0E) { Name (_ADR, 0x0E0000) Name (_SUN, 14) Method (_EJ0, 1) { \_SB.PLEJ (14) } }
			Device (S0F) { Name (_ADR, 0x0F0000) Name (_SUN, 15) Method (_EJ0, 1) { \_SB.PLEJ (15) } }
			Device (S10) { Name (_ADR, 0x100000) Name (_SUN, 16) Method (_EJ0, 1) { \_SB.PLEJ (16) } }
			Device (S11) { Name (_ADR, 0x110000) Name (_SUN, 17) Method (_EJ0, 1) { \_SB.PLEJ (17) } }
			Device (S12) { Name (_ADR, 0x120000) Name (_SUN, 18) Method (_EJ0, 1) { \_SB.PLEJ (18) } }
			Device (S13) { Name (_ADR, 0x130000) Name (_SUN, 19) Method (_EJ0, 1) { \_SB.PLEJ (19) } }
			Device (S14) { Name (_ADR, 0x140000) Name (_SUN, 20) Method (_EJ0, 1) { \_SB.PLEJ (20) } }
			Device (S15) { Name (_ADR, 0x150000) Name (_SUN, 21) Method (_EJ0, 1) { \_SB.PLEJ (21) } }
			Device (S16) { Name (_ADR, 0x160000) Name (_SUN, 22) Method (_EJ0, 1) { \_SB.PLEJ (22) } }
			Device (S17) { Name (_ADR, 0x170000) Name (_SUN, 23) Method (_EJ0, 1) { \_SB.PLEJ (23) } }
			Device (S18) { Name (_ADR, 0x180000) Name (_SUN, 24) Method (_EJ0, 1) { \_SB.PLEJ (24) } }
			Device (S19) { Name (_ADR, 0x190000) Name (_SUN, 25) Method (_EJ0, 1) { \_SB.PLEJ (25) } }
			Device (S1A) { Name (_ADR, 0x1A0000) Name (_SUN, 26) Method (_EJ0, 1) { \_SB.PLEJ (26) } }
			Device (S1B) { Name (_ADR, 0x1B0000) Name (_SUN, 27) Method (_EJ0, 1) { \_SB.PLEJ (27) } }
			Device (S1C) { Name (_ADR, 0x1C0000) Name (_SUN, 28) Method (_EJ0, 1) { \_SB.PLEJ (28) } }
			Device (S1D) { Name (_ADR, 0x1D0000) Name (_SUN, 29) Method (_EJ0, 1) { \_SB.PLEJ (29) } }
			Device (S1E) { Name (_ADR, 0x1E0000) Name (_SUN, 30) Method (_EJ0, 1) { \_SB.PLEJ (30) } }

			Method (SNFY, 2, Serialized)
			{
				If (Arg0 & 0x00001000) { Notify (S0C, Arg1) }
				If (Arg0 & 0x00002000) { Notify (S0D, Arg1) }
				If (Arg0 & 0x00004000) { Notify (S0E, Arg1) }
				If (Arg0 & 0x00008000) { Notify (S0F, Arg1) }
				If (Arg0 & 0x00010000) { Notify (S10, Arg1) }
				If (Arg0 & 0x00020000) { Notify (S11, Arg1) }
				If (Arg0 & 0x00040000) { Notify (S12, Arg1) }
				If (Arg0 & 0x00080000) { Notify (S13, Arg1) }
				If (Arg0 & 0x00100000) { Notify (S14, Arg1) }
				If (Arg0 & 0x00200000) { Notify (S15, Arg1) }
				If (Arg0 & 0x00400000) { Notify (S16, Arg1) }
				If (Arg0 & 0x00800000) { Notify (S17, Arg1) }
				If (Arg0 & 0x01000000) { Notify (S18, Arg1) }
				If (Arg0 & 0x02000000) { Notify (S19, Arg1) }
				If (Arg0 & 0x04000000) { Notify (S1A, Arg1) }
				If (Arg0 & 0x08000000) { Notify (S1B, Arg1) }
				If (Arg0 & 0x10000000) { Notify (S1C, Arg1) }
				If (Arg0 & 0x20000000) { Notify (S1D, Arg1) }
				If (Arg0 & 0x40000000) { Notify (S1E, Arg1) }
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
					If (\HKBD)
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
