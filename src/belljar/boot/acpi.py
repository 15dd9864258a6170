"""The ACPI tables that firmware leaves for whom it starts (ACPI Specification 6.5, chapter 5), for a PC as small as belljar's.

RSDP, RSDT and XSDT, FADT, FACS, MADT, HPET table, and a DSDT that says no more than how to sleep: there is nothing on the bus
to describe. They lie where 32-bit kernels look for them, between 896 KiB and 1 MiB, in memory that the map calls reserved.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from belljar.boot.image import ImageSegment, SegmentFlags
from belljar.boot.memory_map import HIGH_MEMORY_START
from belljar.records import dataclass

TABLES_GPA = 0xE_0000
"""The RSDP is found from here on, at a multiple of 16 (5.2.5.1)."""

FACS_OFFSET = 64
"""Where the FACS lies from there on, which firmware reads when the machine wakes."""

RSDP_SIZE = 36
RSDP_OLD_SIZE = 20
"""How much of it ACPI 1.0 had, which the first checksum covers."""

_RSDP_REVISION = 2
_FADT_REVISION = 3
_MADT_REVISION = 3
_OEM = b"BELLJR"
_OEM_TABLE = b"BELLJAR "
_HEADER = struct.Struct("<4sIBB6s8sI4sI")

_WBINVD, _PROC_C1, _NO_POWER_BUTTON, _NO_SLEEP_BUTTON, _RESET_REGISTER = (1 << bit for bit in (0, 2, 4, 5, 10))
"""FADT, "Fixed Feature Flags" (table 5.10). Of buttons the bit says that there is none in fixed hardware."""

_LEGACY_DEVICES, _KEYBOARD_CONTROLLER, _NO_VGA = 1 << 0, 1 << 1, 1 << 2
"""FADT, "IA-PC Boot Architecture Flags" (table 5.11)."""

_NO_C2, _NO_C3 = 101, 1001
"""Latencies above which there is no such state (5.2.9: P_LVL2_LAT, P_LVL3_LAT)."""

_EVENT_SIZE, _CONTROL_SIZE, _TIMER_SIZE = 4, 2, 4
"""Bytes of the fixed register blocks (4.8.3)."""

_SYSTEM_MEMORY, _SYSTEM_IO = 0, 1
"""Address spaces (table 5.1)."""

_AML_NAME, _AML_PACKAGE, _AML_BYTE = 0x08, 0x12, 0x0A
"""ACPI 6.5, 20.2: NameOp, PackageOp, BytePrefix."""

_PCAT_COMPATIBLE = 1
_LOCAL_APIC, _IO_APIC, _OVERRIDE, _LOCAL_NMI, _LOCAL_X2APIC = 0, 1, 2, 4, 9
_ENABLED = 1
_ACTIVE_HIGH_LEVEL = 0b1101
_ALL_PROCESSORS = 0xFF
_NMI_INPUT = 1
"""MADT (5.2.12)."""

_XAPIC_IDS = 0xFF


@dataclass(frozen=True, slots=True)
class AcpiHardware:
    """What the tables tell of a machine. `apic_ids` are its processors' in the order in which they are to be used.

    Ports: PM1a event block (4 ports), PM1a control (2), power-management timer (4); `reset_value` written to `reset_port`
    resets. `soft_off` and `suspend` are the SLP_TYP of states S5 and S3. `sci_gsi` is a level-triggered line. `hpet_id` is the
    low half of the HPET's capabilities.
    """

    apic_ids: Sequence[int]
    local_apic_gpa: int
    ioapic_gpa: int
    ioapic_id: int
    timer_gsi: int
    sci_gsi: int
    event_port: int
    control_port: int
    timer_port: int
    reset_port: int
    reset_value: int
    soft_off: int
    suspend: int
    century: int
    hpet_gpa: int
    hpet_id: int


def acpi_tables(
    hardware: AcpiHardware, ram: Iterable[tuple[int, int]], kernel: Iterable[ImageSegment]
) -> tuple[ImageSegment, ...]:
    """The tables as a segment whose first bytes are the RSDP; none where the kernel itself, or no RAM, lies there."""
    data = _tables(hardware)
    end = TABLES_GPA + len(data)
    if end > HIGH_MEMORY_START or not any(gpa <= TABLES_GPA and gpa + size >= end for gpa, size in ram):
        return ()
    if any(segment.gpa < end and segment.end_gpa > TABLES_GPA for segment in kernel):
        return ()
    return (ImageSegment(TABLES_GPA, data, len(data), SegmentFlags.READ | SegmentFlags.WRITE, "ACPI tables"),)


def _tables(hardware: AcpiHardware) -> bytes:
    data = bytearray(RSDP_SIZE)

    def append(table: bytes, alignment: int = 16) -> int:
        """Put a table behind what is there: where it lies."""
        data.extend(bytes(-len(data) % alignment))
        data.extend(table)
        return TABLES_GPA + len(data) - len(table)

    facs = append(_facs(), FACS_OFFSET)
    dsdt = append(
        _table(b"DSDT", 2, _sleep_package("_S5_", hardware.soft_off) + _sleep_package("_S3_", hardware.suspend))
    )
    roots = [
        append(_fadt(hardware, facs, dsdt)),
        append(_table(b"APIC", _MADT_REVISION, _madt(hardware))),
        append(_table(b"HPET", 1, _hpet(hardware))),
    ]
    rsdt = append(_table(b"RSDT", 1, struct.pack(f"<{len(roots)}I", *roots)))
    xsdt = append(_table(b"XSDT", 1, struct.pack(f"<{len(roots)}Q", *roots)))
    data[:RSDP_SIZE] = _rsdp(rsdt, xsdt)
    return bytes(data)


def _rsdp(rsdt_gpa: int, xsdt_gpa: int) -> bytes:
    """Root system description pointer (5.2.5.3), with a checksum over each of its two lengths."""
    rsdp = bytearray(struct.pack("<8sB6sBIIQ4x", b"RSD PTR ", 0, _OEM, _RSDP_REVISION, rsdt_gpa, RSDP_SIZE, xsdt_gpa))
    rsdp[8] = -sum(rsdp[:RSDP_OLD_SIZE]) & 0xFF
    rsdp[32] = -sum(rsdp) & 0xFF
    return bytes(rsdp)


def _table(signature: bytes, revision: int, content: bytes) -> bytes:
    """A system description table: header (5.2.6) and content."""
    size = _HEADER.size + len(content)
    table = bytearray(_HEADER.pack(signature, size, revision, 0, _OEM, _OEM_TABLE, 1, b"BELL", 1) + content)
    table[9] = -sum(table) & 0xFF
    return bytes(table)


def _facs() -> bytes:
    """Firmware ACPI control structure (5.2.10), version 0: one waking vector, of 32 bits."""
    return struct.pack("<4sI56x", b"FACS", 64)


def _fadt(hardware: AcpiHardware, facs_gpa: int, dsdt_gpa: int) -> bytes:
    """Fixed ACPI description table (5.2.9): always in ACPI mode (SMI_CMD is 0), no general-purpose events, no C2 and C3."""
    event, control, timer = hardware.event_port, hardware.control_port, hardware.timer_port
    flags = _WBINVD | _PROC_C1 | _NO_POWER_BUTTON | _NO_SLEEP_BUTTON | _RESET_REGISTER
    boot = _LEGACY_DEVICES | _KEYBOARD_CONTROLLER | _NO_VGA
    none = bytes(12)
    content = b"".join(
        (
            struct.pack("<2I2xH8x", facs_gpa, dsdt_gpa, hardware.sci_gsi),
            struct.pack("<8I", event, 0, control, 0, 0, timer, 0, 0),
            struct.pack("<8B", _EVENT_SIZE, _CONTROL_SIZE, 0, _TIMER_SIZE, 0, 0, 0, 0),
            struct.pack("<4H4xB", _NO_C2, _NO_C3, 0, 0, hardware.century),
            struct.pack("<HxI", boot, flags),
            _register(_SYSTEM_IO, hardware.reset_port, 1),
            struct.pack("<B3x2Q", hardware.reset_value, facs_gpa, dsdt_gpa),
            *(_register(_SYSTEM_IO, event, _EVENT_SIZE), none),
            *(_register(_SYSTEM_IO, control, _CONTROL_SIZE), none, none),
            *(_register(_SYSTEM_IO, timer, _TIMER_SIZE), none, none),
        )
    )
    return _table(b"FACP", _FADT_REVISION, content)


def _madt(hardware: AcpiHardware) -> bytes:
    """Multiple APIC description table (5.2.12): processors, IOAPIC, where ISA's lines lead otherwise than 1:1, NMIs on LINT1."""
    processors = b"".join(
        struct.pack("<4BI", _LOCAL_APIC, 8, number & 0xFF, apic_id, _ENABLED)
        if apic_id < _XAPIC_IDS
        else struct.pack("<2B2x3I", _LOCAL_X2APIC, 16, apic_id, _ENABLED, number)
        for number, apic_id in enumerate(hardware.apic_ids)
    )
    return b"".join(
        (
            struct.pack("<2I", hardware.local_apic_gpa, _PCAT_COMPATIBLE),
            processors,
            struct.pack("<4B2I", _IO_APIC, 12, hardware.ioapic_id, 0, hardware.ioapic_gpa, 0),
            struct.pack("<4BIH", _OVERRIDE, 10, 0, 0, hardware.timer_gsi, 0),
            struct.pack("<4BIH", _OVERRIDE, 10, 0, hardware.sci_gsi, hardware.sci_gsi, _ACTIVE_HIGH_LEVEL),
            struct.pack("<3BHB", _LOCAL_NMI, 6, _ALL_PROCESSORS, 0, _NMI_INPUT),
        )
    )


def _hpet(hardware: AcpiHardware) -> bytes:
    """HPET description table (IA-PC HPET Specification 1.0a, 3.2.4)."""
    return struct.pack("<I", hardware.hpet_id) + _register(_SYSTEM_MEMORY, hardware.hpet_gpa, 0) + bytes(4)


def _sleep_package(name: str, sleep_type: int) -> bytes:
    """AML: a sleep state's object at the root (7.4.2), a package of what goes into SLP_TYP of the two control registers."""
    elements = bytes((4, _AML_BYTE, sleep_type, _AML_BYTE, 0, 0, 0))
    return bytes((_AML_NAME, *b"\\", *name.encode(), _AML_PACKAGE, 1 + len(elements))) + elements


def _register(space: int, address: int, size: int) -> bytes:
    """A generic address structure (5.2.3.2) of `size` bytes; 0: a block of registers."""
    return struct.pack("<4BQ", space, 8 * size, 0, size.bit_length(), address)
