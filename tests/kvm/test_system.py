"""What the system tells: capabilities, CPUID, MSRs."""

from __future__ import annotations

import pytest

import belljar.kvm as face
from belljar.errors import CapabilityMissing, KvmCallFailed
from belljar.kvm import Kvm
from belljar.kvm.abi import caps
from belljar.kvm.abi.flags import KVM_X86_DEFAULT_VM
from kvm.guest import need

IA32_TSC = 0x10
CPUID_VENDOR = 0


def test_api_version_is_twelve(system: Kvm) -> None:
    assert system.api_version == 12


def test_capabilities_are_told_by_name(system: Kvm) -> None:
    table = system.capabilities()
    assert table["KVM_CAP_USER_MEMORY"] == 1
    assert list(table) == list(caps.all_capabilities())
    assert system.require(caps.KVM_CAP_USER_MEMORY) == 1


def test_vcpu_mapping_holds_run_page_and_port_data(system: Kvm) -> None:
    assert system.vcpu_mmap_size >= 2 * 4096
    assert system.vcpu_mmap_size % 4096 == 0


def test_supported_cpuid_begins_with_the_vendor(system: Kvm) -> None:
    leaves = {(entry.function, entry.index): entry for entry in system.supported_cpuid()}
    vendor = leaves[CPUID_VENDOR, 0]
    name = b"".join(part.to_bytes(4, "little") for part in (vendor.ebx, vendor.edx, vendor.ecx))
    assert name.isascii()
    assert len(leaves) > 10


def test_emulated_cpuid_is_a_table_of_its_own(system: Kvm) -> None:
    need(system, caps.KVM_CAP_EXT_EMUL_CPUID)
    assert all(entry.function in {0, 1, 7, 0x80000001} for entry in system.emulated_cpuid())


def test_hyperv_leaves_begin_at_40000000h_or_are_lacking_by_name(system: Kvm) -> None:
    if not system.check(caps.KVM_CAP_SYS_HYPERV_CPUID):
        with pytest.raises(CapabilityMissing, match="KVM_CAP_SYS_HYPERV_CPUID"):
            system.supported_hyperv_cpuid()
        return
    assert system.supported_hyperv_cpuid()[0].function == 0x40000000


def test_state_msrs_include_the_time_stamp_counter(system: Kvm) -> None:
    indices = system.msr_indices()
    assert IA32_TSC in indices
    assert len(indices) == len(set(indices))


def test_feature_msrs_can_be_read(system: Kvm) -> None:
    need(system, caps.KVM_CAP_GET_MSR_FEATURES)
    indices = system.feature_msr_indices()
    assert set(system.feature_msrs(indices)) <= set(indices)
    assert system.feature_msrs([0xFFFF_0000]) == {}


def test_machine_check_capabilities(system: Kvm) -> None:
    need(system, caps.KVM_CAP_MCE)
    assert system.mce_capabilities() & 1 << 24  # IA32_MCG_CAP.MCG_SER_P: KVM always has it


def test_system_attribute_tells_xsave_components(system: Kvm) -> None:
    need(system, caps.KVM_CAP_SYS_ATTRIBUTES)
    assert system.has_attribute(0, 0)  # KVM_X86_XCOMP_GUEST_SUPP
    assert system.get_attribute(0, 0) & 1  # x87
    assert not system.has_attribute(77, 0)


def test_vm_of_each_kind_that_the_host_offers(system: Kvm) -> None:
    kinds = system.check(caps.KVM_CAP_VM_TYPES) or 1
    with system.create_vm(KVM_X86_DEFAULT_VM):
        pass
    for kind in range(1, 8):
        if kinds & 1 << kind:
            system.create_vm(kind).close()
        else:
            with pytest.raises((CapabilityMissing, KvmCallFailed)):
                system.create_vm(kind)


def test_package_gives_its_names_when_they_are_used() -> None:
    for name in face.__all__:
        assert getattr(face, name).__name__ == name
        assert name in dir(face)
    with pytest.raises(AttributeError):
        _ = face.Nothing
