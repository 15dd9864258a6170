"""The checks of VM entry on the guest-state area (SDM 3C 27.3.1). They look at storage, before anything is loaded."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_guest_state(cpu: cython.pointer(Cpu), vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """All of 27.3.1 but the VMCS link pointer and the PDPTEs, which have exit qualifications of their own."""
    return (
        check_guest_controls(cpu, vmcs)
        and check_guest_segments(cpu, vmcs)
        and check_guest_tables(cpu, vmcs)
        and check_guest_flags(cpu, vmcs)
        and check_guest_activity(vmcs)
    )


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_unrestricted(vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """Whether the unrestricted-guest control is in force."""
    return (vmcs_get(vmcs, FIELD_PRIMARY_CONTROLS) & PRIMARY_SECONDARY) != 0 and (
        vmcs_get(vmcs, FIELD_SECONDARY_CONTROLS) & SECONDARY_UNRESTRICTED
    ) != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_guest_controls(cpu: cython.pointer(Cpu), vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """Control registers, debug registers and MSRs (SDM 3C 27.3.1.1)."""
    entry: u64 = vmcs_get(vmcs, FIELD_ENTRY_CONTROLS)
    cr0: u64 = vmcs_get(vmcs, FIELD_GUEST_CR0)
    cr4: u64 = vmcs_get(vmcs, FIELD_GUEST_CR4)
    efer: u64 = vmcs_get(vmcs, FIELD_GUEST_EFER)
    wide: cython.bint = (entry & ENTRY_GUEST_64) != 0
    if not within(cr0, 0 if is_unrestricted(vmcs) else CR0_PG | CR0_PE, LOW32):
        return False
    if cr0 & CR0_PG and not cr0 & CR0_PE:
        return False
    if not within(cr4, CR4_VMXE, cr4_allowed(cpu) | CR4_VMXE) or vmcs_get(vmcs, FIELD_GUEST_CR3) >> PHYSICAL_BITS:
        return False
    if wide and not (cr0 & CR0_PG and cr4 & CR4_PAE):
        return False
    if not wide and cr4 & CR4_PCIDE:
        return False
    if entry & ENTRY_LOAD_DEBUG and (
        vmcs_get(vmcs, FIELD_GUEST_DEBUGCTL) & ~cython.cast(u64, DEBUGCTL_DEFINED) or vmcs_get(vmcs, FIELD_GUEST_DR7) >> 32
    ):
        return False
    if not is_address(cpu, vmcs_get(vmcs, FIELD_GUEST_SYSENTER_ESP)):
        return False
    if not is_address(cpu, vmcs_get(vmcs, FIELD_GUEST_SYSENTER_EIP)):
        return False
    if entry & ENTRY_LOAD_PAT and not valid_pat(vmcs_get(vmcs, FIELD_GUEST_PAT)):
        return False
    if entry & ENTRY_LOAD_EFER:
        if efer & ~efer_allowed(cpu) or ((efer & EFER_LMA) != 0) != wide:
            return False
        if cr0 & CR0_PG and ((efer & EFER_LMA) != 0) != ((efer & EFER_LME) != 0):
            return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_guest_segments(cpu: cython.pointer(Cpu), vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """Segment registers (SDM 3C 27.3.1.2)."""
    n: cython.int
    tr_rights: u64 = vmcs_get(vmcs, FIELD_GUEST_TR_RIGHTS)
    ldtr_rights: u64 = vmcs_get(vmcs, FIELD_GUEST_LDTR_RIGHTS)
    wide: cython.bint = (vmcs_get(vmcs, FIELD_ENTRY_CONTROLS) & ENTRY_GUEST_64) != 0
    virtual_8086: cython.bint = (vmcs_get(vmcs, FIELD_GUEST_RFLAGS) & FLAG_VM) != 0
    for n in range(6):
        if virtual_8086:
            if not check_virtual_8086_segment(vmcs, n):
                return False
        elif not check_code_or_data_segment(vmcs, n, wide):
            return False
    for n in range(FS, TR + 1):
        if n == LDTR and ldtr_rights & AR_UNUSABLE:
            continue
        if not is_address(cpu, vmcs_get(vmcs, FIELD_GUEST_ES_BASE + 2 * n)):
            return False
    if (
        not virtual_8086
        and not is_unrestricted(vmcs)
        and ((vmcs_get(vmcs, FIELD_GUEST_SS_SELECTOR) ^ vmcs_get(vmcs, FIELD_GUEST_CS_SELECTOR)) & 3)
    ):
        return False
    # TR: a busy TSS; LDTR, if usable: an LDT.
    if vmcs_get(vmcs, FIELD_GUEST_TR_SELECTOR) & 4 or not check_granularity(vmcs, TR):
        return False
    if (tr_rights & cython.cast(u64, 0xFFFF0FF0) & ~cython.cast(u64, 0xF060)) != AR_P:
        return False
    if (tr_rights & AR_TYPE) != 11 and ((tr_rights & AR_TYPE) != 3 or wide):
        return False
    if ldtr_rights & AR_UNUSABLE:
        return True
    if vmcs_get(vmcs, FIELD_GUEST_LDTR_SELECTOR) & 4 or not check_granularity(vmcs, LDTR):
        return False
    return (ldtr_rights & cython.cast(u64, 0xFFFF0FFF) & ~cython.cast(u64, 0xF060)) == (AR_P | 2)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_granularity(vmcs: cython.pointer(Vmcs), n: cython.int) -> cython.bint:
    """G must be 0 if any of the limit's low 12 bits is 0, and 1 if any of its high 12 bits is 1."""
    limit: u64 = vmcs_get(vmcs, FIELD_GUEST_ES_LIMIT + 2 * n)
    large: cython.bint = (vmcs_get(vmcs, FIELD_GUEST_ES_RIGHTS + 2 * n) & AR_G) != 0
    if (limit & 0xFFF) != 0xFFF and large:
        return False
    return large or (limit & cython.cast(u64, 0xFFF00000)) == 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_virtual_8086_segment(vmcs: cython.pointer(Vmcs), n: cython.int) -> cython.bint:
    """ES to GS in virtual-8086 mode."""
    return (
        vmcs_get(vmcs, FIELD_GUEST_ES_BASE + 2 * n) == vmcs_get(vmcs, FIELD_GUEST_ES_SELECTOR + 2 * n) << 4
        and vmcs_get(vmcs, FIELD_GUEST_ES_LIMIT + 2 * n) == 0xFFFF
        and vmcs_get(vmcs, FIELD_GUEST_ES_RIGHTS + 2 * n) == 0xF3
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_code_or_data_segment(vmcs: cython.pointer(Vmcs), n: cython.int, wide: cython.bint) -> cython.bint:
    """ES to GS outside virtual-8086 mode. CS is always usable."""
    rights: u64 = vmcs_get(vmcs, FIELD_GUEST_ES_RIGHTS + 2 * n)
    selector: u64 = vmcs_get(vmcs, FIELD_GUEST_ES_SELECTOR + 2 * n)
    kind: u64 = rights & AR_TYPE
    privilege: u64 = (rights >> AR_DPL_SHIFT) & 3
    free: cython.bint = is_unrestricted(vmcs)
    if n == CS and not check_code_segment(vmcs, rights, wide):
        return False
    if n == SS:
        if not free and privilege != (selector & 3):
            return False
        # In real mode, and with a data segment in CS, the stack's privilege is 0.
        if privilege and (
            (vmcs_get(vmcs, FIELD_GUEST_CS_RIGHTS) & AR_TYPE) == 3 or not vmcs_get(vmcs, FIELD_GUEST_CR0) & CR0_PE
        ):
            return False
    if n != CS and rights & AR_UNUSABLE:
        return True
    if n == SS and kind != 3 and kind != 7:
        return False
    if n != SS and n != CS:
        if not kind & AR_ACCESSED or (kind & AR_CODE and not kind & AR_WRITABLE):
            return False
        if not free and kind <= 11 and privilege < (selector & 3):
            return False
    if n < FS and vmcs_get(vmcs, FIELD_GUEST_ES_BASE + 2 * n) >> 32:
        return False
    if (rights & (AR_S | AR_P)) != (AR_S | AR_P) or rights & cython.cast(u64, 0xFFFE0F00):
        return False
    return check_granularity(vmcs, n)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_code_segment(vmcs: cython.pointer(Vmcs), rights: u64, wide: cython.bint) -> cython.bint:
    """The type and privilege of CS, and its D/B in 64-bit mode."""
    kind: u64 = rights & AR_TYPE
    privilege: u64 = (rights >> AR_DPL_SHIFT) & 3
    stack_privilege: u64 = (vmcs_get(vmcs, FIELD_GUEST_SS_RIGHTS) >> AR_DPL_SHIFT) & 3
    if rights & AR_UNUSABLE or (wide and rights & AR_L and rights & AR_DB):
        return False
    if kind == 3:
        return is_unrestricted(vmcs) and privilege == 0
    if kind == 9 or kind == 11:
        return privilege == stack_privilege
    return (kind == 13 or kind == 15) and privilege <= stack_privilege


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_guest_tables(cpu: cython.pointer(Cpu), vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """GDTR and IDTR (SDM 3C 27.3.1.3)."""
    return (
        is_address(cpu, vmcs_get(vmcs, FIELD_GUEST_GDTR_BASE))
        and is_address(cpu, vmcs_get(vmcs, FIELD_GUEST_IDTR_BASE))
        and vmcs_get(vmcs, FIELD_GUEST_GDTR_LIMIT) <= 0xFFFF
        and vmcs_get(vmcs, FIELD_GUEST_IDTR_LIMIT) <= 0xFFFF
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_guest_flags(cpu: cython.pointer(Cpu), vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """RIP and RFLAGS (SDM 3C 27.3.1.4)."""
    rip: u64 = vmcs_get(vmcs, FIELD_GUEST_RIP)
    flags: u64 = vmcs_get(vmcs, FIELD_GUEST_RFLAGS)
    info: u64 = vmcs_get(vmcs, FIELD_ENTRY_INTERRUPTION_INFO)
    wide: cython.bint = (vmcs_get(vmcs, FIELD_ENTRY_CONTROLS) & ENTRY_GUEST_64) != 0
    if wide and vmcs_get(vmcs, FIELD_GUEST_CS_RIGHTS) & AR_L:
        if not canonical_for(rip, 58 if has_feature(cpu, FEATURE_LA57) else 49):  # it need not be canonical itself
            return False
    elif rip >> 32:
        return False
    if flags >> 22 or flags & 0x8028 or not flags & FLAG_ONE:
        return False
    if flags & FLAG_VM and (wide or not vmcs_get(vmcs, FIELD_GUEST_CR0) & CR0_PE):
        return False
    return not (info & INFO_VALID and (info & INFO_KIND) == (KIND_EXTERNAL << INFO_KIND_SHIFT) and not flags & FLAG_IF)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_guest_activity(vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """Activity, interruptibility and pending debug exceptions (SDM 3C 27.3.1.5)."""
    activity: u64 = vmcs_get(vmcs, FIELD_GUEST_ACTIVITY)
    blocking: u64 = vmcs_get(vmcs, FIELD_GUEST_INTERRUPTIBILITY)
    pending: u64 = vmcs_get(vmcs, FIELD_GUEST_PENDING_DEBUG)
    flags: u64 = vmcs_get(vmcs, FIELD_GUEST_RFLAGS)
    info: u64 = vmcs_get(vmcs, FIELD_ENTRY_INTERRUPTION_INFO)
    kind: u64 = (info & INFO_KIND) >> INFO_KIND_SHIFT
    shadow: u64 = blocking & (SHADOW_STI | SHADOW_MOV_SS)
    step: cython.bint
    if activity > ACTIVITY_SIPI or (activity != ACTIVE and shadow):
        return False
    if activity == ACTIVITY_HLT and (vmcs_get(vmcs, FIELD_GUEST_SS_RIGHTS) >> AR_DPL_SHIFT) & 3:
        return False
    if blocking >> 4 or shadow == (SHADOW_STI | SHADOW_MOV_SS) or blocking & BLOCKED_SMI:
        return False
    if blocking & SHADOW_STI and not flags & FLAG_IF:
        return False
    if info & INFO_VALID:
        if not injection_allowed(activity, kind, info & INFO_VECTOR):
            return False
        if kind == KIND_EXTERNAL and shadow:
            return False
        if kind == KIND_NMI and (
            blocking & SHADOW_MOV_SS
            or (blocking & BLOCKED_NMI and vmcs_get(vmcs, FIELD_PIN_CONTROLS) & PIN_VIRTUAL_NMI)
        ):
            return False
    if pending & ~cython.cast(u64, 0x500F):
        return False
    if shadow or activity == ACTIVITY_HLT:
        # A trap that was held back is there exactly if single-stepping by instructions is on.
        step = (flags & FLAG_TF) != 0 and not vmcs_get(vmcs, FIELD_GUEST_DEBUGCTL) & 2
        return ((pending & 0x4000) != 0) == step
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def injection_allowed(activity: u64, kind: u64, vector: u64) -> cython.bint:
    """Which events can be injected into a guest that is not active."""
    if activity == ACTIVE:
        return True
    if activity == ACTIVITY_HLT:
        return (
            kind == KIND_EXTERNAL
            or kind == KIND_NMI
            or kind == KIND_OTHER
            or (kind == KIND_HARDWARE and (vector == EXC_DB or vector == EXC_MC))
        )
    if activity == ACTIVITY_SHUTDOWN:
        return kind == KIND_NMI or (kind == KIND_HARDWARE and vector == EXC_MC)
    return False
