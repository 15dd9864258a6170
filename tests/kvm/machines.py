"""Small guests on the KVM engine: a recording bus, and a vCPU in real mode."""

from __future__ import annotations

from belljar.kvm.engine import KvmEngine, KvmVm
from belljar.kvm.engine_vcpu import KvmVcpu
from belljar.memory import GuestMemory
from belljar.x86.state import CpuState, Registers, Segment, SpecialRegisters
from kvm.guest import CODE_GPA

MEMORY_SIZE = 0x10000


class RecordingBus:
    """Remembers what came, in order; answers reads with `answer`. `output` is what single and batched writes spell."""

    def __init__(self, answer: int = 0x5A) -> None:
        self.answer = answer
        self.calls: list[tuple[object, ...]] = []
        self.output = bytearray()

    def port_read(self, port: int, size: int) -> int:
        self.calls.append(("in", port, size))
        return self.answer

    def port_write(self, port: int, size: int, value: int) -> None:
        self.calls.append(("out", port, size, value))
        self.output += value.to_bytes(size, "little")

    def port_read_block(self, port: int, size: int, count: int) -> bytes:
        self.calls.append(("ins", port, size, count))
        return bytes(number & 0xFF for number in range(1, size * count + 1))

    def port_write_block(self, port: int, size: int, data: bytes) -> None:
        self.calls.append(("outs", port, size, data))
        self.output += data

    def mmio_read(self, gpa: int, size: int) -> int:
        self.calls.append(("load", gpa, size))
        return self.answer

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        self.calls.append(("store", gpa, size, value))


def real_mode(**registers: int) -> CpuState:
    """Real mode with segments at 0, at `CODE_GPA`."""
    values = {"rip": CODE_GPA, "rsp": CODE_GPA, **registers}
    return CpuState(Registers(**values), SpecialRegisters(cs=Segment(type=11)))


class Small:
    """64 KiB of memory, one vCPU (more on request), a program; a context manager."""

    def __init__(self, engine: KvmEngine, code: bytes, **registers: int) -> None:
        self.memory = GuestMemory()
        self.vm: KvmVm = engine.create_vm()
        self.vm.map(self.memory.add(0, MEMORY_SIZE, name="ram"))
        self.memory.write(CODE_GPA, code)
        self.bus = RecordingBus()
        self.vcpu = self.add_vcpu(0, **registers)

    def add_vcpu(self, index: int, **registers: int) -> KvmVcpu:
        vcpu = self.vm.create_vcpu(index)
        vcpu.set_state(real_mode(**registers), "real")
        return vcpu

    def restart(self, code: bytes, **registers: int) -> None:
        """Another program, from its start."""
        self.memory.write(CODE_GPA, code)
        self.vcpu.set_state(real_mode(**registers), "real")

    def __enter__(self) -> Small:
        return self

    def __exit__(self, *error: object) -> None:
        self.vm.close()
        self.memory.close()
