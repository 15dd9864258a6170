"""CPUID of a machine: its vCPUs are the cores of one package, and each knows its own number."""

from __future__ import annotations

import pytest

from belljar.machine import End, Machine

RAX, RBX, RCX, RDX = "rax", "rbx", "rcx", "rdx"


def cpuid(leaf: int, subleaf: int, *, cpus: int, irqchip: str | None) -> tuple[int, int, int, int]:
    """What the first vCPU is told."""
    code = bytes.fromhex("0fa2 f4")
    with Machine(
        code, mode="long", engine="soft", cpus=cpus, irqchip=irqchip, registers={RAX: leaf, RCX: subleaf}
    ) as machine:
        assert machine.run(timeout=5).end is End.HALT
        registers = machine.cpu.registers
        return registers.rax, registers.rbx, registers.rcx, registers.rdx


@pytest.mark.parametrize(("cpus", "bits"), [(1, 0), (2, 1), (3, 2), (8, 3)])
def test_the_x2apic_leaf_tells_threads_then_cores_then_nothing(cpus, bits):
    assert cpuid(0xB, 0, cpus=cpus, irqchip="user") == (0, 1, 0x100, 0)
    assert cpuid(0xB, 1, cpus=cpus, irqchip="user") == (bits, cpus, 0x201, 0)
    assert cpuid(0xB, 2, cpus=cpus, irqchip="user") == (0, 0, 2, 0)


@pytest.mark.parametrize(("cpus", "ids"), [(1, 0), (3, 4), (4, 4)])
def test_the_feature_leaf_counts_apic_ids_where_there_are_several(cpus, ids):
    _, ebx, ecx, edx = cpuid(1, 0, cpus=cpus, irqchip="user")
    assert (ebx >> 16 & 0xFF, edx >> 28 & 1) == (ids, int(cpus > 1))
    assert ecx >> 21 & 1
    assert edx >> 9 & 1


@pytest.mark.parametrize(("cpus", "cores"), [(1, 1), (3, 4)])
def test_caches_tell_how_many_cores_there_are(cpus, cores):
    for subleaf, kind in enumerate((1, 2, 3)):
        eax = cpuid(4, subleaf, cpus=cpus, irqchip="user")[0]
        assert (eax & 0x1F, eax >> 14 & 0xFFF, (eax >> 26) + 1) == (kind, 0, cores)
    assert cpuid(4, 3, cpus=cpus, irqchip="user") == (0, 0, 0, 0)
