"""Hyper-V's interface on KVM: the kernel serves it; here it is switched on and told to the guest (api.rst 4.118, 8.29)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from belljar.errors import CapabilityMissing, FeatureUnsupported, KvmCallFailed
from belljar.kvm.abi import caps
from belljar.kvm.abi.structs import kvm_cpuid2, kvm_cpuid_entry2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from belljar.kvm.abi.run import kvm_hyperv_exit
    from belljar.kvm.system import Kvm

HYPERVISOR_LEAF, HYPERVISOR_END = 0x4000_0000, 0x4000_0100
KVM_LEAF = 0x4000_0100
"""Where KVM's own leaves go when Hyper-V's take their place; guests look for them at every multiple of 100H."""

NESTED_LEAF = 0x4000_000A
"""Nested virtualization, which is not offered to guests."""

EXIT_SYNIC, EXIT_HCALL = 1, 2
"""KVM_EXIT_HYPERV_* (api.rst section 5)."""

HCALL_RESULT = 1
"""Where the result is behind `type`: input, result, params[2]."""

HV_STATUS_INVALID_CONNECTION_ID = 18
"""TLFS, appendix on status codes: nothing is connected."""

_ENTRY = Struct("<7I12x")


def cpuid_table(kvm: Kvm, base: bytes) -> bytes:
    """The table of a guest with both interfaces. Raises FeatureUnsupported where this host's KVM has not Hyper-V's."""
    try:
        kvm.require(caps.KVM_CAP_HYPERV_SYNIC2)
        leaves = kvm.supported_hyperv_cpuid()
    except (CapabilityMissing, KvmCallFailed) as error:
        raise FeatureUnsupported(
            f"this host's KVM has no Hyper-V interface for guests: {error.message}", hint="`--engine soft` has one"
        ) from None
    return merge(base, (bytes(leaf) for leaf in leaves))


def merge(base: bytes, leaves: Iterable[bytes]) -> bytes:
    """Hyper-V's leaves in front, KVM's 100H behind."""
    entries = [base[at : at + _ENTRY.size] for at in range(kvm_cpuid2.size, len(base), _ENTRY.size)]
    moved = [_moved(entry) for entry in entries]
    front = [leaf for leaf in leaves if _ENTRY.unpack(leaf)[0] != NESTED_LEAF]
    tail = b"".join(front + moved)
    return bytes(kvm_cpuid2.with_tail(tail, nent=len(tail) // kvm_cpuid_entry2.size))


def _moved(entry: bytes) -> bytes:
    function, index, flags, eax, ebx, ecx, edx = _ENTRY.unpack(entry)
    if not HYPERVISOR_LEAF <= function < HYPERVISOR_END:
        return entry
    if function == HYPERVISOR_LEAF:
        eax = max(eax, HYPERVISOR_LEAF + 1) - HYPERVISOR_LEAF + KVM_LEAF
    return _ENTRY.pack(function - HYPERVISOR_LEAF + KVM_LEAF, index, flags, eax, ebx, ecx, edx)


def serve(exit: kvm_hyperv_exit) -> bool:
    """KVM_EXIT_HYPERV: the guest has changed its SynIC's pages, or called for a connection, of which there are none."""
    if exit.type == EXIT_HCALL:
        exit.u = (*exit.u[:HCALL_RESULT], HV_STATUS_INVALID_CONNECTION_ID, *exit.u[HCALL_RESULT + 1 :])
    return exit.type in (EXIT_SYNIC, EXIT_HCALL)
