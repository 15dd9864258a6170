"""VM exits, and what the controls want between instructions (SDM 3C chapters 26 and 28).

The host of this processor is no program of its own: it is whoever calls `enter`. So a VM exit loads no host state; it
writes the VM-exit information, and the guest's state stays in the Cpu until somebody wants the VMCS otherwise.
"""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def request_exit(cpu: cython.pointer(Cpu), reason: u32, qualification: u64) -> cython.int:
    """Ask for a VM exit at the present instruction, which then has not happened; answers EXIT."""
    cpu.exit_reason = reason
    cpu.exit_qualification = qualification
    return EXIT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def finish_exit(cpu: cython.pointer(Cpu)) -> cython.void:
    """Carry out the VM exit that was requested; cpu.rip and everything else is exact."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    reason: u32 = cpu.exit_reason
    vectoring: u32 = 0
    if reason >= PAUSE_BUDGET or vmcs == cython.NULL:
        return
    if (
        reason == EXIT_REASON_EPT_VIOLATION
        or reason == EXIT_REASON_EPT_MISCONFIG
        or (reason == EXIT_REASON_TASK_SWITCH or reason == EXIT_REASON_EXCEPTION_OR_NMI)
    ):
        vectoring = cpu.vectoring_info
        if (vectoring & INFO_KIND) >= (KIND_SOFTWARE << INFO_KIND_SHIFT):
            cpu.exit_length = cpu.vectoring_length
    if not cpu.cr0 & CR0_PE:
        # In real mode no error code would have been delivered (SDM 3C tables 25-18, 25-19).
        vectoring &= ~cython.cast(u32, INFO_HAS_ERROR)
        cpu.exit_interruption &= ~cython.cast(u32, INFO_HAS_ERROR)
    vmcs_set(vmcs, FIELD_EXIT_REASON, reason)
    vmcs_set(vmcs, FIELD_EXIT_QUALIFICATION, cpu.exit_qualification)
    vmcs_set(vmcs, FIELD_EXIT_INSTRUCTION_LENGTH, cpu.exit_length)
    vmcs_set(vmcs, FIELD_EXIT_INSTRUCTION_INFO, cpu.exit_information)
    vmcs_set(vmcs, FIELD_EXIT_INTERRUPTION_INFO, cpu.exit_interruption)
    vmcs_set(vmcs, FIELD_EXIT_INTERRUPTION_ERROR, cpu.exit_error)
    vmcs_set(vmcs, FIELD_IDT_VECTORING_INFO, vectoring)
    vmcs_set(vmcs, FIELD_IDT_VECTORING_ERROR, cpu.vectoring_error)
    vmcs_set(vmcs, FIELD_GUEST_LINEAR_ADDRESS, cpu.exit_linear)
    vmcs_set(vmcs, FIELD_GUEST_PHYSICAL_ADDRESS, cpu.exit_gpa)
    cpu.vectoring_info = 0
    if reason != EXIT_REASON_EXTERNAL_INTERRUPT:
        look_for_waiting_soon(cpu)
    settle_guest(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def settle_guest(cpu: cython.pointer(Cpu)) -> cython.void:
    """What is written back at every way out: the preemption timer, and whether the guest is in IA-32e mode (SDM 3C 28.2)."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    now: u64
    cpu.entry_controls = (cpu.entry_controls & ~cython.cast(u32, ENTRY_GUEST_64)) | (
        ENTRY_GUEST_64 if cpu.efer & EFER_LMA else 0
    )
    vmcs_set(vmcs, FIELD_ENTRY_CONTROLS, cpu.entry_controls)
    if cpu.exit_controls & EXIT_SAVE_TIMER:
        now = cpu.retired
        vmcs_set(vmcs, FIELD_PREEMPTION_TIMER, cpu.timer_end - now if cpu.timer_end > now else 0)
    # Without these the next entry must not find the guest's own values, so the Cpu cannot stand for the area.
    if (cpu.exit_controls & (EXIT_SAVE_DEBUG | EXIT_SAVE_EFER)) != (EXIT_SAVE_DEBUG | EXIT_SAVE_EFER):
        save_guest(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_events(cpu: cython.pointer(Cpu)) -> cython.int:
    """Between instructions: what the VMX controls and cpu.kicked want: NEXT, BRANCH (an event was injected) or EXIT.

    In the order of SDM 3C 26.2 (priority of events): monitor trap flag, NMI window, external interrupt, interrupt window.
    Blocking by STI holds NMI windows back, as it may, and as it does with the NMIs of most processors (SDM 3A 6.7.1, 6.8.3).
    """
    shadow: u32 = cpu.interruptibility & (SHADOW_STI | SHADOW_MOV_SS)
    if cpu.kicked & KICK_WINDOW:
        fetch_and32(cython.address(cpu.kicked), ~cython.cast(u32, KICK_WINDOW))
        return request_exit(cpu, PAUSE_FAILED if cpu.window_failed else PAUSE_EMULATED, 0)
    if not cpu.in_guest:
        return vmx_idle(cpu)
    if unlikely(cpu.kicked & KICK_REQUEST) and cpu.window == cython.NULL:
        return take_request(cpu)
    if cpu.events & EVENT_MTF and cpu.retired != cpu.entry_retired:
        return request_exit(cpu, EXIT_REASON_MONITOR_TRAP, 0)
    if cpu.primary_controls & PRIMARY_NMI_WINDOW and not shadow | cpu.interruptibility & BLOCKED_NMI:
        return request_exit(cpu, EXIT_REASON_NMI_WINDOW, 0)
    if cpu.kicked & KICK_HOST:
        fetch_and32(cython.address(cpu.kicked), ~cython.cast(u32, KICK_HOST))
        if cpu.pin_controls & PIN_EXTERNAL_INTERRUPT:
            return request_exit(cpu, EXIT_REASON_EXTERNAL_INTERRUPT, 0)
        return request_exit(cpu, PAUSE_KICKED, 0)
    if cpu.primary_controls & PRIMARY_INTERRUPT_WINDOW and cpu.rflags & FLAG_IF and not shadow:
        return request_exit(cpu, EXIT_REASON_INTERRUPT_WINDOW, 0)
    return vmx_idle(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_idle(cpu: cython.pointer(Cpu)) -> cython.int:
    """Nothing happened: go on if active. Of what could end inactivity, the preemption timer alone is the processor's own."""
    if cpu.activity == ACTIVE:
        return NEXT
    if cpu.in_guest and cpu.pin_controls & PIN_PREEMPTION_TIMER:
        cpu.timer_end = 0
        return request_exit(cpu, EXIT_REASON_PREEMPTION_TIMER, 0)
    return request_exit(cpu, PAUSE_IDLE, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_exception_exit(cpu: cython.pointer(Cpu)) -> cython.int:
    """Whether the pending exception exits: the exception bitmap, for page faults with mask and match (SDM 3C 26.2): NEXT or EXIT."""
    bit: u32 = (cpu.exception_bitmap >> (cpu.exception & 31)) & 1
    qualification: u64 = 0
    if not cpu.in_guest:
        return NEXT
    if cpu.exception == EXC_PF and cpu.exception_kind == KIND_HARDWARE:
        if (cpu.exception_error & vmcs_get(cpu.vmcs, FIELD_PAGE_FAULT_MASK)) != vmcs_get(
            cpu.vmcs, FIELD_PAGE_FAULT_MATCH
        ):
            bit ^= 1
    if not bit:
        return NEXT
    if cpu.vectoring_info or cpu.exception == EXC_DF:
        cpu.exit_interruption = 0
    cpu.exit_interruption |= cpu.exception | (cpu.exception_kind << INFO_KIND_SHIFT) | INFO_VALID
    if cpu.exception_has_error:
        cpu.exit_interruption |= INFO_HAS_ERROR
        cpu.exit_error = cpu.exception_error
    if cpu.exception_kind == KIND_PRIVILEGED or cpu.exception_kind == KIND_SOFTWARE_EXC:
        cpu.exit_length = insn_length(cpu.insn)
    if cpu.exception_kind == KIND_HARDWARE and (cpu.exception == EXC_PF or cpu.exception == EXC_DB):
        qualification = cpu.exception_cr2
    return request_exit(cpu, EXIT_REASON_EXCEPTION_OR_NMI, qualification)
