"""MSRs as a bare guest reads and writes them."""

from __future__ import annotations

from bare_guest import RAX, RCX, RDX

STAR, LSTAR, FMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX, EFER = (
    0xC0000081, 0xC0000082, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102, 0xC0000103, 0xC0000080,
)  # fmt: skip


def wrmsr(guest, index, value):
    """Write an MSR as the guest does: the outcome."""
    guest.cpu.put(RCX, index)
    guest.cpu.put(RAX, value & 0xFFFFFFFF)
    guest.cpu.put(RDX, value >> 32)
    return guest.run("0f30 wrmsr\nf4 hlt")


def rdmsr(guest, index):
    """Read an MSR as the guest does; None if that faults."""
    guest.cpu.put(RCX, index)
    end = guest.run("0f32 rdmsr\nf4 hlt")
    return None if end.vector else end.registers[RDX] << 32 | end.registers[RAX]
