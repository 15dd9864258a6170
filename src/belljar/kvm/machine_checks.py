"""Machine-check banks of the kernel's vCPUs, and errors that the host injects into them (api.rst 4.104 to 4.106)."""

from __future__ import annotations

from belljar.errors import CapabilityMissing, EngineError, FeatureUnsupported, KvmCallFailed
from belljar.kvm.abi.structs import kvm_x86_mce
from belljar.kvm.vcpu import Vcpu
from belljar.x86.control import Cr4
from belljar.x86.machine_check import BANK_COUNT, Consequence, Setting, check_error, consequence
from belljar.x86.msr import Msr


def inject_machine_check(vcpu: Vcpu, bank: int, status: int, mcg_status: int, address: int, misc: int) -> Consequence:
    """KVM_X86_SET_MCE (`belljar.engine.Vcpu.inject_machine_check`). What becomes of it is read off the registers before."""
    cap = vcpu.get_msrs([Msr.IA32_MCG_CAP]).get(Msr.IA32_MCG_CAP, 0)
    check_error(cap & BANK_COUNT, bank, status, mcg_status, address, misc)
    ctl, ctl2 = Msr.IA32_MC0_CTL + 4 * bank, Msr.IA32_MC0_CTL2 + bank
    found = vcpu.get_msrs([Msr.IA32_MCG_STATUS, Msr.IA32_MCG_CTL, ctl])
    setting = Setting(
        cap,
        found.get(Msr.IA32_MCG_STATUS, 0),
        found.get(Msr.IA32_MCG_CTL, 0),
        found.get(ctl, 0),
        vcpu.get_msrs([ctl2]).get(ctl2, 0),
        bool(vcpu.get_sregs().cr4 & Cr4.MCE),
    )
    try:
        vcpu.inject_machine_check(kvm_x86_mce(status=status, addr=address, misc=misc, mcg_status=mcg_status, bank=bank))
    except CapabilityMissing as error:
        raise FeatureUnsupported(f"this host's KVM has no machine checks: {error}") from None
    except KvmCallFailed as error:
        raise EngineError(f"KVM does not take the machine check: {error}") from None
    return consequence(setting, status, mcg_status)
