"""A vCPU's machine-check banks and the MSRs that show them (SDM 3B chapter 16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.engine_data import MACHINE_CHECK_BANKS as BANKS
from belljar.engine_data import MCG_CAP_OFFERED
from belljar.exits import Shutdown
from belljar.soft.hypervisor.events import inject, put_off
from belljar.soft.processor.fields import Field
from belljar.x86.control import Cr4
from belljar.x86.machine_check import (
    ALL_ONES,
    Consequence,
    MciCtl2,
    MciStatus,
    Setting,
    check_error,
    consequence,
)
from belljar.x86.msr import Msr
from belljar.x86.vectors import Vector

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu_events import VcpuEvents

CAPABILITIES = BANKS | MCG_CAP_OFFERED

CTL, STATUS, ADDR, MISC = range(4)
"""A bank's registers, in the order of their MSRs."""


class MachineChecks:
    """IA32_MCG_* and the banks, as after reset: everything is reported (as KVM_X86_SETUP_MCE leaves them, api.rst 4.105)."""

    def __init__(self) -> None:
        self.status = 0
        self.ctl = ALL_ONES
        self.banks = [[ALL_ONES, 0, 0, 0] for _ in range(BANKS)]
        self.ctl2 = [0] * BANKS

    def read(self, msr: int) -> int:
        """One of `msrs.MACHINE_CHECK_MSRS`."""
        if msr >= Msr.IA32_MC0_CTL:
            bank, register = divmod(msr - Msr.IA32_MC0_CTL, 4)
            return self.banks[bank][register]
        if msr >= Msr.IA32_MC0_CTL2:
            return self.ctl2[msr - Msr.IA32_MC0_CTL2]
        if msr == Msr.IA32_MCG_CAP:
            return CAPABILITIES
        return self.status if msr == Msr.IA32_MCG_STATUS else self.ctl

    def write(self, msr: int, value: int, *, host: bool = False) -> bool:
        """One of `msrs.MACHINE_CHECK_MSRS`; False for #GP(0). The host may put any error into a bank, a guest only clear it.

        A bank's address and what goes with it take anything, as they do on KVM, where the manual leaves #GP to the processor.
        """
        if msr >= Msr.IA32_MC0_CTL:
            bank, register = divmod(msr - Msr.IA32_MC0_CTL, 4)
            if register == CTL and value not in (0, ALL_ONES):
                return False
            if register == STATUS and value and not host:
                return False
            self.banks[bank][register] = value
        elif msr >= Msr.IA32_MC0_CTL2:
            if value & ~(MciCtl2.CMCI_EN | MciCtl2.THRESHOLD):
                return False
            self.ctl2[msr - Msr.IA32_MC0_CTL2] = value
        elif msr == Msr.IA32_MCG_STATUS:
            self.status = value
        elif msr == Msr.IA32_MCG_CTL and value in (0, ALL_ONES):
            self.ctl = value
        else:
            return False
        return True

    def record(self, bank: int, status: int, address: int, misc: int) -> None:
        """Put an error into its bank; a corrected one does not take the place of an uncorrected one (SDM 3B 16.3.2.2.1)."""
        registers = self.banks[bank]
        before = registers[STATUS]
        if before & MciStatus.VAL and before & MciStatus.UC and not status & MciStatus.UC:
            registers[STATUS] |= MciStatus.OVER
            return
        over = MciStatus.OVER if before & MciStatus.VAL else 0
        registers[STATUS:] = [status | over, address, misc]


def inject_machine_check(
    vcpu: VcpuEvents, bank: int, status: int, mcg_status: int, address: int, misc: int
) -> Consequence:
    """An error of the host's (`belljar.engine.Vcpu.inject_machine_check`)."""
    check_error(BANKS, bank, status, mcg_status, address, misc)
    checks, processor = vcpu.machine_checks, vcpu.processor
    enabled = bool(processor.vmread(Field.GUEST_CR4) & Cr4.MCE)
    setting = Setting(CAPABILITIES, checks.status, checks.ctl, checks.banks[bank][CTL], checks.ctl2[bank], enabled)
    what = consequence(setting, status, mcg_status)
    if what is Consequence.SHUTDOWN:
        vcpu.end_next(Shutdown(vcpu.index))
    elif status & MciStatus.UC and what in (Consequence.RECORDED, Consequence.INTERRUPT):
        checks.banks[bank][STATUS:] = [status, address, misc]
    elif what is not Consequence.IGNORED:
        checks.record(bank, status, address, misc)
    if what is Consequence.EXCEPTION:
        checks.status = mcg_status
        put_off(vcpu)  # an exception that waits gives way: its instruction is executed again
        inject(processor, Vector.MC)
        processor.set_payload(None)
    return what
