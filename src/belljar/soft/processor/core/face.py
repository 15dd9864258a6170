"""What Python sees of VMX: VMCSs, and processors that enter guests."""

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
class Processor(BareProcessor):
    """A logical processor in VMX root operation: the caller is the host.

    Made in the state after reset. `enter` runs the guest of the current VMCS. One thread at a time, but for `kick`.
    """

    current: VmcsRegion
    started: u64
    ports_accessed: u64
    _window: object

    # -- the current VMCS ------------------------------------------------------------------------------------

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

    # -- running the guest -----------------------------------------------------------------------------------

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

    def enter_exactly(
        self,
        budget: cython.longlong,
        until_ns: cython.longlong = FOREVER,
        window: object = None,
        device_gpa: cython.ulonglong = ALL_ONES,
    ) -> int:
        """`enter` after the host may have written memory; PAUSE_LIMIT if nothing happened but that the budget was used up.

        The budget is also used up when `tsc` is `until_ns`, unless that is FOREVER; it may be more only by exits' charges.

        With a `window`, instructions that touch the page `device_gpa`, of which the caller knows that it is a device's, are
        carried out as by `emulate`, and the guest goes on. Where one did not come to its end, the answer is why, plus
        CARRIED_OUT.
        """
        cpu: cython.pointer(Cpu) = self.cpu
        reason: u32
        error: u32
        limit: i64
        left: i64
        if cpu.vmcs == cython.NULL:
            raise VmxError(ERROR_INVALID)
        if self.memory.closed:
            self.memory.check_open()
        self.started = cpu.retired + cpu.charged
        limit = cython.cast(i64, self.started) + budget
        left = left_until(cpu, limit, until_ns)
        host_wrote(cpu.host)
        while True:
            if left <= SHORT_RUN:  # the shortest way
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
            left = left_until(cpu, limit, until_ns)
            if left <= 0:
                cpu.exit_reason = PAUSE_BUDGET
                break
        if cpu.exit_reason == PAUSE_BUDGET and left_until(cpu, limit, until_ns) <= 0:
            return PAUSE_LIMIT
        return cpu.exit_reason

    @cython.cfunc
    def enter_once(self, budget: i64):
        """Run until a VM exit or the end of the budget; without Python's lock, unless that is soon. Raises VmxError."""
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
        """Enter for one instruction with devices behind `window`, as `emulate` does. Raises VmxError."""
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
        """Note in the VMCS that a VMX instruction failed; what to raise then."""
        vmcs_set(self.cpu.vmcs, FIELD_INSTRUCTION_ERROR, error)
        return VmxError(error)

    # -- from another thread ---------------------------------------------------------------------------------

    def kick(self) -> None:
        """An external interrupt: end the present run, or else the next one. From any thread."""
        fetch_or32(cython.address(self.cpu.kicked), KICK_HOST)

    def request(self) -> None:
        """Have the present or next `enter` come back with PAUSE_REQUEST before another instruction. From any thread."""
        fetch_or32(cython.address(self.cpu.kicked), KICK_REQUEST)

    def wait_out(self, wanted: bool) -> None:
        """Whether loops that wait for others are executed as any other, with PAUSEs or without."""
        self.cpu.waits_out = 1 if wanted else 0

    @property
    def entered(self) -> bool:
        """Whether a thread executes the guest at this moment, without Python's lock."""
        return self.cpu.entered != 0

    # -- the last exit ---------------------------------------------------------------------------------------

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
        charge_exit(cpu)
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

    def skip_instruction(self) -> bool:
        """What hypervisors do after they have carried out an instruction: RIP behind it, interrupt shadow gone.

        True if debug traps wait behind it, as with RFLAGS.TF.
        """
        skip_instruction(self.cpu)
        return self.cpu.pending_debug != 0

    # -- events ----------------------------------------------------------------------------------------------

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

    # -- translation, and where the guest's state is ---------------------------------------------------------

    @property
    def loaded(self) -> bool:
        """Whether the guest-state area of the current VMCS lives in the processor now."""
        return self.cpu.vmcs != cython.NULL and self.cpu.vmcs.loaded != 0

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
        forget_directories(cpu)
        status = walk(cpu, gva, access & ACCESS_KIND)
        if status == NEXT:
            return ("gpa", cpu.walk_gpa)
        return ("fault", cpu.exception_error) if status == FAULT else ("exit", cpu.exit_reason)

    def invept(self) -> None:
        """Forget every translation (INVEPT, all contexts)."""
        forget_nested(self.cpu)
        flush_tlb(self.cpu)
