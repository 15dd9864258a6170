"""System instructions."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_from_control(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV r, CRn: control register insn.reg >> 3, general register insn.rm."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_to_control(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV CRn, r."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_from_debug(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV r, DRn."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_to_debug(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV DRn, r."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lgdt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LGDT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lidt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LIDT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sgdt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SGDT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sidt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SIDT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_smsw(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SMSW."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lmsw(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LMSW."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_clts(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CLTS."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_invlpg(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INVLPG."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_invpcid(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INVPCID."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_invd(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INVD."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_wbinvd(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """WBINVD."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_syscall(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SYSCALL."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sysret(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SYSRET."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sysenter(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SYSENTER."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sysexit(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SYSEXIT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_swapgs(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SWAPGS."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_fsgsbase(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE: ModRM.reg (insn.imm) 0..3."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_stac(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """STAC."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_clac(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CLAC."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_hlt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """HLT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_cli(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CLI."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sti(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """STI."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_pushf(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSHF."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_popf(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """POPF."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_in(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """IN AL/AX/EAX, imm8 or DX: insn.imm the port or -1 for DX; size from operation_size."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_out(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OUT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_ins(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INS, REP INS."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_outs(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OUTS, REP OUTS."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdtsc(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDTSC."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdtscp(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDTSCP."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdpmc(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDPMC."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdpid(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDPID."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdrand(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDRAND."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdseed(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDSEED."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_monitor(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MONITOR."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mwait(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MWAIT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdpkru(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDPKRU."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_wrpkru(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """WRPKRU."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_xgetbv(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """XGETBV."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_xsetbv(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """XSETBV."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rsm(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RSM."""
    return raise_plain(cpu, EXC_UD)
