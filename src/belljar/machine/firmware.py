"""What a machine's ACPI tables say of its hardware (`belljar.boot.acpi`), from the devices that there are."""

from __future__ import annotations

from belljar.boot.acpi import AcpiHardware
from belljar.devices import pm1
from belljar.devices.hpet import CAPABILITIES, HPET_GPA
from belljar.devices.ioapic import IOAPIC_GPA
from belljar.devices.lapic_registers import LAPIC_GPA
from belljar.devices.lines import PIT_IOAPIC_PIN
from belljar.devices.pm_timer import PM_TIMER_PORT
from belljar.devices.reset import RESET_CPU, RESET_PORT, SYSTEM_RESET
from belljar.devices.rtc import CENTURY
from belljar.devices.small_pc import SCI_GSI


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
        century=CENTURY,
        hpet_gpa=HPET_GPA,
        hpet_id=CAPABILITIES & 0xFFFF_FFFF,
    )
