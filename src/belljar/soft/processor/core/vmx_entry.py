"""VM entry: checks, loading the guest, injecting an event; and running until a way out (SDM 3C chapter 27)."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_controls(cpu: cython.pointer(Cpu)) -> u32:
    """Check controls and host state, and keep in the Cpu what execution looks at: 0 or a VM-instruction error."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    pin: u64 = vmcs_get(vmcs, FIELD_PIN_CONTROLS)
    if not (check_execution_controls(vmcs) and check_exit_controls(vmcs) and check_entry_controls(vmcs)):
        return ERROR_CONTROL_FIELDS
    if not check_host_state(vmcs):
        return ERROR_HOST_STATE
    cpu.pin_controls = cython.cast(u32, pin)
    cpu.primary_controls = cython.cast(u32, vmcs_get(vmcs, FIELD_PRIMARY_CONTROLS))
    cpu.secondary_controls = 0
    if cpu.primary_controls & PRIMARY_SECONDARY:
        cpu.secondary_controls = cython.cast(u32, vmcs_get(vmcs, FIELD_SECONDARY_CONTROLS))
    cpu.entry_controls = cython.cast(u32, vmcs_get(vmcs, FIELD_ENTRY_CONTROLS))
    cpu.exit_controls = cython.cast(u32, vmcs_get(vmcs, FIELD_EXIT_CONTROLS))
    cpu.exception_bitmap = cython.cast(u32, vmcs_get(vmcs, FIELD_EXCEPTION_BITMAP))
    cpu.cr0_mask = vmcs_get(vmcs, FIELD_CR0_MASK)
    cpu.cr0_shadow = vmcs_get(vmcs, FIELD_CR0_SHADOW)
    cpu.cr4_mask = vmcs_get(vmcs, FIELD_CR4_MASK)
    cpu.cr4_shadow = vmcs_get(vmcs, FIELD_CR4_SHADOW)
    cpu.tsc_offset = vmcs_get(vmcs, FIELD_TSC_OFFSET) if cpu.primary_controls & PRIMARY_TSC_OFFSET else 0
    cpu.tsc_multiplier = 0
    if cpu.primary_controls & PRIMARY_TSC_OFFSET and cpu.secondary_controls & SECONDARY_TSC_SCALING:
        cpu.tsc_multiplier = vmcs_get(vmcs, FIELD_TSC_MULTIPLIER)
    if not load_bitmaps(cpu):
        return ERROR_CONTROL_FIELDS
    change_eptp(cpu, vmcs_get(vmcs, FIELD_EPT_POINTER) if cpu.secondary_controls & SECONDARY_EPT else 0)
    vmcs.checked = 1
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_bitmaps(cpu: cython.pointer(Cpu)) -> cython.bint:
    """Find the I/O and MSR bitmaps; False if no memory is where they should be."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    cpu.io_bitmap[0] = cython.NULL
    cpu.io_bitmap[1] = cython.NULL
    cpu.msr_bitmap = cython.NULL
    if cpu.primary_controls & PRIMARY_IO_BITMAPS:
        cpu.io_bitmap[0] = host_pointer(cpu.host, vmcs_get(vmcs, FIELD_IO_BITMAP_A))
        cpu.io_bitmap[1] = host_pointer(cpu.host, vmcs_get(vmcs, FIELD_IO_BITMAP_B))
        if cpu.io_bitmap[0] == cython.NULL or cpu.io_bitmap[1] == cython.NULL:
            return False
    if cpu.primary_controls & PRIMARY_MSR_BITMAPS:
        cpu.msr_bitmap = host_pointer(cpu.host, vmcs_get(vmcs, FIELD_MSR_BITMAP))
        return cpu.msr_bitmap != cython.NULL
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def change_eptp(cpu: cython.pointer(Cpu), eptp: u64) -> cython.void:
    """Translate through other nested tables from now on; translations made through the old ones are forgotten."""
    if cpu.eptp != eptp:
        cpu.eptp = eptp
        forget_nested(cpu)
        flush_tlb(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fail_entry(cpu: cython.pointer(Cpu), qualification: u64) -> cython.int:
    """The guest state is not valid: exit reason 33 with bit 31, nothing of the guest loaded or changed (SDM 3C 27.8)."""
    cpu.exit_reason = EXIT_REASON_BAD_GUEST_STATE
    cpu.exit_qualification = qualification
    vmcs_set(cpu.vmcs, FIELD_EXIT_REASON, EXIT_REASON_BAD_GUEST_STATE | ENTRY_FAILURE)
    vmcs_set(cpu.vmcs, FIELD_EXIT_QUALIFICATION, qualification)
    return EXIT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_guest(cpu: cython.pointer(Cpu)) -> cython.int:
    """Check the guest-state area and load it: NEXT, or EXIT after a failed entry."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    n: cython.int
    pae: cython.bint
    if not check_guest_state(cpu, vmcs):
        return fail_entry(cpu, 0)
    if vmcs_get(vmcs, FIELD_VMCS_LINK_POINTER) != ALL_ONES:
        return fail_entry(cpu, 4)
    pae = (vmcs_get(vmcs, FIELD_GUEST_CR0) & CR0_PG) != 0 and (vmcs_get(vmcs, FIELD_GUEST_CR4) & CR4_PAE) != 0
    pae = pae and not cpu.entry_controls & ENTRY_GUEST_64
    if pae:
        if cpu.eptp:
            for n in range(4):
                if not valid_pdpte(vmcs_get(vmcs, FIELD_GUEST_PDPTE0 + 2 * n)):
                    return fail_entry(cpu, 2)
        elif load_pdptes(cpu, vmcs_get(vmcs, FIELD_GUEST_CR3)) != NEXT:
            return fail_entry(cpu, 2)
    load_guest_system(cpu)
    for n in range(8):
        cpu.segment[n].selector = cython.cast(u16, vmcs_get(vmcs, FIELD_GUEST_ES_SELECTOR + 2 * n))
        cpu.segment[n].limit = cython.cast(u32, vmcs_get(vmcs, FIELD_GUEST_ES_LIMIT + 2 * n))
        cpu.segment[n].attributes = cython.cast(u32, vmcs_get(vmcs, FIELD_GUEST_ES_RIGHTS + 2 * n))
        cpu.base[n] = vmcs_get(vmcs, FIELD_GUEST_ES_BASE + 2 * n)
    if cpu.eptp:
        for n in range(4):
            cpu.pdpte[n] = vmcs_get(vmcs, FIELD_GUEST_PDPTE0 + 2 * n)
    cpu.cpl = (cpu.segment[SS].attributes >> AR_DPL_SHIFT) & 3
    vmcs.loaded = 1
    cpu.in_guest = 1
    set_rflags(cpu, vmcs_get(vmcs, FIELD_GUEST_RFLAGS))
    flush_tlb(cpu)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_guest_system(cpu: cython.pointer(Cpu)) -> cython.void:
    """Everything but segments and RFLAGS (SDM 3C 27.3.2)."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    cpu.cr0 = vmcs_get(vmcs, FIELD_GUEST_CR0)
    cpu.cr3 = vmcs_get(vmcs, FIELD_GUEST_CR3)
    cpu.cr4 = vmcs_get(vmcs, FIELD_GUEST_CR4)
    cpu.gdt_base = vmcs_get(vmcs, FIELD_GUEST_GDTR_BASE)
    cpu.gdt_limit = cython.cast(u32, vmcs_get(vmcs, FIELD_GUEST_GDTR_LIMIT))
    cpu.idt_base = vmcs_get(vmcs, FIELD_GUEST_IDTR_BASE)
    cpu.idt_limit = cython.cast(u32, vmcs_get(vmcs, FIELD_GUEST_IDTR_LIMIT))
    if cpu.entry_controls & ENTRY_LOAD_DEBUG:
        cpu.dr[7] = (vmcs_get(vmcs, FIELD_GUEST_DR7) & cython.cast(u64, 0xFFFF2FFF)) | 0x400
        cpu.debugctl = vmcs_get(vmcs, FIELD_GUEST_DEBUGCTL)
    if cpu.entry_controls & ENTRY_LOAD_PAT:
        cpu.pat = vmcs_get(vmcs, FIELD_GUEST_PAT)
    if cpu.entry_controls & ENTRY_LOAD_EFER:
        cpu.efer = vmcs_get(vmcs, FIELD_GUEST_EFER)
    elif cpu.entry_controls & ENTRY_GUEST_64:
        cpu.efer |= EFER_LMA | EFER_LME
    else:
        cpu.efer &= ~cython.cast(u64, EFER_LMA | (EFER_LME if cpu.cr0 & CR0_PG else 0))
    cpu.sysenter_cs = vmcs_get(vmcs, FIELD_GUEST_SYSENTER_CS)
    cpu.sysenter_esp = vmcs_get(vmcs, FIELD_GUEST_SYSENTER_ESP)
    cpu.sysenter_eip = vmcs_get(vmcs, FIELD_GUEST_SYSENTER_EIP)
    cpu.gpr[RSP] = vmcs_get(vmcs, FIELD_GUEST_RSP)
    cpu.rip = vmcs_get(vmcs, FIELD_GUEST_RIP)
    cpu.pending_debug = vmcs_get(vmcs, FIELD_GUEST_PENDING_DEBUG) & 0x400F
    cpu.interruptibility = cython.cast(u32, vmcs_get(vmcs, FIELD_GUEST_INTERRUPTIBILITY))
    cpu.activity = cython.cast(u32, vmcs_get(vmcs, FIELD_GUEST_ACTIVITY))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver_payload(cpu: cython.pointer(Cpu), what: u32) -> cython.void:
    """What comes with an injected exception: CR2 of #PF, or the bits of #DB in DR6, as when the processor raised it."""
    cpu.entry_has_payload = 0
    if what == (KIND_HARDWARE << INFO_KIND_SHIFT | EXC_PF):
        cpu.cr2 = cpu.entry_payload
    elif what == (KIND_HARDWARE << INFO_KIND_SHIFT | EXC_DB):
        cpu.exception_cr2 = cpu.entry_payload
        commit_debug_status(cpu, cpu.entry_payload)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def inject(cpu: cython.pointer(Cpu), info: u32) -> cython.int:
    """Deliver the event of the VM-entry interruption-information field: NEXT, or EXIT (SDM 3C 27.6)."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    kind: u32 = (info & INFO_KIND) >> INFO_KIND_SHIFT
    return_rip: u64 = cpu.rip
    status: cython.int
    vmcs_set(vmcs, FIELD_ENTRY_INTERRUPTION_INFO, info & ~INFO_VALID)
    if kind == KIND_OTHER:
        return request_exit(cpu, EXIT_REASON_MONITOR_TRAP, 0)
    if kind == KIND_SOFTWARE or kind == KIND_PRIVILEGED or kind == KIND_SOFTWARE_EXC:
        return_rip += vmcs_get(vmcs, FIELD_ENTRY_INSTRUCTION_LENGTH)
        if cpu.address_mask_bits == 32:
            return_rip &= LOW32
    if kind == KIND_NMI:
        cpu.interruptibility |= BLOCKED_NMI
    cpu.interruptibility &= ~cython.cast(u32, SHADOW_STI | SHADOW_MOV_SS)
    if cpu.activity == ACTIVITY_HLT:
        cpu.activity = ACTIVE
    update_mode(cpu)
    fetch_failed(cpu)
    cpu.exception_cr2 = 0
    if cpu.entry_has_payload:
        deliver_payload(cpu, info & (INFO_KIND | INFO_VECTOR))
    status = deliver_event(
        cpu,
        info & INFO_VECTOR,
        kind,
        1 if info & INFO_HAS_ERROR else 0,
        cython.cast(u32, vmcs_get(vmcs, FIELD_ENTRY_EXCEPTION_ERROR)),
        return_rip,
    )
    if status == FAULT:
        status = deliver_exception(cpu)
    return EXIT if status == EXIT else NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def take_request(cpu: cython.pointer(Cpu)) -> cython.int:
    """Come back so that the hypervisor can do what another thread asked for. Answers EXIT."""
    fetch_and32(cython.address(cpu.kicked), ~cython.cast(u32, KICK_REQUEST))
    return request_exit(cpu, PAUSE_REQUEST, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enter_guest(cpu: cython.pointer(Cpu), budget: i64) -> u32:
    """VMLAUNCH or VMRESUME, and run `budget` instructions at most: a VM-instruction error, or 0 with cpu.exit_reason."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    status: cython.int = NEXT
    info: u32
    error: u32
    if unlikely(cpu.kicked & KICK_REQUEST) and cpu.window == cython.NULL:  # before an event is injected, too
        take_request(cpu)
        return 0
    if unlikely(not vmcs.checked):
        error = load_controls(cpu)
        if error:
            return error
    info = cython.cast(u32, vmcs_get(vmcs, FIELD_ENTRY_INTERRUPTION_INFO))
    if unlikely(info & INFO_VALID):
        if not check_injection_now(cpu, info):
            return ERROR_CONTROL_FIELDS
    if unlikely(not vmcs.loaded):
        if load_guest(cpu) != NEXT:
            return 0
    vmcs.launched = 1
    cpu.exit_length = 0
    cpu.exit_information = 0
    cpu.exit_interruption = 0
    cpu.exit_error = 0
    cpu.entry_retired = cpu.retired
    if cpu.pin_controls & PIN_PREEMPTION_TIMER:
        cpu.timer_end = cpu.entry_retired + vmcs_get(vmcs, FIELD_PREEMPTION_TIMER)
    set_vmx_events(cpu)
    if unlikely(info & INFO_VALID):
        status = inject(cpu, info)
    if status == EXIT:
        finish_exit(cpu)
    else:
        run_limited(cpu, budget)
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def skip_instruction(cpu: cython.pointer(Cpu)) -> cython.void:
    """The hypervisor has carried out the instruction that exited: RIP behind it, interrupt shadow and RF gone.

    With RFLAGS.TF, the single-step trap behind it waits for the next entry.
    """
    cpu.rip += cpu.exit_length
    cpu.retired += 1
    if cpu.address_mask_bits == 32:
        cpu.rip &= LOW32
    if cpu.interruptibility & (SHADOW_STI | SHADOW_MOV_SS):
        cpu.interruptibility &= ~cython.cast(u32, SHADOW_STI | SHADOW_MOV_SS)
        update_mode(cpu)
    cpu.rflags &= ~cython.cast(u64, FLAG_RF)
    if unlikely(cpu.rflags & FLAG_TF):
        cpu.pending_debug |= DR6_BS


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_vmx_events(cpu: cython.pointer(Cpu)) -> cython.void:
    """Which events the run loop shall ask `vmx_events` about."""
    cpu.events &= ~cython.cast(u32, EVENT_MTF | EVENT_INTERRUPT)
    if cpu.primary_controls & (PRIMARY_INTERRUPT_WINDOW | PRIMARY_NMI_WINDOW):
        cpu.events |= EVENT_INTERRUPT
    if cpu.primary_controls & PRIMARY_MONITOR_TRAP:
        cpu.events |= EVENT_MTF


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_injection_now(cpu: cython.pointer(Cpu), info: u32) -> cython.bint:
    """Check the event to inject. A guest whose state may refuse it goes into the VMCS, to be checked as a whole."""
    vmcs: cython.pointer(Vmcs) = cpu.vmcs
    if vmcs.loaded:
        if event_fits(cpu, info):
            vmcs_set(vmcs, FIELD_GUEST_CR0, cpu.cr0)
        else:
            save_guest(cpu)
    return check_injection(vmcs)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def event_fits(cpu: cython.pointer(Cpu), info: u32) -> cython.bint:
    """Whether a guest that has run, so that its state is sound, may be given an event now (SDM 3C 27.3.1.4 and 27.3.1.5)."""
    kind: u32 = (info & INFO_KIND) >> INFO_KIND_SHIFT
    if cpu.interruptibility or not injection_allowed(cpu.activity, kind, info & INFO_VECTOR):
        return False
    return kind != KIND_EXTERNAL or (cpu.rflags & FLAG_IF) != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def run_limited(cpu: cython.pointer(Cpu), budget: i64) -> cython.void:
    """Run until an exit, the budget, or the preemption timer, which counts instructions, whichever comes first."""
    left: u64
    timed: cython.bint = False
    if cpu.pin_controls & PIN_PREEMPTION_TIMER:
        left = cpu.timer_end - cpu.entry_retired
        if left <= cython.cast(u64, budget):
            timed = True
            budget = cython.cast(i64, left)
    if budget > 0 and run_guest(cpu, budget) == EXIT:
        return
    if timed:
        request_exit(cpu, EXIT_REASON_PREEMPTION_TIMER, 0)
        finish_exit(cpu)
        return
    cpu.exit_reason = PAUSE_BUDGET
