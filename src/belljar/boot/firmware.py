"""Firmware, of a PC that kernels are put into without any: code at the processor's start address, in the last page below 4 GiB.

A processor comes there by INIT (SDM 3A table 10-1). In ACPI's S3 it waits for the next one; after waking it goes to the vector
that the guest left in the FACS, as ACPI 6.5, 16.3.2 says: in real mode, at CS:IP = vector >> 4 : vector & FH, all data segments
0 but FS. There is nothing else to start: it halts for good.
"""

from __future__ import annotations

from belljar.boot.acpi import FACS_OFFSET, TABLES_GPA, AcpiHardware

ROM_GPA = 0xFFFF_F000
ROM_SIZE = 0x1000
_START = 0xFF0
"""Where in it a processor starts, at F000:FFF0."""

_VECTOR, _TARGET = FACS_OFFSET + 12, FACS_OFFSET + 40
"""In the segment of the tables: Firmware_Waking_Vector, and bytes of the FACS that are reserved, for a far pointer."""


def rom(hardware: AcpiHardware, *, sleep_type: int, woken: int) -> bytes:
    """The page, for these masks of PM1's registers (ACPI 6.5, 4.8.3).

    `sleep_type` is SLP_TYP, a field of the control register; `woken` WAK_STS, in the upper half of the status register.
    """
    control, status, suspended = (
        hardware.control_port,
        hardware.event_port,
        hardware.suspend * (sleep_type & -sleep_type),
    )
    code = bytes.fromhex(
        f"fa ba{_word(control)} ed"  # cli; mov dx, control; in ax, dx
        f"25{_word(sleep_type)} 3d{_word(suspended)} 7513"  # and ax, SLP_TYP; cmp ax, suspended; jne nothing
        f"ba{_word(status)} ed f6c4{woken >> 8:02x} 750e"  # mov dx, status; in ax, dx; test ah, WAK_STS; jnz awake
        "b0ff e621 e6a1"  # mov al, 0xff; out 0x21, al; out 0xa1, al: the 8259s are masked
        "fb f4 ebfd"  # sti; sleep: hlt; jmp sleep
        "fa f4 ebfc"  # nothing: cli; hlt; jmp nothing
        f"b8{_word(TABLES_GPA >> 4)} 8ee0"  # awake: mov ax, tables; mov fs, ax
        f"6466a1{_word(_VECTOR)}"  # mov eax, fs:[vector]
        f"6689c3 83e30f 64891e{_word(_TARGET)}"  # mov ebx, eax; and bx, 15; mov fs:[target], bx
        f"66c1e804 64a3{_word(_TARGET + 2)}"  # shr eax, 4; mov fs:[target + 2], ax
        f"64ff2e{_word(_TARGET)}"  # jmp far fs:[target]
    )
    page = bytearray(code.ljust(ROM_SIZE, b"\xf4"))
    page[_START : _START + 3] = bytes.fromhex("e90df0")  # jmp F000:F000
    return bytes(page)


def _word(value: int) -> str:
    """16 bits as they lie in code."""
    return value.to_bytes(2, "little").hex()
