"""Exceptions and interrupts: raising them, delivering them, and what comes of a fault on the way (SDM 3A chapter 6)."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raise_fault(cpu: cython.pointer(Cpu), vector: u32, error: u32) -> cython.int:
    """Make an exception with an error code pending; answers FAULT."""
    cpu.exception = vector
    cpu.exception_kind = KIND_HARDWARE
    cpu.exception_error = error
    cpu.exception_has_error = 1
    return FAULT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raise_plain(cpu: cython.pointer(Cpu), vector: u32) -> cython.int:
    """Make an exception without an error code pending; answers FAULT."""
    cpu.exception = vector
    cpu.exception_kind = KIND_HARDWARE
    cpu.exception_error = 0
    cpu.exception_has_error = 0
    return FAULT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raise_page_fault(cpu: cython.pointer(Cpu), gva: u64, error: u32) -> cython.int:
    """Make a page fault pending; CR2 is written at delivery. Answers FAULT."""
    cpu.exception_cr2 = gva
    return raise_fault(cpu, EXC_PF, error)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raise_debug(cpu: cython.pointer(Cpu), dr6: u64) -> cython.int:
    """Make #DB pending with these DR6 bits; answers FAULT."""
    cpu.exception_cr2 = dr6
    return raise_plain(cpu, EXC_DB)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_contributory(vector: u32) -> cython.bint:
    """The exceptions of which two in a row make a double fault (SDM 3A table 6-4)."""
    return vector == EXC_DE or (vector >= EXC_TS and vector <= EXC_GP)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def combine_exceptions(cpu: cython.pointer(Cpu)) -> cython.int:
    """The pending exception came up while an event was delivered: it stays, or becomes #DF, or nothing is left but shutdown.

    NEXT, or EXIT of a triple fault (SDM 3A table 6-5). Only exceptions count: other events are benign.
    """
    first: u32 = cpu.vectoring_info & 0xFF
    second: u32 = cpu.exception
    first_kind: u32 = (cpu.vectoring_info >> 8) & 7
    contributory: cython.bint = is_contributory(second)
    if not cpu.vectoring_info or first_kind != KIND_HARDWARE or cpu.exception_kind != KIND_HARDWARE:
        return NEXT
    if first == EXC_DF and (contributory or second == EXC_PF):
        cpu.vectoring_info = 0
        return request_exit(cpu, EXIT_REASON_TRIPLE_FAULT, 0)
    if (is_contributory(first) and contributory) or (first == EXC_PF and (contributory or second == EXC_PF)):
        if second == EXC_PF:
            cpu.cr2 = cpu.exception_cr2
        raise_fault(cpu, EXC_DF, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def exception_side_effects(cpu: cython.pointer(Cpu)) -> cython.void:
    """What an exception changes before its handler is found: CR2, or DR6, DR7 and IA32_DEBUGCTL."""
    if cpu.exception_kind != KIND_HARDWARE:
        return
    if cpu.exception == EXC_PF:
        cpu.cr2 = cpu.exception_cr2
    elif cpu.exception == EXC_DB:
        commit_debug_status(cpu, cpu.exception_cr2)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver_exception(cpu: cython.pointer(Cpu)) -> cython.int:
    """Deliver the pending exception at cpu.rip, and whatever comes up on the way: BRANCH at a handler, or EXIT."""
    status: cython.int = FAULT
    while status == FAULT:
        status = combine_exceptions(cpu)
        if status != NEXT:
            return status
        if not cpu.cr0 & CR0_PE:
            cpu.exception_has_error = 0
        status = vmx_exception_exit(cpu)
        if status == EXIT:
            # A double fault is an exit of its own, not one during the delivery of the first event (SDM 3C 28.2.4).
            if cpu.exception == EXC_DF:
                cpu.vectoring_info = 0
            return EXIT
        cpu.exit_interruption = 0
        exception_side_effects(cpu)
        status = deliver_event(
            cpu, cpu.exception, cpu.exception_kind, cpu.exception_has_error, cpu.exception_error, cpu.rip
        )
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def resume_flag(cpu: cython.pointer(Cpu), vector: u32, kind: u32) -> u64:
    """RF in the flags image that an event pushes (SDM 3B 18.3.1.1): set for faults, so that they do not break twice."""
    if kind == KIND_SOFTWARE or kind == KIND_SOFTWARE_EXC or kind == KIND_PRIVILEGED:
        return 0
    if kind == KIND_HARDWARE:
        if vector == EXC_DB:
            return FLAG_RF if cpu.exception_cr2 & DR6_BD else cpu.rflags & FLAG_RF
        if vector != EXC_BP and vector != EXC_OF and vector != EXC_DF and vector != EXC_MC:
            return FLAG_RF
    return cpu.rflags & FLAG_RF


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def begin_event(cpu: cython.pointer(Cpu), event: cython.pointer(Event), vector: u32, kind: u32, has_error: u32, error: u32) -> cython.void:
    """Describe an event to the delivery code, and in the VMCS's words to an exit on the way."""
    event.vector = vector
    event.software = kind == KIND_SOFTWARE or kind == KIND_SOFTWARE_EXC
    event.ext = 0 if event.software else 1
    event.has_error = has_error if cpu.cr0 & CR0_PE else 0
    event.error = error
    event.rf = resume_flag(cpu, vector, kind)
    cpu.vectoring_info = vector | (kind << 8) | (event.has_error << 11) | VECTORING_VALID
    cpu.vectoring_error = error
    # An instruction has at most 15 bytes, so the difference is its length whatever RIP is wrapped to.
    cpu.vectoring_length = (event.return_rip - cpu.insn_rip) & 15 if event.software or kind == KIND_PRIVILEGED else 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver_event(cpu: cython.pointer(Cpu), vector: u32, kind: u32, has_error: u32, error: u32, return_rip: u64) -> cython.int:
    """Deliver an event through the IDT: BRANCH, FAULT (a fault on the way: deliver_exception knows of both) or EXIT."""
    space: Event
    event: cython.pointer(Event) = cython.address(space)
    redirected: cython.bint = False
    status: cython.int = NEXT
    event.return_rip = return_rip
    begin_event(cpu, event, vector, kind, has_error, error)
    if not cpu.cr0 & CR0_PE:
        status = deliver_real(cpu, event)
    else:
        if kind == KIND_SOFTWARE and in_v86(cpu):
            status = redirected_to_v86(cpu, event, cython.address(redirected))
        if status == NEXT:
            status = deliver_redirected(cpu, event) if redirected else deliver_protected(cpu, event)
    if status != BRANCH:
        return status
    cpu.vectoring_info = 0
    cpu.wait_phase = 0
    cpu.stepped |= 4
    cpu.interruptibility &= ~cython.cast(u64, SHADOW_STI | SHADOW_MOV_SS)
    if kind == KIND_NMI:
        cpu.interruptibility |= BLOCKED_NMI
    if cpu.activity == ACTIVITY_HLT:
        cpu.activity = ACTIVE
    update_mode(cpu)
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def software_exception(cpu: cython.pointer(Cpu), vector: u32, kind: u32) -> cython.int:
    """INT3, INTO, INT1: exceptions that an instruction asks for, which the exception bitmap may take (SDM 3C 26.2)."""
    status: cython.int
    cpu.exception = vector
    cpu.exception_kind = kind
    cpu.exception_error = 0
    cpu.exception_has_error = 0
    cpu.exception_cr2 = 0
    status = vmx_exception_exit(cpu)
    if status != NEXT:
        return status
    return deliver_event(cpu, vector, kind, 0, 0, cpu.next_rip)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_int3(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INT3."""
    return software_exception(cpu, EXC_BP, KIND_SOFTWARE_EXC)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_int(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INT imm8: the vector is insn.imm & 0xFF."""
    return deliver_event(cpu, cython.cast(u32, insn.imm & 0xFF), KIND_SOFTWARE, 0, 0, cpu.next_rip)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_into(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INTO."""
    if not flag_of(cpu):
        return NEXT
    return software_exception(cpu, EXC_OF, KIND_SOFTWARE_EXC)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_int1(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INT1 (F1): #DB without a look at the gate's DPL. What MOV SS held back is lost in it, as on real processors."""
    waiting: u64 = cpu.pending_debug
    status: cython.int
    cpu.pending_debug = 0
    status = software_exception(cpu, EXC_DB, KIND_PRIVILEGED)
    if status == EXIT:
        cpu.pending_debug = waiting
    return status
