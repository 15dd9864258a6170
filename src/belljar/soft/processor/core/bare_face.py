"""What Python sees of a processor by itself: its state, what it has, and instructions executed outside VMX."""

import cython


@cython.cclass
class BareProcessor:
    """A logical processor in the state after reset, and everything about it that needs no VMCS.

    One thread at a time. Raises MemoryError where there is no room for it, ValueError on host memory that is closed.
    """

    cpu: cython.pointer(Cpu)
    memory: HostMemory

    def __cinit__(self, memory: HostMemory):
        memory.check_open()
        self.memory = memory
        self.cpu = new_cpu(memory.host)
        if self.cpu == cython.NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.cpu != cython.NULL:
            free_cpu(self.cpu)

    # -- registers -------------------------------------------------------------------------------------------

    def get_gpr(self, number: cython.int) -> int:
        """A general register by its number in the encoding (RAX 0 ... R15 15)."""
        return self.cpu.gpr[number & 15]

    def msr_accessed(self) -> int:
        """ECX: the MSR that RDMSR and WRMSR name."""
        return self.cpu.gpr[RCX] & LOW32

    def msr_written(self) -> int:
        """EDX:EAX: what WRMSR writes."""
        return (self.cpu.gpr[RDX] << 32) | (self.cpu.gpr[RAX] & LOW32)

    def set_gpr(self, number: cython.int, value: cython.ulonglong) -> None:
        """Set a general register by its number in the encoding, to a value of 64 bits."""
        self.cpu.gpr[number & 15] = value

    def get_registers(self) -> tuple:
        """The sixteen general registers in the order of the encoding; while a VMCS is loaded, the guest's."""
        cpu: cython.pointer(Cpu) = self.cpu
        g: cython.pointer(u64) = cython.address(cpu.gpr[0])
        return (g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15])

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

    def put_tables(self, gdt: cython.ulonglong, gdt_limit: cython.uint, idt: cython.ulonglong, idt_limit: cython.uint) -> None:
        """Set GDTR and IDTR."""
        self.cpu.gdt_base = gdt
        self.cpu.gdt_limit = gdt_limit
        self.cpu.idt_base = idt
        self.cpu.idt_limit = idt_limit

    def get_control(self) -> tuple:
        """CR0, CR2, CR3, CR4, EFER and CPL."""
        return (self.cpu.cr0, self.cpu.cr2, self.cpu.cr3, self.cpu.cr4, self.cpu.efer, self.cpu.cpl)

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
        """XCR0, which says whose state XSAVE saves (SDM 1 13.3)."""
        return self.cpu.xcr0

    @xcr0.setter
    def xcr0(self, value: cython.ulonglong) -> None:
        self.cpu.xcr0 = value

    @property
    def apic_base(self) -> int:
        """IA32_APIC_BASE (SDM 3A 11.4.4)."""
        return self.cpu.apic_base

    @apic_base.setter
    def apic_base(self, value: cython.ulonglong) -> None:
        self.cpu.apic_base = value

    def get_debug_register(self, number: cython.int) -> int:
        """DR0 to DR3, DR6 or DR7 by its number."""
        return self.cpu.dr[number & 7]

    def set_debug_register(self, number: cython.int, value: cython.ulonglong) -> None:
        """Set DR0 to DR3 or DR6; DR7 belongs to the VMCS."""
        self.cpu.dr[number & 7] = value

    def rdmsr(self, index: cython.uint) -> object:
        """An MSR's value, None if the processor does not have it."""
        value: u64 = 0
        if read_msr(self.cpu, index, cython.address(value)) != NEXT:
            return None
        return value

    def wrmsr(self, index: cython.uint, value: cython.ulonglong) -> bool:
        """Write an MSR as WRMSR does; False where that would be #GP(0)."""
        return write_msr(self.cpu, index, value) == NEXT

    # -- what it has -----------------------------------------------------------------------------------------

    def has(self, feature: cython.int) -> bool:
        """Whether the processor has the feature of this FEATURE_* number."""
        return has_feature(self.cpu, feature)

    @property
    def allowed_controls(self) -> tuple:
        """The bits that CR4 and IA32_EFER may have."""
        return (cr4_allowed(self.cpu), efer_allowed(self.cpu))

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

    def seed_random(self, seed: cython.ulonglong) -> None:
        """Where the numbers of RDRAND and RDSEED begin; 0 counts as 1."""
        self.cpu.random = seed if seed else 1

    @property
    def debug_state_size(self) -> int:
        """Bytes of the processor's own structure, for reports."""
        return cython.sizeof(Cpu)

    @property
    def state_hva(self) -> int:
        """Where that structure lies in this process."""
        return cython.cast(u64, self.cpu)

    # -- time ------------------------------------------------------------------------------------------------

    @property
    def retired(self) -> int:
        """Instructions executed since this processor was made."""
        return self.cpu.retired

    @property
    def spent(self) -> int:
        """Of all budgets together: instructions executed, and rounds without one where there were too many in a row."""
        return self.cpu.retired + self.cpu.charged

    def left(self, limit: cython.longlong, until_ns: cython.longlong) -> int:
        """How many instructions there may be until `spent` is `limit`, and `tsc` is `until_ns`; FOREVER for either: no such limit.

        Zero or less: one of them is reached.
        """
        return left_until(self.cpu, limit, until_ns)

    @property
    def exit_ns(self) -> int:
        """What the time-stamp counter is moved on by for an access of a device, a port, or by `charge_exit`: 0 at first."""
        return self.cpu.exit_ns

    @exit_ns.setter
    def exit_ns(self, value: cython.ulonglong) -> None:
        self.cpu.exit_ns = value

    @property
    def exits_ns(self) -> int:
        """How far it was moved on for all of them."""
        return self.cpu.exits_ns

    def charge_exit(self) -> None:
        """The hypervisor serves an exit other than those: its time passes for the guest."""
        charge_exit(self.cpu)

    @property
    def tsc(self) -> int:
        """The processor's own time-stamp counter, before a guest's offset and scaling.

        A nanosecond for each instruction, or round charged in place of one, and `exit_ns` for each exit that was served.
        """
        return read_tsc(self.cpu)

    @tsc.setter
    def tsc(self, value: cython.ulonglong) -> None:
        set_tsc(self.cpu, value)

    def follow_host_clock(self, offset_ns: cython.longlong) -> None:
        """The counter is the host's monotonic clock and `offset_ns` from now on: the same for all who are given the same."""
        self.cpu.tsc_host = 1
        self.cpu.tsc_base = cython.cast(u64, offset_ns)

    def count_instructions(self) -> None:
        """The counter goes on from what it shows, with instructions."""
        shown: u64 = read_tsc(self.cpu)
        self.cpu.tsc_host = 0
        set_tsc(self.cpu, shown)

    # -- running, without VMX --------------------------------------------------------------------------------

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
        """The vector of the last exception that was raised."""
        return self.cpu.exception

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

    def stop_on_delivery(self, wanted: cython.bint) -> None:
        """Whether `enter` shall come back (PAUSE_BUDGET) after each exception delivered, for those who show single steps."""
        self.cpu.stop_on_delivery = 1 if wanted else 0
