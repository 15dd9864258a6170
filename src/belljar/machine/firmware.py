"""A machine's firmware: what its ACPI tables say of the devices that there are (`belljar.boot.acpi`), and the ROM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.boot.acpi import TABLES_GPA, AcpiHardware
from belljar.boot.firmware import ROM_GPA, ROM_SIZE, rom
from belljar.devices import pm1
from belljar.devices.hpet import CAPABILITIES, HPET_GPA
from belljar.devices.ioapic import IOAPIC_GPA
from belljar.devices.lines import PIT_IOAPIC_PIN
from belljar.devices.pm_timer import PM_TIMER_PORT
from belljar.devices.reset import RESET_CPU, RESET_PORT, SYSTEM_RESET
from belljar.devices.rtc import CENTURY
from belljar.devices.small_pc import SCI_GSI
from belljar.x86.local_apic import LAPIC_GPA

if TYPE_CHECKING:
    from belljar.machine.machine import Machine


def add_rom(machine: Machine) -> None:
    """The ROM at the processor's start address, where the guest has ACPI tables to be woken by."""
    if machine.guest.image.find(TABLES_GPA) is None or machine.vm is None:
        return
    region = machine.memory.add(ROM_GPA, ROM_SIZE, name="firmware", readonly=True)
    page = rom(acpi_hardware(machine.guest.cpus), sleep_type=pm1.SLEEP_TYPE, woken=pm1.WAKE)
    machine.memory.write(ROM_GPA, page, force=True)
    machine.vm.map(region)


def acpi_hardware(cpus: int) -> AcpiHardware:
    """The hardware of a PC with so many CPUs, whose APIC ids are their indices."""
    return AcpiHardware(
        apic_ids=range(cpus),
        local_apic_gpa=LAPIC_GPA,
        ioapic_gpa=IOAPIC_GPA,
        ioapic_id=0,
        timer_gsi=PIT_IOAPIC_PIN,
        sci_gsi=SCI_GSI,
        event_port=pm1.EVENT_PORT,
        control_port=pm1.CONTROL_PORT,
        timer_port=PM_TIMER_PORT,
        reset_port=RESET_PORT,
        reset_value=SYSTEM_RESET | RESET_CPU,
        soft_off=pm1.SOFT_OFF,
        suspend=pm1.SUSPEND,
        century=CENTURY,
        hpet_gpa=HPET_GPA,
        hpet_id=CAPABILITIES & 0xFFFF_FFFF,
    )
