"""What happens to a vCPU: interrupts, events, time, debugging, and where its addresses lead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from belljar.kvm._descriptor import Capable
from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.flags import KVM_GUESTDBG_ENABLE, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET
from belljar.kvm.abi.structs import (
    kvm_guest_debug,
    kvm_interrupt,
    kvm_lapic_state,
    kvm_mp_state,
    kvm_pre_fault_memory,
    kvm_signal_mask,
    kvm_tpr_access_ctl,
    kvm_translation,
    kvm_vapic_addr,
    kvm_vcpu_events,
    kvm_x86_mce,
)
from belljar.kvm.device import Attributes

SIGNAL_SET_SIZE = 8
"""The size in bytes of a kernel signal set on x86-64 (_NSIG / 8)."""


class VcpuEvents(Attributes, Capable):
    """The part of a vCPU that is about events, time, debugging and translation."""

    # -- events ----------------------------------------------------------------------------------------------------

    def get_events(self) -> kvm_vcpu_events:
        """Pending and injected exceptions, interrupts, NMIs, SMIs (api.rst 4.31)."""
        events = kvm_vcpu_events()
        self.call(ioctls.KVM_GET_VCPU_EVENTS, events, needs=caps.KVM_CAP_VCPU_EVENTS)
        return events

    def set_events(self, events: kvm_vcpu_events) -> None:
        """Set them; KVM_VCPUEVENT_VALID_* in `flags` says which optional fields count (api.rst 4.32)."""
        self.call(ioctls.KVM_SET_VCPU_EVENTS, events, needs=caps.KVM_CAP_VCPU_EVENTS)

    def interrupt(self, vector: int) -> None:
        """Queue an external interrupt for injection (KVM_INTERRUPT, api.rst 4.16).

        Without a kernel APIC: when `page.ready_for_interrupt_injection`; with a split irqchip: as from an 8259.
        """
        self.call(ioctls.KVM_INTERRUPT, kvm_interrupt(irq=vector))

    def nmi(self) -> None:
        """Queue a non-maskable interrupt (KVM_NMI, api.rst 4.64)."""
        self.call(ioctls.KVM_NMI, needs=caps.KVM_CAP_USER_NMI)

    def smi(self) -> None:
        """Queue a system-management interrupt (KVM_SMI, api.rst 4.96)."""
        self.call(ioctls.KVM_SMI, needs=caps.KVM_CAP_X86_SMM)

    def get_mp_state(self) -> int:
        """KVM_MP_STATE_*: runnable, halted, waiting for SIPI... (api.rst 4.38)."""
        state = kvm_mp_state()
        self.call(ioctls.KVM_GET_MP_STATE, state, needs=caps.KVM_CAP_MP_STATE)
        return state.mp_state

    def set_mp_state(self, state: int) -> None:
        """Set it (api.rst 4.39); other states than runnable need a kernel APIC."""
        self.call(ioctls.KVM_SET_MP_STATE, kvm_mp_state(mp_state=state), needs=caps.KVM_CAP_MP_STATE)

    def get_lapic(self) -> kvm_lapic_state:
        """The local APIC's register page (api.rst 4.57); with a kernel APIC only."""
        state = kvm_lapic_state()
        self.call(ioctls.KVM_GET_LAPIC, state, needs=caps.KVM_CAP_IRQCHIP)
        return state

    def set_lapic(self, state: kvm_lapic_state) -> None:
        """Set the local APIC's registers (api.rst 4.58)."""
        self.call(ioctls.KVM_SET_LAPIC, state, needs=caps.KVM_CAP_IRQCHIP)

    def report_tpr_accesses(self, enabled: bool) -> None:
        """Leave with an exit on accesses to the task-priority register (KVM_TPR_ACCESS_REPORTING)."""
        self.call(ioctls.KVM_TPR_ACCESS_REPORTING, kvm_tpr_access_ctl(enabled=int(enabled)), needs=caps.KVM_CAP_VAPIC)

    def set_vapic_address(self, gpa: int) -> None:
        """Where the guest's own copy of the TPR lies (KVM_SET_VAPIC_ADDR)."""
        self.call(ioctls.KVM_SET_VAPIC_ADDR, kvm_vapic_addr(vapic_addr=gpa), needs=caps.KVM_CAP_VAPIC)

    # -- machine checks ----------------------------------------------------------------------------------------------

    def set_up_machine_checks(self, mcg_cap: int) -> None:
        """Give the vCPU machine-check banks: a value of IA32_MCG_CAP (KVM_X86_SETUP_MCE, api.rst 4.105)."""
        request = bytearray(mcg_cap.to_bytes(8, "little"))
        self.call(ioctls.KVM_X86_SETUP_MCE, request, needs=caps.KVM_CAP_MCE)

    def inject_machine_check(self, error: kvm_x86_mce) -> None:
        """Write an error into a bank and, if it is uncorrected, raise #MC (KVM_X86_SET_MCE, api.rst 4.106)."""
        self.call(ioctls.KVM_X86_SET_MCE, error, needs=caps.KVM_CAP_MCE)

    # -- time --------------------------------------------------------------------------------------------------------

    def get_tsc_khz(self) -> int:
        """The guest's TSC frequency in kHz (api.rst 4.56)."""
        return self.call(ioctls.KVM_GET_TSC_KHZ, needs=caps.KVM_CAP_GET_TSC_KHZ)

    def set_tsc_khz(self, khz: int) -> None:
        """Set the guest's TSC frequency in kHz; another than the host's needs KVM_CAP_TSC_CONTROL (api.rst 4.55)."""
        self.call(ioctls.KVM_SET_TSC_KHZ, khz, needs=caps.KVM_CAP_TSC_CONTROL)

    def get_tsc_offset(self) -> int:
        """What is added to the host's TSC, modulo 2^64 (KVM_VCPU_TSC_OFFSET, devices/vcpu.rst 4.1)."""
        return int.from_bytes(self.get_attribute(KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET), "little")

    def set_tsc_offset(self, offset: int) -> None:
        """Set what is added to the host's TSC, modulo 2^64."""
        self.set_attribute(KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, (offset % 2**64).to_bytes(8, "little"))

    def pause_clock(self) -> None:
        """Tell the guest's soft-lockup watchdog that the host stopped it (KVM_KVMCLOCK_CTRL, api.rst 4.70).

        EINVAL if the guest does not use the paravirtual clock.
        """
        self.call(ioctls.KVM_KVMCLOCK_CTRL, needs=caps.KVM_CAP_KVMCLOCK_CTRL)

    # -- debugging ---------------------------------------------------------------------------------------------------

    def set_guest_debug(self, control: int, debug_registers: Sequence[int] = (0,) * 8) -> None:
        """Single step, breakpoints, injected #DB and #BP: KVM_GUESTDBG_* bits; DR0 to DR7 with KVM_GUESTDBG_USE_HW_BP.

        `control` 0 ends it (KVM_SET_GUEST_DEBUG, api.rst 4.87).
        """
        flags = control | KVM_GUESTDBG_ENABLE if control else 0
        request = kvm_guest_debug(control=flags, debugreg=tuple(debug_registers))
        self.call(ioctls.KVM_SET_GUEST_DEBUG, request, needs=caps.KVM_CAP_SET_GUEST_DEBUG)

    def translate(self, gva: int) -> kvm_translation:
        """The kernel's own walk of the guest's page tables (KVM_TRANSLATE, api.rst 4.15)."""
        request = kvm_translation(linear_address=gva)
        self.call(ioctls.KVM_TRANSLATE, request)
        return request

    # -- running -----------------------------------------------------------------------------------------------------

    def set_signal_mask(self, blocked: Iterable[int] | None) -> None:
        """The signals blocked during KVM_RUN, instead of the thread's own mask; None: the thread's own (api.rst 4.21)."""
        if blocked is None:
            self.call(ioctls.KVM_SET_SIGNAL_MASK, 0)
            return
        signals = sum(1 << (number - 1) for number in set(blocked))
        tail = signals.to_bytes(SIGNAL_SET_SIZE, "little")
        self.call(ioctls.KVM_SET_SIGNAL_MASK, kvm_signal_mask.with_tail(tail, len=SIGNAL_SET_SIZE))

    def pre_fault_memory(self, gpa: int, size: int) -> int:
        """Map a range before the guest touches it (KVM_PRE_FAULT_MEMORY, api.rst 4.143); the bytes left undone."""
        request = kvm_pre_fault_memory(gpa=gpa, length=size)
        self.call(ioctls.KVM_PRE_FAULT_MEMORY, request, needs=caps.KVM_CAP_PRE_FAULT_MEMORY)
        return request.length
