"""What the kernel says of its KVM on this host, without anything being run."""

from __future__ import annotations

from belljar.kvm.system import Kvm
from belljar.records import dataclass

DEFAULT_VCPUS = 4
"""How many vCPUs there can be where the kernel does not say (api.rst 4.7)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """As the kernel gives them: `run_page_size` in bytes, `memory_slots` and vCPUs a VM, `capabilities` by name."""

    device: str
    api_version: int
    run_page_size: int
    recommended_vcpus: int
    max_vcpus: int
    memory_slots: int
    capabilities: dict[str, int]


def ask(kvm: Kvm) -> Facts:
    """Ask for everything. Raises KvmCallFailed, ClosedError."""
    capabilities = kvm.capabilities()
    recommended = capabilities["KVM_CAP_NR_VCPUS"] or DEFAULT_VCPUS
    return Facts(
        kvm.path,
        kvm.api_version,
        kvm.vcpu_mmap_size,
        recommended,
        capabilities["KVM_CAP_MAX_VCPUS"] or recommended,
        capabilities["KVM_CAP_NR_MEMSLOTS"],
        capabilities,
    )
