"""The VMCS: storage, VMREAD and VMWRITE, and the guest-state area, which lives in the Cpu while the VMCS is loaded."""

import cython

from belljar.soft.processor.fields import Field

vmcs_exists = cython.declare(u8[1024])


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def field_slot(encoding: u32) -> u32:
    """Where a field is stored: width, type and index of its encoding put together."""
    return ((encoding >> 13) & 3) << 8 | ((encoding >> 10) & 3) << 6 | ((encoding >> 1) & 0x3F)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def vmcs_get(vmcs: cython.pointer(Vmcs), encoding: u32) -> u64:
    """The stored value of a field."""
    return vmcs.field[field_slot(encoding)]


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def vmcs_set(vmcs: cython.pointer(Vmcs), encoding: u32, value: u64) -> cython.void:
    """Store a field."""
    vmcs.field[field_slot(encoding)] = value


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_guest_field(encoding: u32) -> cython.bint:
    """Whether a field belongs to the guest-state area (SDM 3C table 25-21)."""
    return ((encoding >> 10) & 3) == 2


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmcs_supports(encoding: u64) -> cython.bint:
    """Whether there is such a field; the "high" encodings of 64-bit fields included."""
    if encoding > 0x6FFF or encoding & 0x1380:
        return False
    if encoding & 1 and ((encoding >> 13) & 3) != 1:
        return False
    return vmcs_exists[field_slot(cython.cast(u32, encoding))] != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def guest_read(cpu: cython.pointer(Cpu), encoding: u32) -> u64:
    """A field of the guest-state area, from the Cpu. Fields that the Cpu does not hold come from storage."""
    n: cython.int = (encoding >> 1) & 0x3F
    group: u32 = encoding >> 10
    if group == 0x02:  # 16-bit
        if n < 8:
            return cpu.segment[n].selector
    elif group == 0x12:  # 32-bit
        if n < 8:
            return cpu.segment[n].limit
        if 10 <= n < 18:
            return cpu.segment[n - 10].attributes
        if encoding == FIELD_GUEST_GDTR_LIMIT:
            return cpu.gdt_limit
        if encoding == FIELD_GUEST_IDTR_LIMIT:
            return cpu.idt_limit
        if encoding == FIELD_GUEST_INTERRUPTIBILITY:
            return cpu.interruptibility
        if encoding == FIELD_GUEST_ACTIVITY:
            return cpu.activity
        if encoding == FIELD_GUEST_SYSENTER_CS:
            return cpu.sysenter_cs & LOW32
    elif group == 0x0A:  # 64-bit
        if encoding == FIELD_GUEST_DEBUGCTL:
            return cpu.debugctl
        if encoding == FIELD_GUEST_PAT:
            return cpu.pat
        if encoding == FIELD_GUEST_EFER:
            return cpu.efer
        if FIELD_GUEST_PDPTE0 <= encoding <= FIELD_GUEST_PDPTE3:
            return cpu.pdpte[(encoding - FIELD_GUEST_PDPTE0) >> 1]
    else:
        return guest_read_natural(cpu, encoding)
    return vmcs_get(cpu.vmcs, encoding)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def guest_read_natural(cpu: cython.pointer(Cpu), encoding: u32) -> u64:
    """`guest_read` for the fields of natural width."""
    if FIELD_GUEST_ES_BASE <= encoding <= FIELD_GUEST_TR_BASE:
        return cpu.base[(encoding - FIELD_GUEST_ES_BASE) >> 1]
    if encoding == FIELD_GUEST_CR0:
        return cpu.cr0
    if encoding == FIELD_GUEST_CR3:
        return cpu.cr3
    if encoding == FIELD_GUEST_CR4:
        return cpu.cr4
    if encoding == FIELD_GUEST_GDTR_BASE:
        return cpu.gdt_base
    if encoding == FIELD_GUEST_IDTR_BASE:
        return cpu.idt_base
    if encoding == FIELD_GUEST_DR7:
        return cpu.dr[7]
    if encoding == FIELD_GUEST_RSP:
        return cpu.gpr[RSP]
    if encoding == FIELD_GUEST_RIP:
        return cpu.rip
    if encoding == FIELD_GUEST_RFLAGS:
        return get_rflags(cpu)
    if encoding == FIELD_GUEST_PENDING_DEBUG:
        return cpu.pending_debug | (0x1000 if cpu.pending_debug & 15 else 0)
    if encoding == FIELD_GUEST_SYSENTER_ESP:
        return cpu.sysenter_esp
    if encoding == FIELD_GUEST_SYSENTER_EIP:
        return cpu.sysenter_eip
    return vmcs_get(cpu.vmcs, encoding)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def save_guest(cpu: cython.pointer(Cpu)) -> cython.void:
    """Bring the whole guest-state area from the Cpu into storage; the VMCS is not loaded any more."""
    n: cython.int
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    if not vmcs.loaded:
        return
    for n in range(64):
        store_guest_field(cpu, FIELD_GUEST_ES_SELECTOR + 2 * n)
        store_guest_field(cpu, FIELD_VMCS_LINK_POINTER + 2 * n)
        store_guest_field(cpu, FIELD_GUEST_ES_LIMIT + 2 * n)
        store_guest_field(cpu, FIELD_GUEST_CR0 + 2 * n)
    vmcs.loaded = 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def store_guest_field(cpu: cython.pointer(Cpu), encoding: u32) -> cython.void:
    """Bring one field into storage, unless a VM-exit control says that it is not saved (SDM 3C 28.3.1)."""
    if not vmcs_exists[field_slot(encoding)]:
        return
    if encoding == FIELD_GUEST_EFER and not cpu.exit_controls & EXIT_SAVE_EFER:
        return
    if encoding == FIELD_GUEST_PAT and not cpu.exit_controls & EXIT_SAVE_PAT:
        return
    if (encoding == FIELD_GUEST_DR7 or encoding == FIELD_GUEST_DEBUGCTL) and not cpu.exit_controls & EXIT_SAVE_DEBUG:
        return
    vmcs_set(cpu.vmcs, encoding, guest_read(cpu, encoding))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_read(cpu: cython.pointer(Cpu), encoding: u64, value: cython.pointer(u64)) -> u32:
    """VMREAD of the current VMCS: 0, or a VM-instruction error."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    if vmcs == cython.NULL:
        return ERROR_INVALID
    if not vmcs_supports(encoding):
        vmcs_set(vmcs, FIELD_INSTRUCTION_ERROR, ERROR_UNSUPPORTED_FIELD)
        return ERROR_UNSUPPORTED_FIELD
    if vmcs.loaded and is_guest_field(cython.cast(u32, encoding)):
        value[0] = guest_read(cpu, cython.cast(u32, encoding) & 0xFFFE)
    else:
        value[0] = vmcs_get(vmcs, cython.cast(u32, encoding))
    if encoding & 1:
        value[0] >>= 32
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_write(cpu: cython.pointer(Cpu), encoding: u64, value: u64) -> u32:
    """VMWRITE to the current VMCS: 0, or a VM-instruction error. Values are cut to the field's width."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    kind: u32 = cython.cast(u32, (encoding >> 10) & 3)
    width: u32 = cython.cast(u32, (encoding >> 13) & 3)
    slot_number: u32
    if vmcs == cython.NULL:
        return ERROR_INVALID
    if not vmcs_supports(encoding):
        vmcs_set(vmcs, FIELD_INSTRUCTION_ERROR, ERROR_UNSUPPORTED_FIELD)
        return ERROR_UNSUPPORTED_FIELD
    if kind == 1:
        vmcs_set(vmcs, FIELD_INSTRUCTION_ERROR, ERROR_READ_ONLY_FIELD)
        return ERROR_READ_ONLY_FIELD
    if vmcs.loaded and kind == 2:
        if write_loaded_guest(cpu, encoding, value):
            return 0
        save_guest(cpu)
    elif encoding == FIELD_TSC_OFFSET:
        if cpu.primary_controls & PRIMARY_TSC_OFFSET:
            cpu.tsc_offset = value  # needs no check; a VMCS that was not entered yet loads it at entry
    elif not FIELD_ENTRY_INTERRUPTION_INFO <= encoding <= FIELD_ENTRY_INSTRUCTION_LENGTH:
        vmcs.checked = 0
    slot_number = field_slot(cython.cast(u32, encoding))
    if width == 0:
        value &= 0xFFFF
    elif width == 2:
        value &= LOW32
    elif encoding & 1:
        value = (vmcs.field[slot_number] & LOW32) | (value << 32)
    vmcs.field[slot_number] = value
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_loaded_guest(cpu: cython.pointer(Cpu), encoding: u64, value: u64) -> cython.bint:
    """Write what hypervisors write at every exit straight into the Cpu where it needs no check; whether that could be done."""
    if encoding == FIELD_GUEST_RIP:
        if cpu.address_mask_bits == 64:
            if not is_canonical(cpu, value):
                return False
        elif value > LOW32:
            return False
        cpu.rip = value
        return True
    if encoding == FIELD_GUEST_RSP:
        cpu.gpr[RSP] = value
        return True
    if encoding == FIELD_GUEST_INTERRUPTIBILITY and value == 0:
        cpu.interruptibility = 0
        update_mode(cpu)
        return True
    return False


for each in Field:
    vmcs_exists[field_slot(each)] = 1
