"""/dev/kvm: what this host's KVM can do, and where VMs come from."""

from __future__ import annotations

import os
from errno import E2BIG, EACCES, EINTR, ENODEV, ENOENT, ENXIO, EPERM

from belljar.errors import KvmIncompatible, KvmMissing, KvmPermissionDenied
from belljar.kvm import _calls
from belljar.kvm._descriptor import Capable
from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.flags import KVM_API_VERSION, KVM_X86_DEFAULT_VM
from belljar.kvm.abi.structs import kvm_cpuid2, kvm_cpuid_entry2, kvm_device_attr, kvm_msr_list, kvm_msrs
from belljar.kvm.msrs import msr_table
from belljar.kvm.vm import Vm

DEVICE = "/dev/kvm"

ENOUGH_CPUID_ENTRIES = 256
"""More than the kernel's own limit, KVM_MAX_CPUID_ENTRIES."""


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (ENOENT, ENODEV, ENXIO):
            raise KvmMissing(
                f"there is no {path}",
                hint="turn on virtualization in the firmware and load kvm_intel or kvm_amd; in a container, pass the "
                "device in; or use `--engine soft`",
            ) from None
        if error.errno in (EACCES, EPERM):
            raise KvmPermissionDenied(
                f"this user may not open {path}",
                hint="join the group that owns it (`sudo usermod -aG kvm $USER`) and log in anew",
            ) from None
        raise KvmIncompatible(f"{path} cannot be opened: {os.strerror(error.errno or 0)}") from None


class Kvm(Capable):
    """The KVM system: capabilities, what CPUs and MSRs a guest can have, and VMs.

    Raises KvmMissing, KvmPermissionDenied, or KvmIncompatible where `path` is not KVM with API version 12 (api.rst 4.1).
    """

    what = "this KVM system"

    def __init__(self, path: str = DEVICE) -> None:
        self.path = path
        super().__init__(_open(path))
        self._vcpu_mmap_size = 0
        version = self.attempt(ioctls.KVM_GET_API_VERSION)
        if version != KVM_API_VERSION:
            self.close()
            said = f"answers API version {version}" if version >= 0 else "is not KVM"
            raise KvmIncompatible(f"{path} {said}, not KVM's API version {KVM_API_VERSION}")

    @property
    def api_version(self) -> int:
        """Always 12: another would not have been opened."""
        return self.call(ioctls.KVM_GET_API_VERSION)

    def capabilities(self) -> dict[str, int]:
        """The answer for every capability known here, by the kernel's name; 0 for those that are lacking."""
        return {name: self.check(number) for name, number in caps.all_capabilities().items()}

    @property
    def vcpu_mmap_size(self) -> int:
        """The size in bytes of a vCPU's shared mapping (api.rst 4.5)."""
        if not self._vcpu_mmap_size:
            self._vcpu_mmap_size = self.call(ioctls.KVM_GET_VCPU_MMAP_SIZE)
        return self._vcpu_mmap_size

    def create_vm(self, kind: int = KVM_X86_DEFAULT_VM) -> Vm:
        """A VM without memory and vCPUs (api.rst 4.2); `kind` is one of KVM_X86_*_VM, a bit of KVM_CAP_VM_TYPES."""
        needs = caps.KVM_CAP_VM_TYPES if kind else None
        while (fd := self.attempt(ioctls.KVM_CREATE_VM, kind)) == -EINTR:  # a signal fell into the making of it
            pass
        if fd < 0:
            raise self.failure(ioctls.KVM_CREATE_VM, -fd, needs)
        return Vm(self, fd)

    # -- CPUID ---------------------------------------------------------------------------------------------------

    def supported_cpuid(self) -> list[kvm_cpuid_entry2]:
        """What a guest's CPUID may say on this host (KVM_GET_SUPPORTED_CPUID, api.rst 4.46)."""
        return list(self._cpuid(ioctls.KVM_GET_SUPPORTED_CPUID, caps.KVM_CAP_EXT_CPUID).entries)

    def supported_cpuid_table(self) -> bytes:
        """The same as the kernel's `struct kvm_cpuid2`, ready for KVM_SET_CPUID2."""
        return bytes(self._cpuid(ioctls.KVM_GET_SUPPORTED_CPUID, caps.KVM_CAP_EXT_CPUID))

    def emulated_cpuid(self) -> list[kvm_cpuid_entry2]:
        """Features that KVM would emulate, slowly, if the guest's CPUID has them (api.rst 4.88)."""
        return list(self._cpuid(ioctls.KVM_GET_EMULATED_CPUID, caps.KVM_CAP_EXT_EMUL_CPUID).entries)

    def supported_hyperv_cpuid(self) -> list[kvm_cpuid_entry2]:
        """The Hyper-V leaves that a guest may be given (api.rst 4.118)."""
        return list(self._cpuid(ioctls.KVM_GET_SUPPORTED_HV_CPUID, caps.KVM_CAP_SYS_HYPERV_CPUID).entries)

    def _cpuid(self, request: int, needs: int) -> kvm_cpuid2:
        table = kvm_cpuid2.with_tail(ENOUGH_CPUID_ENTRIES * kvm_cpuid_entry2.size, nent=ENOUGH_CPUID_ENTRIES)
        self.call(request, table, needs=needs)
        return kvm_cpuid2.from_bytes(bytes(table.buffer[: kvm_cpuid2.size + table.nent * kvm_cpuid_entry2.size]))

    # -- MSRs ----------------------------------------------------------------------------------------------------

    def msr_indices(self) -> list[int]:
        """The MSRs that make up a guest's state and should be saved with it (KVM_GET_MSR_INDEX_LIST, api.rst 4.3)."""
        return self._indices(ioctls.KVM_GET_MSR_INDEX_LIST, None)

    def feature_msr_indices(self) -> list[int]:
        """The MSRs that tell of the host's features; `feature_msrs` reads them."""
        return self._indices(ioctls.KVM_GET_MSR_FEATURE_INDEX_LIST, caps.KVM_CAP_GET_MSR_FEATURES)

    def _indices(self, request: int, needs: int | None) -> list[int]:
        head = kvm_msr_list()
        answer = self.attempt(request, head)  # E2BIG, and how many there are
        if answer not in (0, -E2BIG):
            raise self.failure(request, -answer, needs)
        table = kvm_msr_list.with_tail(4 * head.nmsrs, nmsrs=head.nmsrs)
        self.call(request, table, needs=needs)
        return table.tail[: 4 * table.nmsrs].cast("I").tolist()

    def feature_msrs(self, indices: list[int]) -> dict[int, int]:
        """The values of feature MSRs by index (KVM_GET_MSRS on the system, api.rst 4.18); unknown ones are left out."""
        values: dict[int, int] = {}
        for index in indices:
            table = kvm_msrs.from_bytes(msr_table([(index, 0)]))
            if self.call(ioctls.KVM_GET_MSRS, table, needs=caps.KVM_CAP_GET_MSR_FEATURES) == 1:
                values[index] = table.entries[0].data
        return values

    def mce_capabilities(self) -> int:
        """The value of IA32_MCG_CAP that a guest may have (KVM_X86_GET_MCE_CAP_SUPPORTED, api.rst 4.104)."""
        answer = bytearray(8)
        self.call(ioctls.KVM_X86_GET_MCE_CAP_SUPPORTED, answer, needs=caps.KVM_CAP_MCE)
        return int.from_bytes(answer, "little")

    # -- attributes ----------------------------------------------------------------------------------------------

    def has_attribute(self, group: int, attribute: int) -> bool:
        """Whether the system has an attribute (KVM_HAS_DEVICE_ATTR, api.rst 4.81, KVM_CAP_SYS_ATTRIBUTES)."""
        return self.attempt(ioctls.KVM_HAS_DEVICE_ATTR, kvm_device_attr(group=group, attr=attribute)) == 0

    def get_attribute(self, group: int, attribute: int) -> int:
        """A 64-bit attribute of the system, such as the XSAVE components a guest may use (KVM_X86_XCOMP_GUEST_SUPP, 0)."""
        value = bytearray(8)
        request = kvm_device_attr(group=group, attr=attribute, addr=_calls.address_of(value))
        self.call(ioctls.KVM_GET_DEVICE_ATTR, request, needs=caps.KVM_CAP_SYS_ATTRIBUTES)
        return int.from_bytes(value, "little")
