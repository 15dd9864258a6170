"""What Python sees: VMCSs and processors."""

import cython


@cython.cclass
class VmcsRegion:
    """A VMCS. Its guest-state area lives in the processor while it is current and was entered once."""

    vmcs: cython.pointer(Vmcs)

    def __cinit__(self):
        self.vmcs = cython.cast(cython.pointer(Vmcs), calloc(1, cython.sizeof(Vmcs)))
        if self.vmcs == cython.NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.vmcs)


class VmxError(Exception):
    """A VMX instruction failed; `number` is the VM-instruction error (SDM 3C 31.4)."""

    def __init__(self, number: int) -> None:
        super().__init__(f"VM-instruction error {number}")
        self.number = number


@cython.cclass
class Processor:
    """A logical processor in VMX root operation: the caller is the host.

    Made in the state after reset. `enter` runs the guest of the current VMCS. One thread at a time, but for `kick`.
    """

    cpu: cython.pointer(Cpu)
    memory: HostMemory
    current: VmcsRegion
    started: u64
    ports_accessed: u64
    _window: object

    def __cinit__(self, memory: HostMemory):
        memory.check_open()
        self.memory = memory
        self.cpu = new_cpu(memory.host)
        if self.cpu == cython.NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.cpu != cython.NULL:
            free_cpu(self.cpu)

    # -- VMX ---------------------------------------------------------------------------------------------------

    def vmptrld(self, region: VmcsRegion) -> None:
        """Make a VMCS current; the one before is saved."""
        if self.current is not None:
            save_guest(self.cpu)
        self.current = region
        self.cpu.vmcs = region.vmcs
        region.vmcs.checked = 0

    def vmclear(self) -> None:
        """Save the current VMCS, set its launch state to clear; there is no current VMCS then."""
        if self.current is None:
            raise VmxError(ERROR_INVALID)
        save_guest(self.cpu)
        self.cpu.vmcs.launched = 0
        self.cpu.vmcs = cython.NULL
        self.cpu.in_guest = 0
        self.current = None

    def vmread(self, field: cython.ulonglong) -> int:
        """A field of the current VMCS by encoding. Raises VmxError."""
        value: u64 = 0
        error: u32 = vmx_read(self.cpu, field, cython.address(value))
        if error:
            raise VmxError(error)
        return value

    def vmwrite(self, field: cython.ulonglong, value: cython.ulonglong) -> None:
        """Write a field of the current VMCS, cut to its width. Raises VmxError."""
        error: u32 = vmx_write(self.cpu, field, value)
        if error:
            raise VmxError(error)

    def vmlaunch(self, budget: cython.longlong) -> int:
        """Enter a guest whose launch state is clear; else as `enter`. Raises VmxError."""
        if self.current is None:
            raise VmxError(ERROR_INVALID)
        if self.cpu.vmcs.launched:
            raise self.failed(ERROR_LAUNCH_NOT_CLEAR)
        return self.enter(budget)

    def vmresume(self, budget: cython.longlong) -> int:
        """Enter a guest whose launch state is launched; else as `enter`. Raises VmxError."""
        if self.current is None:
            raise VmxError(ERROR_INVALID)
        if not self.cpu.vmcs.launched:
            raise self.failed(ERROR_RESUME_NOT_LAUNCHED)
        return self.enter(budget)

    def enter(self, budget: cython.longlong) -> int:
        """VMLAUNCH or VMRESUME, whichever fits, and run until a VM exit or until `budget` instructions have retired.

        Returns the basic exit reason (SDM 3D appendix C), or a PAUSE_* number where no VM exit took place: the guest then
        stands between two instructions, and entering again goes on. Raises VmxError when VM entry fails early.
        """
        cpu: cython.pointer(Cpu) = self.cpu
        error: u32
        if cpu.vmcs == cython.NULL:
            raise VmxError(ERROR_INVALID)
        self.memory.check_open()
        cpu.entered = 1
        with cython.nogil:
            error = enter_guest(cpu, budget)
        cpu.entered = 0
        if error:
            raise self.failed(error)
        return cpu.exit_reason

    def enter_exactly(self, budget: cython.longlong, window: object = None, device_gpa: cython.ulonglong = ALL_ONES) -> int:
        """`enter` after the host may have written memory; PAUSE_LIMIT if nothing happened but that the budget was used up.

        With a `window`, instructions that touch the page `device_gpa`, of which the caller knows that it is a device's, are
        carried out as by `emulate`, and the guest goes on. Where one did not come to its end, the answer is why, plus
        CARRIED_OUT.
        """
        cpu: cython.pointer(Cpu) = self.cpu
        reason: u32
        error: u32
        left: i64 = budget
        if cpu.vmcs == cython.NULL:
            raise VmxError(ERROR_INVALID)
        if self.memory.closed:
            self.memory.check_open()
        self.started = cpu.retired + cpu.charged
        host_wrote(cpu.host)
        while True:
            if budget <= SHORT_RUN:  # the shortest way
                error = enter_guest(cpu, left)
                if error:
                    raise self.failed(error)
            else:
                self.enter_once(left)
            if window is None or not self.exited_on_device(device_gpa):
                break
            self.carry_out(window, device_gpa)
            reason = cpu.exit_reason
            if reason != PAUSE_BUDGET and reason != PAUSE_EMULATED:
                return reason + CARRIED_OUT
            left = budget - cython.cast(i64, cpu.retired + cpu.charged - self.started)
            if left <= 0:
                cpu.exit_reason = PAUSE_BUDGET
                break
        if cpu.exit_reason == PAUSE_BUDGET and cpu.retired + cpu.charged - self.started == cython.cast(u64, budget):
            return PAUSE_LIMIT
        return cpu.exit_reason

    @cython.cfunc
    def enter_once(self, budget: i64):
        cpu: cython.pointer(Cpu) = self.cpu
        error: u32
        if budget <= SHORT_RUN:  # over before another thread could be glad of the lock
            error = enter_guest(cpu, budget)
        else:
            cpu.entered = 1
            with cython.nogil:
                error = enter_guest(cpu, budget)
            cpu.entered = 0
            if unlikely(cpu.kicked & KICK_REQUEST) and cpu.exit_reason == PAUSE_BUDGET and not error:
                take_request(cpu)  # whoever saw the guest execute counts on it
        if error:
            raise self.failed(error)

    @cython.cfunc
    @cython.exceptval(check=False)
    def exited_on_device(self, device_gpa: u64) -> cython.bint:
        """Whether the last exit is an access to that page, and nothing else has to be looked after."""
        cpu: cython.pointer(Cpu) = self.cpu
        if cpu.exit_reason != EXIT_REASON_EPT_VIOLATION or (cpu.exit_gpa & PAGE_MASK) != device_gpa:
            return False
        if cpu.exit_qualification & QUALIFICATION_NMI_UNBLOCKED:
            return False
        return not vmcs_get(cpu.vmcs, FIELD_IDT_VECTORING_INFO) & INFO_VALID

    @property
    def spent_before(self) -> int:
        """`spent` as it was when `enter_exactly` began."""
        return self.started

    def emulate(self, window: object, device_gpa: cython.ulonglong = ALL_ONES) -> int:
        """Enter for one instruction, or one iteration of a repeated one, with devices behind `window` (core/window.py).

        `device_gpa`: a page of which the caller knows that it is a device's, so that the window need not be asked. What
        devices may have written to memory meanwhile is seen, as after `HostMemory.host_changed`.
        """
        if self.cpu.vmcs == cython.NULL:
            raise VmxError(ERROR_INVALID)
        self.memory.check_open()
        self.carry_out(window, device_gpa)
        return self.cpu.exit_reason

    @cython.cfunc
    def carry_out(self, window: object, device_gpa: u64):
        cpu: cython.pointer(Cpu) = self.cpu
        error: u32
        self._window = window
        cpu.window = cython.cast(cython.p_void, window)
        cpu.window_failed = 0
        cpu.window_used = 0
        cpu.window_gpa = device_gpa
        error = enter_guest(cpu, 1)
        cpu.window = cython.NULL
        self._window = None
        host_wrote(cpu.host)
        fetch_and32(cython.address(cpu.kicked), ~cython.cast(u32, KICK_WINDOW))
        if error:
            raise self.failed(error)

    @cython.cfunc
    def failed(self, error: u32):
        vmcs_set(self.cpu.vmcs, FIELD_INSTRUCTION_ERROR, error)
        return VmxError(error)

    def kick(self) -> None:
        """An external interrupt: end the present run, or else the next one. From any thread."""
        fetch_or32(cython.address(self.cpu.kicked), KICK_HOST)

    def request(self) -> None:
        """Have the present or next `enter` come back with PAUSE_REQUEST before another instruction. From any thread."""
        fetch_or32(cython.address(self.cpu.kicked), KICK_REQUEST)

    @property
    def entered(self) -> bool:
        """Whether a thread executes the guest at this moment, without Python's lock."""
        return self.cpu.entered != 0

    @property
    def exit_qualification(self) -> int:
        """The last exit's, without looking it up in the VMCS."""
        return self.cpu.exit_qualification

    @property
    def exit_gpa(self) -> int:
        """The guest-physical address of the last EPT violation or misconfiguration."""
        return self.cpu.exit_gpa

    def take_port_access(self) -> int:
        """An I/O exit in one call: its qualification (SDM 3C table 28-5), and for OUT the value above bit 32.

        IN and OUT are skipped as by `skip_instruction`; string instructions are left where they are. What the device may
        write to memory before the next entry is seen, as after `HostMemory.host_changed`.
        """
        cpu: cython.pointer(Cpu) = self.cpu
        qualification: u64 = cpu.exit_qualification
        bits: u64
        if qualification & 0x10:  # string
            return qualification
        self.ports_accessed += 1
        skip_instruction(cpu)
        cpu.pending_debug |= io_breakpoints(cpu, cython.cast(u32, qualification >> 16), (qualification & 7) + 1)
        host_wrote(cpu.host)
        if qualification & 0x08:  # IN
            return qualification
        bits = 8 * ((qualification & 7) + 1)
        return qualification | (cpu.gpr[RAX] & (LOW32 >> (32 - bits))) << 32

    @property
    def port_accesses(self) -> int:
        """How many IN and OUT exits were taken by `take_port_access`, string instructions left out."""
        return self.ports_accessed

    def take_halt(self) -> bool:
        """A HLT exit in one call: the instruction is done. True if debug traps wait behind it, which end the halt."""
        skip_instruction(self.cpu)
        return self.cpu.pending_debug != 0

    @property
    def interruptible(self) -> bool:
        """Whether RFLAGS.IF is set, and neither a shadow nor an event for the next entry is in the way (SDM 3C 27.3.1.5)."""
        cpu: cython.pointer(Cpu) = self.cpu
        if cpu.vmcs == cython.NULL:
            raise VmxError(ERROR_INVALID)
        if not cpu.vmcs.loaded:
            if not vmcs_get(cpu.vmcs, FIELD_GUEST_RFLAGS) & FLAG_IF:
                return False
            if vmcs_get(cpu.vmcs, FIELD_GUEST_INTERRUPTIBILITY) & (SHADOW_STI | SHADOW_MOV_SS):
                return False
        elif not cpu.rflags & FLAG_IF or cpu.interruptibility & (SHADOW_STI | SHADOW_MOV_SS):
            return False
        return not vmcs_get(cpu.vmcs, FIELD_ENTRY_INTERRUPTION_INFO) & INFO_VALID

    def inject_interrupt(self, vector: cython.uint) -> bool:
        """Have the next VM entry deliver an external interrupt (SDM 3C 25.8.3); False if that delivers something already."""
        if self.cpu.vmcs == cython.NULL:
            raise VmxError(ERROR_INVALID)
        if vmcs_get(self.cpu.vmcs, FIELD_ENTRY_INTERRUPTION_INFO) & INFO_VALID:
            return False
        vmcs_set(self.cpu.vmcs, FIELD_ENTRY_INTERRUPTION_INFO, INFO_VALID | (vector & INFO_VECTOR))
        return True

    def set_payload(self, payload: object) -> None:
        """What comes with the exception that the next VM entry injects: CR2 of #PF, bits of DR6 of #DB; None: nothing."""
        self.cpu.entry_has_payload = 0 if payload is None else 1
        self.cpu.entry_payload = 0 if payload is None else payload

    @property
    def interrupted_delivery(self) -> bool:
        """Whether the last VM exit came in the middle of an event's delivery (IDT-vectoring information is valid)."""
        return self.cpu.vmcs != cython.NULL and (vmcs_get(self.cpu.vmcs, FIELD_IDT_VECTORING_INFO) & INFO_VALID) != 0

    def skip_instruction(self) -> bool:
        """What hypervisors do after they have carried out an instruction: RIP behind it, interrupt shadow gone.

        True if debug traps wait behind it, as with RFLAGS.TF.
        """
        skip_instruction(self.cpu)
        return self.cpu.pending_debug != 0

    # -- state outside the VMCS --------------------------------------------------------------------------------

    def get_gpr(self, number: cython.int) -> int:
        """A general register by its number in the encoding (RAX 0 ... R15 15)."""
        return self.cpu.gpr[number & 15]

    def set_gpr(self, number: cython.int, value: cython.ulonglong) -> None:
        """Set a general register."""
        self.cpu.gpr[number & 15] = value

    def get_registers(self) -> tuple:
        """The sixteen general registers in the order of the encoding, RIP, RFLAGS. The VMCS must be loaded."""
        cpu: cython.pointer(Cpu) = self.cpu
        g: cython.pointer(u64) = cython.address(cpu.gpr[0])
        return (g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15])

    @property
    def loaded(self) -> bool:
        """Whether the guest-state area of the current VMCS lives in the processor now."""
        return self.cpu.vmcs != cython.NULL and self.cpu.vmcs.loaded != 0

    @property
    def retired(self) -> int:
        """Instructions executed since this processor was made."""
        return self.cpu.retired

    @property
    def spent(self) -> int:
        """Of all budgets together: instructions executed, and rounds without one where there were too many in a row."""
        return self.cpu.retired + self.cpu.charged

    @property
    def tsc(self) -> int:
        """The processor's own time-stamp counter, before a guest's offset and scaling. It counts instructions."""
        return read_tsc(self.cpu)

    @tsc.setter
    def tsc(self, value: cython.ulonglong) -> None:
        set_tsc(self.cpu, value)

    def follow_host_clock(self, wanted: cython.bint) -> None:
        """Whether the counter goes on with the host's monotonic clock, from what it shows, or with instructions."""
        shown: u64 = read_tsc(self.cpu)
        self.cpu.tsc_host = 1 if wanted else 0
        set_tsc(self.cpu, shown)

    @property
    def cr2(self) -> int:
        """CR2, which VM entries and exits leave alone."""
        return self.cpu.cr2

    @cr2.setter
    def cr2(self, value: cython.ulonglong) -> None:
        self.cpu.cr2 = value

    @property
    def cr8(self) -> int:
        """CR8, the task priority."""
        return self.cpu.cr8

    @cr8.setter
    def cr8(self, value: cython.ulonglong) -> None:
        self.cpu.cr8 = value & 15

    @property
    def xcr0(self) -> int:
        """XCR0."""
        return self.cpu.xcr0

    @xcr0.setter
    def xcr0(self, value: cython.ulonglong) -> None:
        self.cpu.xcr0 = value

    @property
    def apic_base(self) -> int:
        """IA32_APIC_BASE."""
        return self.cpu.apic_base

    @apic_base.setter
    def apic_base(self, value: cython.ulonglong) -> None:
        self.cpu.apic_base = value

    def get_debug_register(self, number: cython.int) -> int:
        """DR0 to DR3, DR6, DR7."""
        return self.cpu.dr[number & 7]

    def set_debug_register(self, number: cython.int, value: cython.ulonglong) -> None:
        """Set DR0 to DR3 or DR6; DR7 belongs to the VMCS."""
        self.cpu.dr[number & 7] = value

    @property
    def debug_state_size(self) -> int:
        """Bytes of the processor's own structure, for reports."""
        return cython.sizeof(Cpu)

    @property
    def state_hva(self) -> int:
        """Where that structure lies in this process."""
        return cython.cast(u64, self.cpu)

    def rdmsr(self, index: cython.uint) -> object:
        """An MSR's value, None if the processor does not have it."""
        value: u64 = 0
        if read_msr(self.cpu, index, cython.address(value)) != NEXT:
            return None
        return value

    def wrmsr(self, index: cython.uint, value: cython.ulonglong) -> bool:
        """Write an MSR as WRMSR does; False where that would be #GP(0)."""
        return write_msr(self.cpu, index, value) == NEXT

    def watch(self, breakpoints: list, watchpoints: list) -> None:
        """Stop with PAUSE_DEBUG before instructions at these linear addresses, and after accesses to (gva, size, on_read).

        The exit qualification is 0 for a breakpoint, else the watchpoint's position, from 1. Raises MemoryError.
        """
        cpu: cython.pointer(Cpu) = self.cpu
        i: cython.int
        points: cython.pointer(u64) = cython.cast(cython.pointer(u64), calloc(len(breakpoints) + 1, cython.sizeof(u64)))
        watches: cython.pointer(Watchpoint) = cython.cast(
            cython.pointer(Watchpoint), calloc(len(watchpoints) + 1, cython.sizeof(Watchpoint))
        )
        if points == cython.NULL or watches == cython.NULL:
            free(points)
            free(watches)
            raise MemoryError
        for i, gva in enumerate(sorted(breakpoints)):
            points[i] = gva
        for i, (gva, size, on_read) in enumerate(watchpoints):
            watches[i].gva = gva
            watches[i].size = size
            watches[i].on_read = 1 if on_read else 0
        free(cpu.breakpoints)
        free(cpu.watchpoints)
        cpu.breakpoints = points
        cpu.watchpoints = watches
        cpu.breakpoint_count = len(breakpoints)
        cpu.watchpoint_count = len(watchpoints)
        cpu.watched = 1 if breakpoints or watchpoints else 0
        update_mode(cpu)

    def walk(self, gva: cython.ulonglong, access: cython.int) -> tuple:
        """The hardware's walk for one linear address, from the present state of the guest, which must be loaded or loadable.

        `access`: 0 read, 1 write, 2 fetch. ("gpa", address), with accessed and dirty flags set; ("fault", error code); or
        ("exit", reason) where nested paging is in the way. Raises VmxError if the guest's state cannot be loaded.
        """
        cpu: cython.pointer(Cpu) = self.cpu
        status: cython.int
        error: u32
        if cpu.vmcs == cython.NULL:
            raise VmxError(ERROR_INVALID)
        if not cpu.vmcs.checked:
            error = load_controls(cpu)
            if error:
                raise self.failed(error)
        if not cpu.vmcs.loaded and load_guest(cpu) != NEXT:
            return ("exit", cpu.exit_reason)
        cpu.walk_gpa = gva
        if not cpu.cr0 & CR0_PG:
            return ("gpa", gva)
        status = walk(cpu, gva, access & ACCESS_KIND)
        if status == NEXT:
            return ("gpa", cpu.walk_gpa)
        return ("fault", cpu.exception_error) if status == FAULT else ("exit", cpu.exit_reason)

    def stop_on_delivery(self, wanted: cython.bint) -> None:
        """Whether `enter` shall come back (PAUSE_BUDGET) after each exception delivered, for those who show single steps."""
        self.cpu.stop_on_delivery = 1 if wanted else 0

    def invept(self) -> None:
        """Forget every translation (INVEPT, all contexts)."""
        flush_tlb(self.cpu)

    # -- outside VMX: instructions by themselves ---------------------------------------------------------------

    def get(self, number: cython.int) -> int:
        """General register 0 to 15, RIP (16) or RFLAGS (17)."""
        if number == 16:
            return self.cpu.rip
        if number == 17:
            return get_rflags(self.cpu)
        return self.cpu.gpr[number & 15]

    def put(self, number: cython.int, value: cython.ulonglong) -> None:
        """Set general register 0 to 15, RIP (16) or RFLAGS (17)."""
        if number == 16:
            self.cpu.rip = value
            self.cpu.activity = ACTIVE
            update_mode(self.cpu)
        elif number == 17:
            set_rflags(self.cpu, value)
        else:
            self.cpu.gpr[number & 15] = value

    def put_segment(
        self, number: cython.int, selector: cython.int, base: cython.ulonglong, limit: cython.uint, attributes: cython.uint
    ) -> None:
        """Set a segment register with its hidden part; `attributes` as in the VMCS (SDM 3C table 25-2)."""
        self.cpu.base[number & 7] = base
        self.cpu.segment[number & 7].selector = cython.cast(u16, selector)
        self.cpu.segment[number & 7].limit = limit
        self.cpu.segment[number & 7].attributes = attributes
        update_mode(self.cpu)

    def get_segment(self, number: cython.int) -> tuple:
        """Selector, base, limit and attributes of ES, CS, SS, DS, FS, GS, LDTR or TR (0 to 7)."""
        segment: cython.pointer(Segment) = cython.address(self.cpu.segment[number & 7])
        return (segment.selector, self.cpu.base[number & 7], segment.limit, segment.attributes)

    def get_control(self) -> tuple:
        """CR0, CR2, CR3, CR4, EFER and CPL."""
        return (self.cpu.cr0, self.cpu.cr2, self.cpu.cr3, self.cpu.cr4, self.cpu.efer, self.cpu.cpl)

    def put_tables(self, gdt: cython.ulonglong, gdt_limit: cython.uint, idt: cython.ulonglong, idt_limit: cython.uint) -> None:
        """Set GDTR and IDTR."""
        self.cpu.gdt_base = gdt
        self.cpu.gdt_limit = gdt_limit
        self.cpu.idt_base = idt
        self.cpu.idt_limit = idt_limit

    def has(self, feature: cython.int) -> bool:
        """Whether the processor has the feature of this FEATURE_* number."""
        return has_feature(self.cpu, feature)

    @property
    def allowed_controls(self) -> tuple:
        """The bits that CR4 and IA32_EFER may have."""
        return (cr4_allowed(self.cpu), efer_allowed(self.cpu))

    def seed_random(self, seed: cython.ulonglong) -> None:
        """Where the numbers of RDRAND and RDSEED begin; 0 counts as 1."""
        self.cpu.random = seed if seed else 1

    def switch_features(self, off: cython.ulonglong) -> None:
        """All features but those whose FEATURE_* bits are set in `off`; code decoded before is forgotten."""
        reset_features(self.cpu)
        self.cpu.features &= ~cython.cast(u64, off)
        reset_code(self.memory.host)
        flush_tlb(self.cpu)

    def cpuid(self, leaf: cython.uint, subleaf: cython.uint) -> tuple:
        """What CPUID answers now: EAX, EBX, ECX, EDX."""
        answer: u32[4]
        cpuid_leaf(self.cpu, leaf, subleaf, answer)
        return (answer[0], answer[1], answer[2], answer[3])

    def put_control(
        self, cr0: cython.ulonglong, cr3: cython.ulonglong, cr4: cython.ulonglong, efer: cython.ulonglong, cpl: cython.int
    ) -> None:
        """Set the control registers and CPL, unchecked."""
        self.cpu.cr0 = cr0
        self.cpu.cr3 = cr3
        self.cpu.cr4 = cr4
        self.cpu.efer = efer
        self.cpu.cpl = cpl
        flush_tlb(self.cpu)

    def run(self, budget: cython.longlong) -> int:
        """Run at most `budget` instructions without a VMCS: the status, EXIT (3) or STOP (5)."""
        status: cython.int
        self.memory.check_open()
        with cython.nogil:
            status = run_guest(self.cpu, budget)
        return status

    @property
    def exit_reason(self) -> int:
        """The basic exit reason of the last exit, or a PAUSE_* number."""
        return self.cpu.exit_reason

    @property
    def exception(self) -> int:
        """The last exception that was raised."""
        return self.cpu.exception
