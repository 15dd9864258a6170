"""vCPUs that a machine gave up, and may take again: KVM keeps them as long as their VM."""

from __future__ import annotations

from belljar.kvm.abi.flags import (
    KVM_MP_STATE_UNINITIALIZED,
    KVM_VCPUEVENT_VALID_NMI_PENDING,
    KVM_VCPUEVENT_VALID_SHADOW,
)
from belljar.kvm.abi.structs import kvm_lapic_state, kvm_vcpu_events
from belljar.kvm.vcpu import Vcpu

APIC_BASE_RESET = 0xFEE0_0800
"""IA32_APIC_BASE of any but the bootstrap processor after reset: enabled, xAPIC (SDM 3A 11.4.4)."""

APIC_BASE_OFF = 0xFEE0_0000

ID, VERSION, DFR, SVR = 0x20, 0x30, 0xE0, 0xF0
LVT = (0x2F0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370)
"""Registers of the local APIC (SDM 3A table 11-1)."""

DFR_RESET, SVR_RESET, LVT_RESET = 0xFFFF_FFFF, 0xFF, 1 << 16
"""SDM 3A 11.4.7.1."""


def park(vcpu: Vcpu, *, has_lapic: bool) -> None:
    """Have nothing reach it any more."""
    if has_lapic:
        vcpu.set_mp_state(KVM_MP_STATE_UNINITIALIZED)
        _set_apic_base(vcpu, APIC_BASE_OFF)


def unpark(vcpu: Vcpu, *, has_lapic: bool) -> None:
    """As after reset, as far as INIT would not see to it: nothing pending, the local APIC's registers."""
    vcpu.set_events(kvm_vcpu_events(flags=KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW))
    if has_lapic:
        _set_apic_base(vcpu, APIC_BASE_RESET)
        vcpu.set_lapic(_reset_lapic(vcpu))
        vcpu.set_mp_state(KVM_MP_STATE_UNINITIALIZED)


def _set_apic_base(vcpu: Vcpu, value: int) -> None:
    special = vcpu.get_sregs()
    special.apic_base = value
    vcpu.set_sregs(special)


def _reset_lapic(vcpu: Vcpu) -> kvm_lapic_state:
    before = vcpu.get_lapic()
    registers = bytearray(len(before.regs))
    registers[VERSION : VERSION + 4] = before.regs[VERSION : VERSION + 4]
    for register, value in ((ID, vcpu.index << 24), (DFR, DFR_RESET), (SVR, SVR_RESET)):
        registers[register : register + 4] = value.to_bytes(4, "little")
    for register in LVT:
        registers[register : register + 4] = LVT_RESET.to_bytes(4, "little")
    before.regs = bytes(registers)
    return before
