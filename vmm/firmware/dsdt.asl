/* SPDX-License-Identifier: MIT */
/*
 * The board's differentiated system description (ACPI 6.4, 5.2.11.1): PCI root with its windows and interrupt routing, the
 * fixed ISA devices, the generation id, and power-off. Addresses are those of vmm/machine.h; change them in both places.
 * Routing is for the I/O APIC only: the board has no PIRQ router for PIC mode.
 */
DefinitionBlock ("", "DSDT", 2, "HAVSCK", "HVPC10", 1)
{
    Name (\_S5, Package () { 5, 5, 0, 0 })

    /* Virtual Machine Generation ID: ADDR is HSK_VMGENID_GPA, low and high half. */
    Scope (\_SB)
    {
        Device (VGEN)
        {
            Name (_HID, "HVSK0001")
            Name (_CID, "VM_Gen_Counter")
            Name (_DDN, "VM_Gen_Counter")
            Name (ADDR, Package () { 0x000EF000, 0 })
        }
    }
    Scope (\_GPE)
    {
        Method (_E05, 0, NotSerialized)
        {
            Notify (\_SB.VGEN, 0x80)
        }
    }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_SEG, 0)
            Name (_BBN, 0)
            Name (_UID, 0)

            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xFF, 0, 0x100)
                IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0000, 0x0CF7, 0, 0x0CF8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0D00, 0xFFFF, 0, 0xF300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                             0, 0xC0000000, 0xFEBFFFFF, 0, 0x3EC00000)
            })

            /* INTA-D of slot s arrive at GSI 16 + (s + pin) % 4, as virtio/pci.c has it. */
            Method (_PRT, 0, Serialized)
            {
                Local0 = Package (128) {}
                Local1 = 0
                While (Local1 < 128)
                {
                    Local2 = Package (4) { 0, 0, 0, 0 }
                    Local2[0] = ((Local1 >> 2) << 16) | 0xFFFF
                    Local2[1] = Local1 & 3
                    Local2[3] = 16 + (((Local1 >> 2) + (Local1 & 3)) & 3)
                    Local0[Local1] = Local2
                    Local1++
                }
                Return (Local0)
            }

            Device (RTC)
            {
                Name (_HID, EisaId ("PNP0B00"))
                Name (_CRS, ResourceTemplate ()
                {
                    IO (Decode16, 0x0070, 0x0070, 1, 8)
                    IRQNoFlags () { 8 }
                })
            }

            Device (KBD)
            {
                Name (_HID, EisaId ("PNP0303"))
                Name (_CRS, ResourceTemplate ()
                {
                    IO (Decode16, 0x0060, 0x0060, 1, 1)
                    IO (Decode16, 0x0064, 0x0064, 1, 1)
                    IRQNoFlags () { 1 }
                })
            }

            Device (MOU)
            {
                Name (_HID, EisaId ("PNP0F13"))
                Name (_CRS, ResourceTemplate ()
                {
                    IRQNoFlags () { 12 }
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

            /* what no driver may claim: ECAM and the ACPI fixed hardware */
            Device (RES)
            {
                Name (_HID, EisaId ("PNP0C02"))
                Name (_UID, 1)
                Name (_CRS, ResourceTemplate ()
                {
                    Memory32Fixed (ReadWrite, 0xB0000000, 0x10000000)
                    IO (Decode16, 0x0600, 0x0600, 1, 0x10)
                })
            }
        }
    }
}
