"""A guest of a few bytes in real mode, made with the binding alone."""

from __future__ import annotations

import mmap
import time

import pytest

from belljar.errors import CapabilityMissing
from belljar.kvm import Vm, _calls
from belljar.kvm._descriptor import Capable

CODE_GPA = 0x1000
MEMORY_SIZE = 0x10000
HLT = b"\xf4"
SPIN = b"\xeb\xfe"  # jmp $
VMCALL_FOREVER = b"\x0f\x01\xc1\xeb\xfb"  # again: vmcall; jmp again
LIMIT_NS = 10_000_000_000


class Guest:
    """64 KiB of memory at 0 and a vCPU at `CODE_GPA`, CS base 0."""

    def __init__(self, vm: Vm, *, index: int = 0, flags: int = 0, slot: int = 0) -> None:
        self.vm = vm
        self.memory = mmap.mmap(-1, MEMORY_SIZE)
        vm.set_memory_region(slot, 0, MEMORY_SIZE, _calls.address_of(self.memory), flags)
        self.vcpu = vm.create_vcpu(index)
        self.vcpu.set_cpuid(vm.kvm.supported_cpuid())

    def load(self, code: bytes, **registers: int) -> None:
        """Put a program at `CODE_GPA` and the vCPU in front of it."""
        self.memory[CODE_GPA : CODE_GPA + len(code)] = code
        sregs = self.vcpu.get_sregs()
        for name in ("cs", "ds", "es", "ss"):
            segment = getattr(sregs, name)
            segment.base = segment.selector = 0
        self.vcpu.set_sregs(sregs)
        regs = self.vcpu.get_regs()
        for name, value in {"rip": CODE_GPA, "rsp": CODE_GPA, "rflags": 2, **registers}.items():
            setattr(regs, name, value)
        self.vcpu.set_regs(regs)

    def run_to(self, reason: int) -> None:
        """Run until this exit; any other fails the test."""
        assert self.vcpu.run() == reason

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *error: object) -> None:
        self.vcpu.close()


def need(thing: Capable, capability: int) -> int:
    """Skip, with the reason, where this host lacks a capability; else what it answers."""
    try:
        return thing.require(capability)
    except CapabilityMissing as error:
        pytest.skip(error.message)


def deadline() -> int:
    """A time that no test should come near."""
    return time.monotonic_ns() + LIMIT_NS
