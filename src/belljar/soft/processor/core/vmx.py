"""VM entries and VM exits."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def request_exit(cpu: cython.pointer(Cpu), reason: u32, qualification: u64) -> cython.int:
    """Ask for a VM exit at the present instruction, which then has not happened; answers EXIT."""
    cpu.exit_reason = reason
    return EXIT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def finish_exit(cpu: cython.pointer(Cpu)) -> cython.void:
    """Carry out the VM exit that was requested; cpu.rip and everything else is exact."""
    pass


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_events(cpu: cython.pointer(Cpu)) -> cython.int:
    """Between instructions: what the VMX controls and cpu.kicked want: NEXT, BRANCH (an event was injected) or EXIT."""
    if cpu.kicked:
        cpu.kicked = 0
        return request_exit(cpu, EXIT_REASON_EXTERNAL_INTERRUPT, 0)
    if cpu.activity != ACTIVE:
        return request_exit(cpu, EXIT_REASON_HLT, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_vmx(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """VMX instructions in the guest (VMCALL, VMLAUNCH, VMFUNC, ...): insn.imm is the opcode's number."""
    return raise_plain(cpu, EXC_UD)
