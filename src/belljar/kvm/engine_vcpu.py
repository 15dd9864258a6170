"""A vCPU of the KVM engine: plain data in and out, and runs that always end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from belljar.engine_data import FOREVER, DebugControl, EngineTranslation, RunPage
from belljar.errors import (
    CapabilityMissing,
    ConfigurationError,
    EngineError,
    FeatureUnsupported,
    KvmCallFailed,
)
from belljar.exits import Exit, ExitReason, WriteMsr
from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.run import (
    KVM_EXIT_HYPERV,
    KVM_EXIT_INTR,
    KVM_EXIT_UNKNOWN,
    KVM_MSR_EXIT_REASON_FILTER,
    KVM_SYNC_X86_EVENTS,
)
from belljar.kvm.debugging import debug_registers
from belljar.kvm.engine_vcpu_events import NO_COUNTING, USE_SOFT, KvmVcpuEvents
from belljar.kvm.exit_decoder import decode
from belljar.kvm.exit_reasons import exit_names
from belljar.kvm.start_state import read_special, refused_bits, set_start_state, write_special
from belljar.kvm.state_codec import (
    REGS,
    pack_registers,
    unpack_registers,
    unpack_special,
)
from belljar.x86.state import CpuState, Registers, SpecialRegisters

if TYPE_CHECKING:
    from belljar.engine import Bus
    from belljar.kvm.engine import KvmVm
    from belljar.kvm.guest_tsc import KvmTsc
    from belljar.kvm.vcpu import Vcpu
    from belljar.watching import ExitWatch

REASONS = tuple(ExitReason)
SERVED_HERE = (ExitReason.RDMSR, ExitReason.WRMSR, ExitReason.UNKNOWN)

KVM_ENOSYS = 1000
"""What KVM answers to a hypercall that it does not know (include/uapi/linux/kvm_para.h)."""

IA32_APIC_BASE = 0x1B
"""SDM 4 2.1; `belljar.x86.msr` is dear to import."""

U64 = (1 << 64) - 1

INTERRUPT_STATISTICS = (
    "irq_injections", "nmi_injections", "irq_window_exits", "nmi_window_exits", "irq_exits", "halt_exits", "halt_wakeup",
    "halt_wait_ns",
)  # fmt: skip
"""Those of the kernel's statistics of a vCPU that are about interrupts (arch/x86/kvm/x86.c, kvm_vcpu_stats_desc)."""


class KvmVcpu(KvmVcpuEvents):
    """One virtual CPU. `raw` is the kernel's vCPU underneath, with everything it can do.

    Registers may be accessed whenever no other thread runs it (EngineError then). What an exit has left unfinished is
    finished first, so that they are always those between two instructions.
    """

    def __init__(self, vm: KvmVm, vcpu: Vcpu) -> None:
        self._vm = vm
        self.raw = vcpu
        self.index = vcpu.index
        self._loop = vcpu.loop
        self._bus: Bus | None = None
        self._stepping = False
        self._unanswered = False
        self.ready_for_interrupt = self._loop.ready_for_interrupt
        self.request_interrupt_window = self._loop.request_interrupt_window
        self._loop.sleeps = vm.chips is not None
        self._loop.tells_priority = vm.tells_priority
        self._loop.syncs_events = vm.chips is None and bool(vcpu.check(caps.KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_EVENTS)
        if vm.tsc_khz is not None:
            from belljar.kvm.guest_tsc import set_frequency  # few want another

            set_frequency(vcpu, vm.tsc_khz)
        self._tsc: KvmTsc | None = None
        if vm.tells_deadlines:
            from belljar.kvm.guest_tsc import counter_of  # few have a use for it

            self._tsc = counter_of(vcpu, vm.host_tsc_khz)
        tsc_deadline = self._tsc is not None
        if vm.chips is not None:
            tsc_deadline = bool(vcpu.check(caps.KVM_CAP_TSC_DEADLINE_TIMER))
        model = vm.engine.cpu_model
        if vm.cpu_model_with_hyperv is not None:
            model = vm.cpu_model_with_hyperv
            vcpu.enable(caps.KVM_CAP_HYPERV_SYNIC2)
        self._model = model
        vcpu.call(ioctls.KVM_SET_CPUID2, model.table_for(vcpu.index, tsc_deadline=tsc_deadline))
        if vm.engine.mcg_cap:
            vcpu.set_up_machine_checks(vm.engine.mcg_cap)

    @property
    def run_page(self) -> RunPage:
        """The mapping that the kernel and this process share."""
        return RunPage(self._loop.hva, self._loop.size, "mmap of the vCPU's file descriptor (struct kvm_run)")

    # -- state -----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Before state is looked at: nobody else at it, no instruction half done, but one that waits for `answer`."""
        self._complete(keep=self._unanswered)

    def _complete(self, *, keep: bool = False) -> None:
        if self._loop.busy:
            raise EngineError(
                f"vCPU {self.index} is running on another thread", hint="stop it before looking at its state"
            )
        if self._loop.pending and not keep:
            self.last_exit()  # finishing overwrites what the page says of it
            try:
                self._loop.complete()
            except KvmCallFailed as error:
                raise EngineError(str(error)) from None
        self._loop.events_may_change()

    def _finish(self) -> None:
        """Before state is changed: `_settle`, and should the instruction have another half on the bus, that too.

        The half goes to the bus of the last run; a kick makes the run return as soon as the instruction is done.
        """
        self._complete()
        if self._loop.stashed and self._bus is not None:
            kicked = self._loop.kicked
            self._loop.kick()
            self._loop.run(self._bus)
            if kicked:
                self._loop.kick()

    def get_registers(self) -> Registers:
        """The general registers, RIP and RFLAGS."""
        self._settle()
        data = bytearray(REGS.size)
        self.raw.call(ioctls.KVM_GET_REGS, data)
        return unpack_registers(data)

    def set_registers(self, registers: Registers) -> None:
        """Set all of them. Raises ConfigurationError if a value does not fit 64 bits."""
        self._finish()
        self._loop.flags_change()
        self.raw.call(ioctls.KVM_SET_REGS, pack_registers(registers))

    def get_special(self) -> SpecialRegisters:
        """Segments, tables, control registers, EFER."""
        self._settle()
        return unpack_special(read_special(self.raw))

    def set_special(self, special: SpecialRegisters) -> None:
        """Set all of them as given. Raises EngineError if the kernel refuses, ConfigurationError for impossible values."""
        self._finish()
        try:
            write_special(self.raw, special)
        except KvmCallFailed as error:
            raise EngineError(f"KVM refuses these special registers{refused_bits(special)}: {error}") from None
        self._loop.task_priority = special.cr8  # where it counts, without a kernel APIC

    def set_state(self, state: CpuState, mode: str) -> None:
        """Start state for `mode`: set, read back, and raise ModeUnsupported if the kernel refuses or forgets a part of it.

        The bootstrap flag of the APIC base is the vCPU's own, whatever the state says.
        """
        self._finish()
        set_start_state(self.raw, state, mode, self._vm.engine.cpu_model, self._vm.read)

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """MSR values by index; those that KVM does not have are left out."""
        self._settle()
        return self.raw.get_msrs(indices)

    def set_msrs(self, values: Mapping[int, int]) -> None:
        """Set MSRs; raises FeatureUnsupported naming the first that KVM refuses."""
        self._finish()
        for index, value in values.items():
            if not 0 <= index < 1 << 32 or not 0 <= value < 1 << 64:
                raise ConfigurationError(f"MSR {index:#x} cannot hold {value:#x}")
        refused = self.raw.set_msrs(values)
        if refused is not None:
            raise FeatureUnsupported(f"KVM does not take {values[refused]:#x} for MSR {refused:#x}")
        if self._tsc is not None:
            self._tsc.look()

    def translate(self, gva: int) -> EngineTranslation:
        """The kernel's own walk of the guest's page tables (KVM_TRANSLATE, api.rst 4.15)."""
        self._settle()
        found = self.raw.translate(gva)
        return EngineTranslation(
            gva, found.physical_address, bool(found.valid), bool(found.writeable), bool(found.usermode)
        )

    def set_debug(self, control: DebugControl) -> None:
        """What to stop for from the next run on: single step, up to four breakpoints and watchpoints (SDM 3B 18.2).

        Raises FeatureUnsupported for more of them, or where this host's KVM lacks guest debugging or watchpoints.
        """
        flags, registers = debug_registers(control, self.raw.check(caps.KVM_CAP_SET_GUEST_DEBUG2))
        if control.watchpoints and not self._vm.engine.watchpoints_work:
            raise FeatureUnsupported("data watchpoints do not fire on this host's KVM", hint="`--engine soft` has them")
        self._settle()
        try:
            self.raw.set_guest_debug(flags, registers)
        except (CapabilityMissing, KvmCallFailed) as error:
            raise FeatureUnsupported(f"this host's KVM cannot debug guests: {error}") from None
        self._stepping = control.single_step

    # -- running ---------------------------------------------------------------------------------------------------

    def run(
        self,
        bus: Bus,
        *,
        deadline_ns: int | None = None,
        instructions: int | None = None,
        until_ns: int = FOREVER,
        single_exit: bool = False,
        observer: Callable[[Exit], None] | None = None,
    ) -> ExitReason:
        """Run until something ends the run (`belljar.engine.Vcpu.run`).

        An access whose bus method raised counts as done; a read then gives the guest all ones. FeatureUnsupported for
        `instructions` and `until_ns`, EngineError if KVM_RUN fails.
        """
        if instructions is not None or until_ns != FOREVER:
            raise FeatureUnsupported(NO_COUNTING, hint=USE_SOFT)
        if self._stepping:
            return self._step(bus, deadline_ns, single_exit, observer)
        self._bus = bus
        self._unanswered = False
        notify = None
        if observer is not None:
            watch = observer

            def notify() -> None:
                """Hand the exit over, whole."""
                watch(self.last_exit())

        reason = REASONS[self._loop.run(bus, deadline_ns, single_exit, notify)]
        if reason is ExitReason.HLT or reason is ExitReason.INTERRUPTED:
            return reason
        while reason in SERVED_HERE and self._serve(reason, observer):
            reason = REASONS[self._loop.run(bus, deadline_ns, single_exit, notify)]
        if reason.answerable:
            self._write_answer(reason, None)
            self._unanswered = True
        return reason

    def _step(
        self, bus: Bus, deadline_ns: int | None, single_exit: bool, observer: Callable[[Exit], None] | None
    ) -> ExitReason:
        """As `run`; and the guest is not to find that it was stepped."""
        from belljar.kvm.stepping import PushedFlags, step_over_halt  # only a debugger wants them

        if not self._loop.kicked and (exit := step_over_halt(self, self._vm)) is not None:
            self._loop.came_back(exit.reason, exit)
            return exit.reason
        pushed = PushedFlags(self, self._vm)
        self._stepping = False
        try:
            return self.run(bus, deadline_ns=deadline_ns, single_exit=single_exit, observer=observer)
        finally:
            self._stepping = True
            if not self.raw.closed:
                pushed.clear()

    def _serve(self, reason: ExitReason, observer: Callable[[Exit], None] | None) -> bool:
        """Whether an exit was nobody else's to serve, and the guest may go on."""
        if reason is ExitReason.UNKNOWN:
            return self._vm.cpu_model_with_hyperv is not None and self._serve_hyperv()
        if self._tsc is not None:
            self._tsc.look()
        traffic = self._vm.msr_traffic
        return traffic is not None and traffic.serve(self, reason, observer)

    def _serve_hyperv(self) -> bool:
        """Whether the exit was Hyper-V's."""
        from belljar.kvm.hyperv import serve  # as in engine.py

        page = self.raw.page
        return page.exit_reason == KVM_EXIT_HYPERV and serve(page.exit.hyperv)

    def answer(self, value: int | None) -> None:
        """Finish the RDMSR, WRMSR or hypercall that the last `run` returned with (`belljar.engine.Vcpu.answer`)."""
        reason = REASONS[self._loop.reason]
        if not reason.answerable or not self._loop.pending or self._loop.stashed:
            raise EngineError(f"vCPU {self.index} waits for no answer")
        if value is not None and not -(1 << 63) <= value <= U64:
            raise ConfigurationError(f"the answer {value:#x} does not fit 64 bits")
        self._unanswered = False
        told = self.last_exit()  # what is written now is where a hypercall's and a write's exit are read from
        if value is not None and isinstance(told, WriteMsr) and told.msr == IA32_APIC_BASE:
            value = self._set_apic_base(told, value)
        self._write_answer(reason, value)

    def _set_apic_base(self, told: WriteMsr, answer: int) -> int | None:
        """Where others have answered the guest's write: KVM has to know, too, as for CPUID. None if it refuses."""
        if told.why != KVM_MSR_EXIT_REASON_FILTER:
            return answer  # KVM has refused it already, and whoever answers may know better
        if self.raw.set_msrs({IA32_APIC_BASE: told.value}) is not None:
            return None
        self._loop.apic_base = told.value
        return answer

    def _write_answer(self, reason: ExitReason, value: int | None) -> None:
        told = self.raw.page.exit
        if reason is ExitReason.HYPERCALL:
            told.hypercall.ret = (-KVM_ENOSYS if value is None else value) & U64
            return
        told.msr.error = int(value is None)
        if reason is ExitReason.RDMSR and value is not None:
            told.msr.data = value & U64

    def last_exit(self) -> Exit:
        """The exit that ended the last `run`, whole."""
        if self._loop.exit is None:
            self._loop.exit = decode(REASONS[self._loop.reason], self.index, self.raw.page, self.raw.mapping)
        return self._loop.exit

    # -- the rest ----------------------------------------------------------------------------------------------------

    def gave_turn(self) -> int:
        """Never: vCPUs have threads, and the kernel looks after those that spin."""
        return 0

    def wait_out(self, wanted: bool) -> None:
        """Nothing to do."""

    def instructions_retired(self) -> int:
        """Raises FeatureUnsupported: KVM does not count."""
        raise FeatureUnsupported(NO_COUNTING, hint=USE_SOFT)

    def exits_ns(self) -> int:
        """Raises FeatureUnsupported, as above."""
        raise FeatureUnsupported(NO_COUNTING, hint=USE_SOFT)

    def kick(self) -> None:
        """Make the current run, or else the next one, return INTERRUPTED. From any thread, any number of times."""
        self._loop.kick()

    def watch_exits(self, watch: ExitWatch, *, msrs: bool) -> bool:
        """Not here: which VM exits there were only the kernel knows."""
        return False

    def last_exit_name(self) -> str:
        """KVM_EXIT_* by the number in the run page; empty where the kernel gave none (a vCPU that sleeps in it)."""
        number = self.raw.page.exit_reason
        if number in (KVM_EXIT_UNKNOWN, KVM_EXIT_INTR):
            return ""
        return exit_names().get(number, f"KVM_EXIT number {number}")

    def interrupt_statistics(self) -> dict[str, int]:
        """From the kernel's binary statistics (KVM_GET_STATS_FD, api.rst 4.133); empty where it has none."""
        self._settle()
        try:
            with self.raw.statistics() as statistics:
                found = statistics.read()
        except (CapabilityMissing, KvmCallFailed):
            return {}
        return {name: found[name][0] for name in INTERRUPT_STATISTICS if name in found}

    def exit_counts(self) -> dict[ExitReason, int]:
        """How often this vCPU came back, by reason, since it was made; zero counts left out."""
        return {reason: count for reason, count in zip(REASONS, self._loop.exit_counts(), strict=True) if count}

    def close(self) -> None:
        """Give everything back; a run under way on another thread is ended first. Harmless when repeated."""
        self._bus = None
        self.raw.close()
