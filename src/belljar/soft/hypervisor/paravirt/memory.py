"""Structures that a guest has in its memory for the hypervisor: read and written where there is RAM, refused elsewhere."""

from __future__ import annotations

from belljar.soft.hypervisor.mmu.mmu import Mmu


def host_address(mmu: Mmu, gpa: int, size: int) -> int | None:
    """The host-physical address of `size` bytes of RAM that the guest may write; None if there are no such."""
    slot = mmu.find(gpa)
    if slot is None or slot.readonly or gpa + size > slot.gpa + slot.size:
        return None
    return slot.hpa + gpa - slot.gpa


def read(mmu: Mmu, gpa: int, size: int) -> bytes | None:
    """Bytes; None if they are not all RAM."""
    hpa = host_address(mmu, gpa, size)
    return None if hpa is None else mmu.memory.read(hpa, size)


def write(mmu: Mmu, gpa: int, data: bytes) -> bool:
    """Store bytes; False, and nothing stored, if they are not all RAM."""
    hpa = host_address(mmu, gpa, len(data))
    if hpa is None:
        return False
    mmu.memory.write(hpa, data)
    return True


def read_u32(mmu: Mmu, gpa: int) -> int | None:
    """A 32-bit number."""
    data = read(mmu, gpa, 4)
    return None if data is None else int.from_bytes(data, "little")


def write_u32(mmu: Mmu, gpa: int, value: int) -> bool:
    """Store a 32-bit number."""
    return write(mmu, gpa, (value & 0xFFFF_FFFF).to_bytes(4, "little"))
