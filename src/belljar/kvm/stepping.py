"""Stepping as a guest does not notice, beyond what KVM does for it.

KVM steps with the guest's own trap flag (KVM_GUESTDBG_SINGLESTEP, api.rst 4.87), and hides that from nobody but the host: an
exception in a step leaves RFLAGS with TF on the guest's stack, and the handler's IRET, when nobody steps any more, ends in a
#DB that the guest never asked for. And where KVM's emulator executes a HLT in a step, the halt comes later, behind whatever
is executed next, or never.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from belljar.exits import Debug
from belljar.kvm.abi.flags import KVM_VCPUEVENT_VALID_SHADOW
from belljar.x86.code import code_bits, halt_length, linear_pc
from belljar.x86.control import Cr0, Efer
from belljar.x86.debug import DR6_RESET, DR7_RESET, Dr6
from belljar.x86.flags import Rflags
from belljar.x86.tss import TSS32, TSS64, TSS_SIZE, TssField, decode_tss
from belljar.x86.vectors import Vector

if TYPE_CHECKING:
    from belljar.kvm.engine_vcpu import KvmVcpu

LONGEST_INSTRUCTION = 15
"""Bytes (SDM 2A 2.3.11)."""

PAGE = 0x1000
RPL = 3
U64 = (1 << 64) - 1


class Memory(Protocol):
    """Guest-physical memory."""

    def read(self, gpa: int, size: int) -> bytes:
        """Bytes from one region; empty where there is none."""

    def write(self, gpa: int, data: bytes) -> None:
        """Bytes to one region, if there is one that may be written."""


class PushedFlags:
    """The stacks on which delivering an event in a step may put RFLAGS; made before the step."""

    def __init__(self, vcpu: KvmVcpu, memory: Memory) -> None:
        self._vcpu = vcpu
        self._memory = memory
        self._registers = vcpu.get_registers()
        self._special = vcpu.get_special()

    def clear(self) -> None:
        """After the step: the frame that was pushed in it, if any, is as without stepping."""
        for flags_gva, size in self._places():
            if self._is_frame(flags_gva, size):
                second = flags_gva + 1  # TF is in the second byte
                flags = self._read(second, 1) & ~(Rflags.TF >> 8)
                self._memory.write(self._vcpu.translate(second).gpa, bytes([flags]))
                return

    def _places(self) -> Iterator[tuple[int, int]]:
        """Where RFLAGS would be, and its size in bytes (SDM 3A 6.12.1, 6.14.2)."""
        special, rsp = self._special, self._registers.rsp
        outer = special.cs.selector & RPL != 0
        if special.efer & Efer.LMA:
            tss = self._tss(TSS64)
            tops = [tss.get(f"ist{number}", 0) for number in range(1, 8)]
            tops.append(tss.get("rsp0", 0) if outer else rsp & ~0xF)
            for top in tops:
                yield top - 24, 8
            return
        base_gva = self._vcpu.get_special().ss.base
        if not special.cr0 & Cr0.PE:
            yield base_gva + (rsp - 2 & 0xFFFF), 2
            return
        top = self._tss(TSS32).get("esp0", 0) if outer else rsp
        for size in (4, 2):  # a gate of 32 bits or of 16
            yield base_gva + top - size * (3 if outer else 1) & 0xFFFF_FFFF, size

    def _tss(self, layout: tuple[TssField, ...]) -> dict[str, int]:
        return decode_tss(read(self._vcpu, self._memory, self._special.tr.base, TSS_SIZE), layout)

    def _is_frame(self, flags_gva: int, size: int) -> bool:
        """Whether the step's instruction was interrupted there, or went to a handler by itself."""
        behind = self._read(flags_gva - 2 * size, size) - self._registers.rip
        return (
            behind % (1 << 8 * size) <= LONGEST_INSTRUCTION
            and self._read(flags_gva - size, size) & 0xFFFF == self._special.cs.selector
            and bool(self._read(flags_gva, size) & Rflags.TF)
        )

    def _read(self, gva: int, size: int) -> int:
        return int.from_bytes(read(self._vcpu, self._memory, gva, size), "little")


def step_over_halt(vcpu: KvmVcpu, memory: Memory) -> Debug | None:
    """Put a vCPU that is about to execute a HLT behind it, and say what a step says; None: it is about to do something else."""
    special, registers = vcpu.get_special(), vcpu.get_registers()
    if special.cr0 & Cr0.PE and (special.cs.selector & RPL or registers.rflags & Rflags.VM):
        return None  # #GP
    pc_gva, bits = linear_pc(special, registers.rip), code_bits(special)
    length = halt_length(read(vcpu, memory, pc_gva, LONGEST_INSTRUCTION), bits)
    events = vcpu.raw.get_events()
    exception = events.exception
    if not length or exception.pending or exception.injected or events.interrupt.injected or events.nmi.injected:
        return None
    if events.interrupt.shadow:
        events.interrupt.shadow = 0
        events.flags |= KVM_VCPUEVENT_VALID_SHADOW
        vcpu.raw.set_events(events)
    registers.rip = registers.rip + length & (1 << max(bits, 32)) - 1
    vcpu.set_registers(registers)
    return Debug(vcpu.index, Vector.DB, pc_gva + length, DR6_RESET | Dr6.BS, DR7_RESET)


def read(vcpu: KvmVcpu, memory: Memory, gva: int, size: int) -> bytes:
    """What lies there, without what is behind the first page that is not RAM."""
    found = b""
    while len(found) < size:
        at = gva + len(found) & U64
        answer = vcpu.translate(at)
        piece = memory.read(answer.gpa, min(size - len(found), PAGE - at % PAGE)) if answer.valid else b""
        if not piece:
            break
        found += piece
    return found
