"""Hyper-V's interface on KVM: the CPUID table with both interfaces, and the exits that are the machine's to serve."""

from __future__ import annotations

from struct import pack, unpack

import pytest

from belljar.kvm.abi.run import kvm_hyperv_exit
from belljar.kvm.abi.structs import kvm_cpuid2, kvm_cpuid_entry2
from belljar.kvm.hyperv import EXIT_HCALL, EXIT_SYNIC, HV_STATUS_INVALID_CONNECTION_ID, merge, serve


def entry(function: int, *values: int) -> bytes:
    return pack("<7I12x", function, 0, 0, *(*values, 0, 0, 0, 0)[:4])


def test_kvms_leaves_move_behind_those_of_hyperv() -> None:
    own = entry(1, 5) + entry(0x4000_0000, 0x4000_0001, 0x4B4D564B) + entry(0x4000_0001, 0xFF)
    base = bytes(kvm_cpuid2.with_tail(own, nent=3))
    leaves = [entry(0x4000_0000, 0x4000_000A), entry(0x4000_0001, 0x31237648), entry(0x4000_000A, 1)]
    table = merge(base, leaves)
    assert unpack("<I", table[:4]) == (5,)
    entries = [unpack("<7I", table[at : at + 28]) for at in range(kvm_cpuid2.size, len(table), kvm_cpuid_entry2.size)]
    found = {function: eax for function, _, _, eax, *_ in entries}
    assert found == {
        0x4000_0000: 0x4000_000A,
        0x4000_0001: 0x31237648,
        1: 5,
        0x4000_0100: 0x4000_0101,
        0x4000_0101: 0xFF,
    }


@pytest.mark.parametrize(("kind", "served", "result"), [(EXIT_SYNIC, True, 7), (EXIT_HCALL, True, 18), (3, False, 7)])
def test_exits_of_hyperv_are_served_without_connections(kind: int, served: bool, result: int) -> None:
    exit = kvm_hyperv_exit(type=kind, u=(5, 7, 0, 0, 0, 0))
    assert serve(exit) is served
    assert exit.u[1] == result
    assert HV_STATUS_INVALID_CONNECTION_ID == 18
