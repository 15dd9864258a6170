"""The checks of VM entry on control fields and on host state (SDM 3C 27.2)."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def within(value: u64, must: u64, may: u64) -> cython.bint:
    """Whether all bits of `must`, and none beyond `may`, are set."""
    return (value & must) == must and (value & ~may) == 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_page_address(value: u64) -> cython.bint:
    """Whether a number is the physical address of a 4 KiB page."""
    return (value & ~PHYSICAL_ADDRESS) == 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def canonical_for(value: u64, bits: cython.int) -> cython.bint:
    """Whether an address of `bits` (48, or 57 with CR4.LA57) is canonical."""
    return cython.cast(u64, cython.cast(i64, value << (64 - bits)) >> (64 - bits)) == value


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def valid_pat(value: u64) -> cython.bint:
    """Whether each byte of a PAT is a memory type: 0, 1, 4, 5, 6 or 7 (SDM 3A 12.12.2)."""
    i: cython.int
    kind: u64
    for i in range(8):
        kind = (value >> (8 * i)) & 0xFF
        if kind > 7 or kind == 2 or kind == 3:
            return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_execution_controls(vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """SDM 3C 27.2.1.1."""
    pin: u64 = vmcs_get(vmcs, FIELD_PIN_CONTROLS)
    primary: u64 = vmcs_get(vmcs, FIELD_PRIMARY_CONTROLS)
    secondary: u64 = vmcs_get(vmcs, FIELD_SECONDARY_CONTROLS) if primary & PRIMARY_SECONDARY else 0
    eptp: u64 = vmcs_get(vmcs, FIELD_EPT_POINTER)
    if not within(pin, PIN_MUST, PIN_MAY) or not within(primary, PRIMARY_MUST, PRIMARY_MAY):
        return False
    if not within(secondary, SECONDARY_MUST if primary & PRIMARY_SECONDARY else 0, SECONDARY_MAY) or vmcs_get(vmcs, FIELD_CR3_TARGET_COUNT) > 4:
        return False
    if primary & PRIMARY_IO_BITMAPS and not (
        is_page_address(vmcs_get(vmcs, FIELD_IO_BITMAP_A)) and is_page_address(vmcs_get(vmcs, FIELD_IO_BITMAP_B))
    ):
        return False
    if primary & PRIMARY_MSR_BITMAPS and not is_page_address(vmcs_get(vmcs, FIELD_MSR_BITMAP)):
        return False
    if (pin & PIN_VIRTUAL_NMI and not pin & PIN_NMI) or (primary & PRIMARY_NMI_WINDOW and not pin & PIN_VIRTUAL_NMI):
        return False
    if secondary & SECONDARY_VPID and vmcs_get(vmcs, FIELD_VPID) == 0:
        return False
    if secondary & SECONDARY_TSC_SCALING and vmcs_get(vmcs, FIELD_TSC_MULTIPLIER) == 0:
        return False
    if secondary & SECONDARY_EPT:
        # Uncacheable or write-back, four levels, perhaps accessed and dirty flags (SDM 3C table 25-9).
        if ((eptp & 7) != 0 and (eptp & 7) != 6) or (eptp & 0x38) != 0x18 or eptp & 0xF80:
            return False
        return (eptp >> PHYSICAL_BITS) == 0
    return not secondary & SECONDARY_UNRESTRICTED


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def no_msr_areas(vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """Whether no MSR area is used: this processor has none (IA32_VMX_MISC recommends at most 0 entries)."""
    return (
        vmcs_get(vmcs, FIELD_EXIT_MSR_STORE_COUNT) == 0
        and vmcs_get(vmcs, FIELD_EXIT_MSR_LOAD_COUNT) == 0
        and vmcs_get(vmcs, FIELD_ENTRY_MSR_LOAD_COUNT) == 0
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_exit_controls(vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """SDM 3C 27.2.1.2."""
    controls: u64 = vmcs_get(vmcs, FIELD_EXIT_CONTROLS)
    if not within(controls, EXIT_MUST, EXIT_MAY):
        return False
    if controls & EXIT_SAVE_TIMER and not vmcs_get(vmcs, FIELD_PIN_CONTROLS) & PIN_PREEMPTION_TIMER:
        return False
    return no_msr_areas(vmcs)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def has_error_code(vector: u64) -> cython.bint:
    """Whether an exception pushes an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC (SDM 3A table 6-1)."""
    return vector == EXC_DF or (EXC_TS <= vector <= EXC_PF) or vector == EXC_AC


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_injection(vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """The event to inject (SDM 3C 27.2.1.3). What depends on guest state is checked with that."""
    info: u64 = vmcs_get(vmcs, FIELD_ENTRY_INTERRUPTION_INFO)
    vector: u64 = info & INFO_VECTOR
    kind: u64 = (info & INFO_KIND) >> INFO_KIND_SHIFT
    length: u64 = vmcs_get(vmcs, FIELD_ENTRY_INSTRUCTION_LENGTH)
    protected: cython.bint = True
    if not info & INFO_VALID:
        return True
    if kind == 1 or info & 0x7FFFF000:
        return False
    if (kind == KIND_NMI and vector != 2) or (kind == KIND_HARDWARE and vector > 31) or (kind == KIND_OTHER and vector):
        return False
    if vmcs_get(vmcs, FIELD_SECONDARY_CONTROLS) & SECONDARY_UNRESTRICTED:
        protected = (vmcs_get(vmcs, FIELD_GUEST_CR0) & CR0_PE) != 0
    if info & INFO_HAS_ERROR:
        if kind != KIND_HARDWARE or not has_error_code(vector) or not protected:
            return False
        if vmcs_get(vmcs, FIELD_ENTRY_EXCEPTION_ERROR) >> 16:
            return False
    elif kind == KIND_HARDWARE and has_error_code(vector) and protected:
        return False
    if kind == KIND_SOFTWARE or kind == KIND_PRIVILEGED or kind == KIND_SOFTWARE_EXC:
        return 0 < length <= 15
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_entry_controls(vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """SDM 3C 27.2.1.3, the event apart."""
    return within(vmcs_get(vmcs, FIELD_ENTRY_CONTROLS), ENTRY_MUST, ENTRY_MAY)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_host_state(vmcs: cython.pointer(Vmcs)) -> cython.bint:
    """SDM 3C 27.2.2 to 27.2.4, for a host in 64-bit mode: there is no other here."""
    controls: u64 = vmcs_get(vmcs, FIELD_EXIT_CONTROLS)
    cr4: u64 = vmcs_get(vmcs, FIELD_HOST_CR4)
    bits: cython.int = 57 if cr4 & CR4_LA57 else 48
    encoding: u32
    efer: u64 = vmcs_get(vmcs, FIELD_HOST_EFER)
    if not within(vmcs_get(vmcs, FIELD_HOST_CR0), CR0_PG | CR0_PE, LOW32):
        return False
    if not within(cr4, CR4_VMXE | CR4_PAE, CR4_MAY) or vmcs_get(vmcs, FIELD_HOST_CR3) >> PHYSICAL_BITS:
        return False
    if not controls & EXIT_HOST_64 or not canonical_for(vmcs_get(vmcs, FIELD_HOST_RIP), bits):
        return False
    for encoding in range(FIELD_HOST_ES_SELECTOR, FIELD_HOST_TR_SELECTOR + 2, 2):
        if vmcs_get(vmcs, encoding) & 7:
            return False
    if vmcs_get(vmcs, FIELD_HOST_CS_SELECTOR) == 0 or vmcs_get(vmcs, FIELD_HOST_TR_SELECTOR) == 0:
        return False
    for encoding in range(FIELD_HOST_FS_BASE, FIELD_HOST_SYSENTER_EIP + 2, 2):
        if not canonical_for(vmcs_get(vmcs, encoding), bits):
            return False
    if controls & EXIT_LOAD_PAT and not valid_pat(vmcs_get(vmcs, FIELD_HOST_PAT)):
        return False
    if controls & EXIT_LOAD_EFER:
        return within(efer, EFER_LMA | EFER_LME, EFER_MAY)
    return True
