"""What a VM's controls take from its guest: each hook stands in an instruction, after its own #UD, privilege and #GP checks.

All answer NEXT (go on) or EXIT (a VM exit was requested; the instruction has not happened), and NEXT outside a guest
(SDM 3C 26.1.3, 26.3, 28.2.1).
"""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def instruction_exit(cpu: cython.pointer(Cpu), reason: u32, qualification: u64) -> cython.int:
    """A VM exit because of the instruction at work; its length goes with it."""
    cpu.exit_length = insn_length(cpu.insn)
    return request_exit(cpu, reason, qualification)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_intercept(cpu: cython.pointer(Cpu), reason: u32) -> cython.int:
    """Exits that a control alone decides, without qualification: CPUID, HLT, RDTSC and so on."""
    return vmx_intercept_address(cpu, reason, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_intercept_address(cpu: cython.pointer(Cpu), reason: u32, gva: u64) -> cython.int:
    """The same with a qualification. INVLPG: the linear address."""
    if cpu.in_guest and intercepted(cpu, reason):
        return instruction_exit(cpu, reason, gva)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def intercepted(cpu: cython.pointer(Cpu), reason: u32) -> cython.bint:
    """Whether the controls want a VM exit for an instruction, named by the exit reason it would have."""
    primary: u32 = cpu.primary_controls
    secondary: u32 = cpu.secondary_controls
    if reason == EXIT_REASON_CPUID or reason == EXIT_REASON_INVD or reason == EXIT_REASON_XSETBV:
        return True
    if reason == EXIT_REASON_HLT:
        return (primary & PRIMARY_HLT) != 0
    if reason == EXIT_REASON_INVLPG or reason == EXIT_REASON_INVPCID:
        return (primary & PRIMARY_INVLPG) != 0
    if reason == EXIT_REASON_RDPMC:
        return (primary & PRIMARY_RDPMC) != 0
    if reason == EXIT_REASON_RDTSC or reason == EXIT_REASON_RDTSCP:
        return (primary & PRIMARY_RDTSC) != 0
    if reason == EXIT_REASON_MWAIT:
        return (primary & PRIMARY_MWAIT) != 0
    if reason == EXIT_REASON_MONITOR:
        return (primary & PRIMARY_MONITOR) != 0
    if reason == EXIT_REASON_PAUSE:
        return (primary & PRIMARY_PAUSE) != 0
    if reason == EXIT_REASON_WBINVD:
        return (secondary & SECONDARY_WBINVD) != 0
    if reason == EXIT_REASON_RDRAND:
        return (secondary & SECONDARY_RDRAND) != 0
    if reason == EXIT_REASON_RDSEED:
        return (secondary & SECONDARY_RDSEED) != 0
    if reason == EXIT_REASON_GDTR_IDTR or reason == EXIT_REASON_LDTR_TR:
        return (secondary & SECONDARY_DESCRIPTOR_TABLES) != 0
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def operand_information(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> u32:
    """The part of VM-exit instruction information that tells of a memory or register operand (SDM 3C tables 28-9 to 28-14)."""
    information: u32
    if not insn.flags & INSN_MEM:
        return (1 << 10) | ((insn.rm >> 3) << 3)
    information = (insn.scale & 3) | ((2 - (insn.flags & INSN_ASIZE)) << 7) | (insn_segment(insn) << 15)
    if insn.index < SLOT_ZERO:
        information |= (insn.index >> 3) << 18
    else:
        information |= 1 << 22
    if insn.base < SLOT_ZERO:
        information |= (insn.base >> 3) << 23
    else:
        information |= 1 << 27
    return information


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_intercept_operand(
    cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), reason: u32, which: cython.int
) -> cython.int:
    """Exits that carry instruction information: INVPCID, descriptor-table accesses (`which`: 0 SGDT SLDT, 1 SIDT STR, 2 LGDT LLDT, 3 LIDT LTR)."""
    if not cpu.in_guest or not intercepted(cpu, reason):
        return NEXT
    cpu.exit_information = operand_information(cpu, insn)
    if reason == EXIT_REASON_INVPCID:
        cpu.exit_information |= cython.cast(u32, insn.reg >> 3) << 28
    else:
        cpu.exit_information |= which << 28
        if reason == EXIT_REASON_GDTR_IDTR and operand_size(insn) >= 4:
            cpu.exit_information |= 1 << 11
    return instruction_exit(cpu, reason, cython.cast(u64, cython.cast(i64, insn.disp)) if insn.flags & INSN_MEM else 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_cr_seen(cpu: cython.pointer(Cpu), number: cython.int) -> u64:
    """What a read of CR0 or CR4 shows the guest: bits that the host owns come from the read shadow (SDM 3C 26.3)."""
    if number == 0:
        return (cpu.cr0 & ~cpu.cr0_mask) | (cpu.cr0_shadow & cpu.cr0_mask) if cpu.in_guest else cpu.cr0
    return (cpu.cr4 & ~cpu.cr4_mask) | (cpu.cr4_shadow & cpu.cr4_mask) if cpu.in_guest else cpu.cr4


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_read_cr(cpu: cython.pointer(Cpu), number: cython.int, gpr: cython.int) -> cython.int:
    """MOV from CR3 or CR8."""
    if cpu.in_guest and (
        (number == 3 and cpu.primary_controls & PRIMARY_CR3_STORE)
        or (number == 8 and cpu.primary_controls & PRIMARY_CR8_STORE)
    ):
        return instruction_exit(cpu, EXIT_REASON_CR, number | 0x10 | (gpr << 8))
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_write_cr(
    cpu: cython.pointer(Cpu), number: cython.int, gpr: cython.int, value: cython.pointer(u64)
) -> cython.int:
    """MOV to CR0, CR3, CR4 or CR8; value[0] is adjusted by the guest/host masks. FAULT where VMX operation fixes a bit."""
    if not cpu.in_guest:
        return NEXT
    if number == 0:
        if (value[0] ^ cpu.cr0_shadow) & cpu.cr0_mask:
            return instruction_exit(cpu, EXIT_REASON_CR, gpr << 8)
        value[0] = (value[0] & ~cpu.cr0_mask) | (cpu.cr0 & cpu.cr0_mask)
        return cr0_fixed(cpu, value[0])
    if number == 4:
        if (value[0] ^ cpu.cr4_shadow) & cpu.cr4_mask:
            return instruction_exit(cpu, EXIT_REASON_CR, 4 | (gpr << 8))
        value[0] = (value[0] & ~cpu.cr4_mask) | (cpu.cr4 & cpu.cr4_mask)
        return NEXT if value[0] & CR4_VMXE else raise_fault(cpu, EXC_GP, 0)
    if number == 3 and cpu.primary_controls & PRIMARY_CR3_LOAD and not is_cr3_target(cpu, value[0]):
        return instruction_exit(cpu, EXIT_REASON_CR, 3 | (gpr << 8))
    if number == 8 and cpu.primary_controls & PRIMARY_CR8_LOAD:
        return instruction_exit(cpu, EXIT_REASON_CR, 8 | (gpr << 8))
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_cr3_target(cpu: cython.pointer(Cpu), value: u64) -> cython.bint:
    """Whether a CR3 is one that the guest may load without an exit (SDM 3C 25.6.7)."""
    i: cython.int
    for i in range(cython.cast(cython.int, vmcs_get(cpu.vmcs, FIELD_CR3_TARGET_COUNT))):
        if value == vmcs_get(cpu.vmcs, FIELD_CR3_TARGET0 + 2 * i):
            return True
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cr0_fixed(cpu: cython.pointer(Cpu), value: u64) -> cython.int:
    """PE and PG must be set in VMX operation unless the guest is unrestricted (SDM 3C 24.8): NEXT or FAULT.

    This processor's IA32_VMX_CR0_FIXED0 leaves NE to the guest.
    """
    must: u64 = 0
    if not cpu.secondary_controls & SECONDARY_UNRESTRICTED:
        must = CR0_PE | CR0_PG
    return NEXT if (value & must) == must else raise_fault(cpu, EXC_GP, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_lmsw(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), value: cython.pointer(u64)) -> cython.int:
    """LMSW: value[0] is the whole new CR0, adjusted by the mask."""
    owned: u64 = cpu.cr0_mask & 15
    memory: cython.bint = (insn.flags & INSN_MEM) != 0
    if not cpu.in_guest:
        return NEXT
    if ((value[0] ^ cpu.cr0_shadow) & owned & 14) or (owned & value[0] & ~cpu.cr0_shadow & 1):
        if memory:
            cpu.exit_linear = effective_address(cpu, insn) + cpu.base[insn_segment(insn)]
        return instruction_exit(
            cpu, EXIT_REASON_CR, (3 << 4) | ((1 << 6) if memory else 0) | ((value[0] & 0xFFFF) << 16)
        )
    value[0] = (value[0] & ~owned) | (cpu.cr0 & owned)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_clts(cpu: cython.pointer(Cpu)) -> cython.int:
    """CLTS; BRANCH: done, CR0 stays as it is."""
    if not cpu.in_guest or not cpu.cr0_mask & CR0_TS:
        return NEXT
    if cpu.cr0_shadow & CR0_TS:
        return instruction_exit(cpu, EXIT_REASON_CR, 2 << 4)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_debug_register(cpu: cython.pointer(Cpu), number: cython.int, write: cython.bint, gpr: cython.int) -> cython.int:
    """MOV to or from a debug register."""
    if cpu.in_guest and cpu.primary_controls & PRIMARY_MOV_DR:
        return instruction_exit(cpu, EXIT_REASON_DR, number | (0 if write else 0x10) | (gpr << 8))
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def io_intercepted(cpu: cython.pointer(Cpu), port: u32, size: u32) -> cython.bint:
    """Whether a port access exits: by the I/O bitmaps if they are used, else by the unconditional control (SDM 3C 26.1.3)."""
    i: u32
    if not cpu.primary_controls & PRIMARY_IO_BITMAPS:
        return (cpu.primary_controls & PRIMARY_UNCONDITIONAL_IO) != 0
    if port + size > 0x10000:
        return True
    for i in range(port, port + size):
        if (cpu.io_bitmap[i >> 15][(i & 0x7FFF) >> 3] >> (i & 7)) & 1:
            return True
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_io(
    cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), port: u32, size: cython.int, is_in: cython.bint, gva: u64
) -> cython.int:
    """IN, OUT, INS, OUTS (cpu.io_string: a string instruction with its memory operand at `gva`); SDM 3C table 28-5."""
    qualification: u64 = (size - 1) | (port << 16)
    if not cpu.in_guest or cpu.window != cython.NULL or not io_intercepted(cpu, port, size):
        return NEXT
    if is_in:
        qualification |= 8
    if cpu.io_string:
        qualification |= 0x10
        if insn.flags & (INSN_REP | INSN_REPNE):
            qualification |= 0x20
        cpu.exit_linear = gva
        cpu.exit_information = ((2 - (insn.flags & INSN_ASIZE)) << 7) | ((ES if is_in else insn_segment(insn)) << 15)
    elif insn.imm >= 0:
        qualification |= 0x40
    return instruction_exit(cpu, EXIT_REASON_IO, qualification)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_msr(cpu: cython.pointer(Cpu), index: u32, write: cython.bint) -> cython.int:
    """RDMSR, WRMSR: by the MSR bitmaps, else always (SDM 3C 25.6.9)."""
    reason: u32 = EXIT_REASON_WRMSR if write else EXIT_REASON_RDMSR
    place: u64 = index >> 3
    if not cpu.in_guest:
        return NEXT
    if cpu.msr_bitmap == cython.NULL:
        return instruction_exit(cpu, reason, 0)
    if index > 0x1FFF:
        if (index & cython.cast(u64, 0xFFFFE000)) != cython.cast(u64, 0xC0000000):
            return instruction_exit(cpu, reason, 0)
        place = 1024 + ((index & 0x1FFF) >> 3)
    if (cpu.msr_bitmap[place + (2048 if write else 0)] >> (index & 7)) & 1:
        return instruction_exit(cpu, reason, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_task_switch(cpu: cython.pointer(Cpu), selector: u32, source: cython.int) -> cython.int:
    """Task switches always exit (SDM 3C 26.2): source 0 CALL, 1 IRET, 2 JMP, 3 task gate in the IDT.

    While the window is open the processor carries them out, on the hypervisor's behalf.
    """
    if not cpu.in_guest or cpu.window != cython.NULL:
        return NEXT
    if source != TASK_GATE:
        cpu.exit_length = insn_length(cpu.insn)
    elif (cpu.vectoring_info & INFO_KIND) >= (KIND_SOFTWARE << INFO_KIND_SHIFT):
        cpu.exit_length = cpu.vectoring_length
    return request_exit(cpu, EXIT_REASON_TASK_SWITCH, selector | (cython.cast(u64, source) << 30))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_tsc(cpu: cython.pointer(Cpu), tsc: u64) -> u64:
    """What the guest sees of a time-stamp counter value: scaled, then moved (SDM 3C 26.3; 25.6.5)."""
    if cpu.tsc_multiplier:
        tsc = scale_tsc(tsc, cpu.tsc_multiplier)
    return tsc + cpu.tsc_offset


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def scale_tsc(tsc: u64, multiplier: u64) -> u64:
    """Bits 111 to 48 of the product: the multiplier has 48 bits behind the point (SDM 3C 25.6.5)."""
    low: u64 = (tsc & LOW32) * (multiplier & LOW32)
    middle: u64 = (tsc >> 32) * (multiplier & LOW32) + (low >> 32)
    other: u64 = (tsc & LOW32) * (multiplier >> 32) + (middle & LOW32)
    high: u64 = (tsc >> 32) * (multiplier >> 32) + (middle >> 32) + (other >> 32)
    return (high << 16) | ((other & LOW32) >> 16)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def port_in(cpu: cython.pointer(Cpu), port: u32, size: cython.int) -> u64:
    """IN that no control intercepts: through the window, else all ones: nothing answers on this processor's own bus."""
    value: u64 = ALL_ONES
    if cpu.window != cython.NULL:
        value = window_port_read(cpu, port, size)
        window_touched(cpu)
    return value & ((cython.cast(u64, 1) << (8 * size)) - 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def port_out(cpu: cython.pointer(Cpu), port: u32, size: cython.int, value: u64) -> cython.void:
    """OUT that no control intercepts."""
    if cpu.window != cython.NULL:
        window_port_write(cpu, port, size, value & ((cython.cast(u64, 1) << (8 * size)) - 1))
        window_touched(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_pause(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PAUSE: nothing, or an exit."""
    if cpu.secondary_controls & SECONDARY_PAUSE_LOOP and cpu.in_guest and not cpu.cpl and in_pause_loop(cpu):
        return instruction_exit(cpu, EXIT_REASON_PAUSE, 0)
    return vmx_intercept(cpu, EXIT_REASON_PAUSE)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def in_pause_loop(cpu: cython.pointer(Cpu)) -> cython.bint:
    """Whether PAUSEs at most PLE_GAP apart have gone on for longer than PLE_WINDOW (SDM 3C 26.1.3), in instructions."""
    now: u64 = instructions_retired(cpu)
    if cpu.waits_out:
        return False
    if now - cpu.pause_last > vmcs_get(cpu.vmcs, FIELD_PLE_GAP):
        cpu.pause_first = now
    cpu.pause_last = now
    if now - cpu.pause_first <= vmcs_get(cpu.vmcs, FIELD_PLE_WINDOW):
        return False
    cpu.pause_first = now
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_instruction_reason(number: i64) -> u32:
    """The exit reason of a VMX instruction, from what its decoding left in Insn.imm (see opcodes_system.py).

    VMMCALL (D9H) is AMD's and exits as VMCALL: KVM lets guests call it by either, which it finds out by making every #UD exit
    (api.rst, KVM_CAP_DISABLE_QUIRKS2).
    """
    if number == 0xC1 or number == 0xD9:
        return EXIT_REASON_VMCALL
    if number == 0xC701:
        return EXIT_REASON_VMCALL + 1  # VMCLEAR
    if number == 0xC2:
        return EXIT_REASON_VMCALL + 2  # VMLAUNCH
    if number == 0xC700:
        return EXIT_REASON_VMCALL + 3  # VMPTRLD
    if number == 0xC707:
        return EXIT_REASON_VMCALL + 4  # VMPTRST
    if number == 0x78:
        return EXIT_REASON_VMCALL + 5  # VMREAD
    if number == 0xC3:
        return EXIT_REASON_VMCALL + 6  # VMRESUME
    if number == 0x79:
        return EXIT_REASON_VMCALL + 7  # VMWRITE
    if number == 0xC4:
        return EXIT_REASON_VMCALL + 8  # VMXOFF
    if number == 0xC702:
        return EXIT_REASON_VMCALL + 9  # VMXON
    if number == 0x3880:
        return EXIT_REASON_INVEPT
    if number == 0x3881:
        return EXIT_REASON_INVVPID
    return EXIT_REASON_VMFUNC


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_vmx(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """VMX instructions. In a guest all of them exit, but VMFUNC, whose control does not exist here (SDM 3C 26.1.2, 31.3)."""
    reason: u32 = vmx_instruction_reason(insn.imm)
    if not cpu.in_guest or reason == EXIT_REASON_VMFUNC:
        return raise_plain(cpu, EXC_UD)
    if reason != EXIT_REASON_VMCALL:
        if not cpu.cr0 & CR0_PE or cpu.rflags & FLAG_VM or not cpu.cr4 & CR4_VMXE:
            return raise_plain(cpu, EXC_UD)
        if cpu.efer & EFER_LMA and not cpu.segment[CS].attributes & AR_L:
            return raise_plain(cpu, EXC_UD)
        cpu.exit_information = operand_information(cpu, insn) | (cython.cast(u32, insn.reg >> 3) << 28)
    return instruction_exit(cpu, reason, cython.cast(u64, cython.cast(i64, insn.disp)) if insn.flags & INSN_MEM else 0)
