"""Answers from any engine of `belljar.engine`: on `kvm` the real CPU (CPL 3) or the kernel's emulator (CPL 0)."""

from __future__ import annotations

import ctypes
import mmap
import struct
import time
from dataclasses import dataclass, replace
from types import TracebackType

from belljar.engine import Engine
from belljar.errors import BelljarError
from belljar.exits import ExitReason, InternalError
from belljar.x86.state import GENERAL_REGISTERS, SEGMENT_REGISTERS, Registers

from .cases import PAGE, Case, Outcome, Stop, Stuck, Unsupported
from .worlds import FILLER, HANDLERS, VECTORS_WITH_ERROR_CODE, world

BUDGET_NS = 20_000_000
"""What a case may take on an engine that cannot count instructions: two hundred times what it needs."""


@dataclass
class PlainRegion:
    """Anonymous shared memory with the face of `engine.MemoryRegion`."""

    gpa: int
    size: int
    slot: int = 0
    readonly: bool = False
    log_dirty: bool = False

    def __post_init__(self) -> None:
        self.map = mmap.mmap(-1, self.size)
        self.hva = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.view = memoryview(self.map)


class RecordingBus:
    """Devices that answer by their address, and remember what was asked of them in order."""

    def __init__(self) -> None:
        self.log: list[tuple[object, ...]] = []

    def port_read(self, port: int, size: int) -> int:
        self.log.append(("in", port, size))
        return answer(port, size)

    def port_write(self, port: int, size: int, value: int) -> None:
        self.log.append(("out", port, size, value))

    def port_read_block(self, port: int, size: int, count: int) -> bytes:
        self.log.extend(("in", port, size) for _ in range(count))
        return answer(port, size).to_bytes(size, "little") * count

    def port_write_block(self, port: int, size: int, data: bytes) -> None:
        for at in range(0, len(data), size):
            self.log.append(("out", port, size, int.from_bytes(data[at : at + size], "little")))

    def mmio_read(self, gpa: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        pass


def answer(port: int, size: int) -> int:
    """What the recording bus gives for IN: noise that depends on the port."""
    return (port * 0x9E3779B1 ^ 0xA5C3F00F) & ((1 << 8 * size) - 1)


class EngineOracle:
    """One world kept alive on one engine; `ask` resets it to the case and runs it. A context manager.

    `instructions` limits a case where the engine can count, `budget_ns` (wall clock) where it cannot.
    """

    def __init__(self, engine: Engine, world_name: str, *, instructions: int | None = None) -> None:
        self.engine, self.world = engine, world(world_name)
        self.instructions = instructions
        self.registers = Registers()
        self._start()

    def _start(self) -> None:
        self.vm = self.engine.create_vm()
        self.region = PlainRegion(0, len(self.world.memory))
        self.region.view[:] = self.world.memory
        self.vm.map(self.region)
        self.vcpu = self.vm.create_vcpu(0)
        self.dirty: dict[int, bytes] = {}
        self.bus = RecordingBus()

    def __enter__(self) -> EngineOracle:
        try:
            self.vcpu.set_state(self.world.state, self.world.name)
        except BelljarError as error:
            self.close()
            raise Unsupported(f"{self.engine.name} has no {self.world.name}: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the VM back."""
        self.vm.close()

    def _restart(self) -> None:
        """A new VM after one that ended in a state no register write leaves (shutdown, internal error)."""
        self.vm.close()
        self._start()
        self.vcpu.set_state(self.world.state, self.world.name)

    def _prepare(self, case: Case) -> None:
        base = self.world.memory
        for start, size in self.world.windows:
            self.region.view[start : start + size] = base[start : start + size]
        state = self.world.state
        offset = state.registers.rip if case.offset is None else case.offset
        at = self.world.linear("cs", offset)
        self.region.view[at : at + len(case.code)] = case.code
        for address, data in case.memory.items():
            self.region.view[address : address + len(data)] = data
        self.before = [bytes(self.region.view[start : start + size]) for start, size in self.world.windows]
        self.vcpu.set_special(state.special)
        self.vcpu.set_registers(replace(state.registers, rip=offset, rflags=case.rflags, **case.registers))

    def ask(self, case: Case) -> Outcome:
        """Run one case. Raises Unsupported where the engine gives up on the instruction, Stuck past the budget."""
        self.bus.log.clear()
        self._prepare(case)
        if self.instructions is None:
            reason = self.vcpu.run(self.bus, deadline_ns=time.monotonic_ns() + BUDGET_NS)
        else:
            reason = self.vcpu.run(self.bus, instructions=self.instructions)
        if reason is ExitReason.HLT:
            return self._outcome()
        if reason is ExitReason.SHUTDOWN:
            registers = self.vcpu.get_registers()
            self._restart()
            return Outcome(Stop.SHUTDOWN, (0,) * 16, 0, registers.rflags & 0)
        last = self.vcpu.last_exit()
        self._restart()
        if reason in (ExitReason.INTERRUPTED, ExitReason.INSTRUCTION_LIMIT):
            raise Stuck(f"{case!r} ran into its budget")
        what = last.instruction.hex() if isinstance(last, InternalError) else ""
        raise Unsupported(f"{self.engine.name} gives up: {reason.label} {what}")

    def _outcome(self) -> Outcome:
        registers = self.vcpu.get_registers()
        special = self.vcpu.get_special()
        values = [getattr(registers, name) for name in GENERAL_REGISTERS]
        rip, rflags = registers.rip - 1, registers.rflags
        selectors = [getattr(special, name).selector for name in SEGMENT_REGISTERS]
        stop, vector, error, cr2 = Stop.HALT, None, None, None
        if special.cs.base == 0 and HANDLERS <= rip < HANDLERS + 256:
            stop, vector = Stop.FAULT, rip - HANDLERS
            has_error = vector in VECTORS_WITH_ERROR_CODE and self.world.name != "real"
            frame = self._pop_frame(special.ss.base, values[4], 1 if has_error else 0)
            error = frame[0] if has_error else None
            rip, selectors[1], rflags = frame[has_error : has_error + 3]
            values[4] = frame[3 + has_error] if self.world.long_mode else frame[-1]
            if self.world.long_mode:
                selectors[2] = frame[4 + has_error]
            cr2 = special.cr2 if vector == 14 else None
            if self._is_filler(vector, error, rip):
                stop, vector, error = Stop.HALT, None, None
        bases = (special.fs.base, special.gs.base)
        return Outcome(
            stop, tuple(values), rip, rflags, vector, error, cr2, tuple(selectors), bases, self._changes(),
            tuple(self.bus.log),
        )  # fmt: skip

    def _is_filler(self, vector: int, error: int | None, rip: int) -> bool:
        """Whether a fault is only the HLT behind the code, which CPL 3 may not execute: the ordinary end of a case."""
        if self.world.cpl == 0 or vector != 13 or error != 0 or rip >= len(self.world.memory):
            return False
        return bool(self.region.view[self.world.linear("cs", rip)] == FILLER)

    def _pop_frame(self, ss_base: int, sp: int, error: int) -> list[int]:
        """The words the processor pushed, in ascending order, then the stack pointer before them; erased where found."""
        if self.world.long_mode:
            return list(struct.unpack_from(f"<{5 + error}Q", self.region.view, sp))
        size = 2 if self.world.name == "real" else 4
        mask = 0xFFFF if self.world.bits == 16 else 0xFFFFFFFF
        words = []
        for index in range(3 + error):
            at = ss_base + ((sp + index * size) & mask)
            words.append(int.from_bytes(self.region.view[at : at + size], "little"))
            self._erase(at, size)
        top = (sp & ~mask) | (sp + (3 + error) * size & mask)
        return [*words, top]

    def _erase(self, at: int, size: int) -> None:
        for (start, length), before in zip(self.world.windows, self.before, strict=True):
            if start <= at and at + size <= start + length:
                self.region.view[at : at + size] = before[at - start : at - start + size]

    def _changes(self) -> dict[int, bytes]:
        """The pages that the case changed, by linear address."""
        changed = {}
        for (start, size), before in zip(self.world.windows, self.before, strict=True):
            after = bytes(self.region.view[start : start + size])
            if after == before:
                continue
            for page in range(0, size, PAGE):
                if after[page : page + PAGE] != before[page : page + PAGE]:
                    changed[start + page] = after[page : page + PAGE]
        return changed
