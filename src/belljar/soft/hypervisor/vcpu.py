"""A vCPU: a processor with its VMCS, run until something ends the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Final, cast

from belljar.breath import breathe
from belljar.engine import Bus, MsrDevice
from belljar.engine_data import FOREVER, LAPIC_TSC_DEADLINE, LAPIC_X2APIC, DebugControl
from belljar.errors import ConfigurationError, EngineError, FeatureUnsupported
from belljar.exits import Exit, ExitReason, InstructionLimit, Interrupted
from belljar.soft.hypervisor import msr_access
from belljar.soft.hypervisor.charges import CHARGED
from belljar.soft.hypervisor.handlers.ends import halt, stepped
from belljar.soft.hypervisor.handlers.ports import access as port_access
from belljar.soft.hypervisor.handlers.table import HANDLERS
from belljar.soft.hypervisor.mmu.mmu import Mmu
from belljar.soft.hypervisor.reasons import Reason
from belljar.soft.hypervisor.requests import Requests
from belljar.soft.hypervisor.shared import Shared
from belljar.soft.hypervisor.vcpu_exits import VcpuExits
from belljar.soft.hypervisor.window import DeviceWindow
from belljar.soft.processor._core import Processor, VmxError
from belljar.soft.processor.features import Feature

if TYPE_CHECKING:
    from belljar.soft.hypervisor.paravirt.interfaces import Interfaces
    from belljar.watching import ExitWatch

GET_IDENT: Final = get_ident
"""Compiled code would look it up by its name at each call."""

FIRST_CHUNK: Final = 1_000
"""Instructions of a run without a limit that come before all others: most runs wait for interrupts again after fewer."""

CHUNK: Final = 5_000
"""Instructions until the first look at the clock."""

LONGEST_CHUNK: Final = 100_000
"""Instructions between two looks at the clock at most: a look costs little beside so many, however quick they are, and the
slowest (stores into the code that runs) take half a second for so many."""

CHUNK_NS: Final = 4_000_000
"""What a chunk shall take at most; where instructions are cheap, chunks grow towards it."""

EXITS_PER_LOOK: Final = 64
"""Exits between two looks at the clock."""

PORT_ACCESS: Final = int(Reason.IO)
"""The most frequent exit does without the look-up of its handler."""

NO_DEVICE: Final = (1 << 64) - 1
"""No page's address."""

HALTED: Final = int(Reason.HLT)
CARRIED_OUT: Final = 0x100000
"""Added to why an instruction was not carried out (`Processor.enter_exactly`)."""

SHORTEST_RUN: Final = 64
"""Instructions in a run for which setting out for more than one entry would be dear."""
PAUSE_LIMIT: Final = int(Reason.PAUSE_LIMIT)
INSTRUCTION_LIMIT: Final = int(ExitReason.INSTRUCTION_LIMIT)
LIMIT_REACHED: Final = ExitReason.INSTRUCTION_LIMIT
PAUSE_BUDGET: Final = int(Reason.PAUSE_BUDGET)
"""Names of this module's own: an enum's member is dear to look up once an exit."""


def next_chunk(chunk: int, took_ns: int) -> int:
    """How many instructions the next chunk gets, when one of `chunk` took so long."""
    return max(chunk // 2, 1) if took_ns > CHUNK_NS else min(2 * chunk, LONGEST_CHUNK)


class SoftVcpu(VcpuExits):
    """One virtual CPU of the soft engine. Handlers use `processor`, `mmu`, `memory`, `bus`, `window`, `log` and `debug`."""

    def __init__(self, index: int, mmu: Mmu, msr_bitmap_hpa: int, shared: Shared | None = None) -> None:
        super().__init__(index, mmu, msr_bitmap_hpa)
        self.shared = Shared(mmu) if shared is None else shared
        self.window = DeviceWindow(mmu, self)
        self._device_page = mmu.device_page
        self.debug = DebugControl()
        self.bus = cast(Bus, None)  # until the first run
        self.shows_deliveries = False
        self._careful = False
        self._carried = 0
        # What ends most runs, made once: exits never change.
        self._limit_reached = InstructionLimit(index)
        self.interrupted = Interrupted(index)
        self.gives_turn = 0
        """Whether the last run ended in a loop that waits for another vCPU (`gave_turn`)."""
        self.cr8_written = False
        self.exiting_msrs: Container[int] = ()
        """Those that the machine answers."""
        self.msr_device: MsrDevice | None = None
        """Answers some of them without ending the run."""
        self.exits_on_hypercalls = False
        self.has_chips = False
        self.siblings: Sequence[SoftVcpu] = (self,)
        """The VM's vCPUs, this one among them: the cores of one package."""
        self.requests = Requests((self,))
        """The VM's; of what other threads ask for."""
        self._looked_ns = 0

    # -- MSRs and what else the guest finds ------------------------------------------------------------------------

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """MSR values by index; those that the processor does not have are left out."""
        self._settled()
        found = ((index, msr_access.read(self, index)) for index in indices)
        return {index: value for index, value in found if value is not None}

    def set_msrs(self, values: Mapping[int, int]) -> None:
        """Set MSRs; raises FeatureUnsupported naming the first that the processor refuses."""
        self._settled()
        for index, value in values.items():
            if not 0 <= index < 1 << 32 or not 0 <= value < 1 << 64:
                raise ConfigurationError(f"MSR {index:#x} cannot hold {value:#x}")
            if not msr_access.write(self, index, value):
                raise FeatureUnsupported(f"the soft processor does not take {value:#x} for MSR {index:#x}")

    @property
    def interfaces(self) -> Interfaces:
        """What the guest finds beside a processor: KVM's paravirtual interface, Hyper-V's."""
        if self.interfaces_made is None:
            from belljar.soft.hypervisor.paravirt.interfaces import Interfaces  # a guest that never asks need not wait

            self.interfaces_made = Interfaces(self)
        return self.interfaces_made

    def set_debug(self, control: DebugControl) -> None:
        """What to stop for from the next run on: single step, and any number of breakpoints and watchpoints."""
        self._settled().watch(
            list(control.breakpoints_gva), [(point.gva, point.size, point.on_read) for point in control.watchpoints]
        )
        self.debug = control
        self._careful = control.single_step or self.shows_deliveries

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

        An access whose bus method raised counts as done; a read then gives the guest all ones. An instruction with
        several accesses is done after the first; with `single_exit`, the next calls return the others.
        """
        if self._backlog:
            return self._next_of_backlog()
        if self._waiting is not None:
            self.answer(None)
        begun = -1
        if (
            instructions is not None
            and 0 < instructions <= SHORTEST_RUN
            and observer is None
            and not single_exit
            and not self._careful
        ):  # nothing on this way but what must be
            try:
                begun = self.processor.enter_exactly(instructions, until_ns)
            except VmxError as error:
                raise self._failed(error) from None
            if begun == PAUSE_LIMIT:
                log = self.log
                log.counts[INSTRUCTION_LIMIT] += 1
                log.made = self._limit_reached
                return LIMIT_REACHED
        return self._run_on(bus, deadline_ns, instructions, until_ns, single_exit, observer, begun)

    def _run_on(
        self,
        bus: Bus,
        deadline_ns: int | None,
        instructions: int | None,
        until_ns: int,
        single_exit: bool,
        observer: Callable[[Exit], None] | None,
        begun: int,
    ) -> ExitReason:
        """`run`, but for the shortest way. `begun`: why the processor came back already; -1: not entered."""
        reporting = single_exit or observer is not None
        self.runner = GET_IDENT()
        try:
            if self.requests.waiting:
                self.requests.serve()
            if bus is not self.bus:
                self.bus = self.window.bus = bus
            self._observer, self._single_exit, self.reporting = observer, single_exit, reporting
            if not reporting and not self._careful and (instructions is None or instructions > 0):
                return self._run_unseen(deadline_ns, instructions, until_ns, begun)
            self.memory.host_changed()
            if reporting and deadline_ns is not None and time.monotonic_ns() >= deadline_ns:
                return self.end(self.interrupted)  # a run of single exits never gets to look below
            if instructions is None and until_ns == FOREVER and not self._careful:
                return self._run_freely(deadline_ns)
            return self._run_counting(deadline_ns, instructions, until_ns, -1)
        except VmxError as error:
            raise self._failed(error) from None
        finally:
            self.runner = 0

    def _used_up(self) -> ExitReason:
        log = self.log
        log.counts[INSTRUCTION_LIMIT] += 1
        log.made = self._limit_reached
        return LIMIT_REACHED

    def _run_unseen(self, deadline_ns: int | None, instructions: int | None, until_ns: int, begun: int) -> ExitReason:
        """A run that nobody looks at. In its first chunk, accesses to the device's page that was touched last are served on
        the way: most runs are from one interrupt to the next, and come to no more.

        `begun`: why the processor came back already; -1: not entered.
        """
        if begun < 0:
            chunk = FIRST_CHUNK if instructions is None else min(instructions, CHUNK)
            window, device_gpa = self.window, self._device_page.gpa
            if device_gpa >= 0:
                window.device_gpa = device_gpa
                begun = self.processor.enter_exactly(chunk, until_ns, window, device_gpa)
            else:
                begun = self.processor.enter_exactly(chunk, until_ns)
            if begun == PAUSE_LIMIT:
                if chunk == instructions or self.processor.left(FOREVER, until_ns) <= 0:
                    return self._used_up()
                begun = PAUSE_BUDGET
            ended = None
            if begun == HALTED:
                ended, begun = halt(self), PAUSE_BUDGET
            elif begun >= CARRIED_OUT:
                if self.window.failure is not None:
                    self.window.fail()
                ended, begun = self.carried_out(begun - CARRIED_OUT), PAUSE_BUDGET
            if ended is not None:
                return ended
        if instructions is not None or until_ns != FOREVER:
            return self._run_counting(deadline_ns, instructions, until_ns, begun)
        if begun != PAUSE_BUDGET:
            ended = self._serve(begun)
            if ended is not None:
                return ended
        return self._run_freely(deadline_ns)

    def _failed(self, error: VmxError) -> EngineError:
        return EngineError(f"VM entry of vCPU {self.index} failed: {error}")

    def _run_freely(self, deadline_ns: int | None) -> ExitReason:
        """Run without counting. Consoles live here."""
        processor = self.processor
        enter = processor.enter
        budget, looks, look_at = CHUNK, EXITS_PER_LOOK, processor.spent + CHUNK
        self._looked_ns = time.monotonic_ns()
        while True:
            reason = enter(budget)
            if reason == PORT_ACCESS:
                ended = port_access(self)
                looks -= 1
                if ended is not None:
                    return ended
                if looks > 0:
                    continue
            else:
                ended = self._serve(reason)
                if ended is not None:
                    return ended
                looks -= 1
            if self._carried:
                looks -= self._carried
                self._carried = 0
            if reason == PAUSE_BUDGET or looks <= 0 or processor.spent >= look_at:
                budget = self._look_at_clock(deadline_ns, budget, reason == PAUSE_BUDGET)
                if not budget:
                    return self.end(self.interrupted)
                looks, look_at = EXITS_PER_LOOK, processor.spent + budget

    def _run_counting(self, deadline_ns: int | None, instructions: int | None, until_ns: int, begun: int) -> ExitReason:
        """Run to a number of instructions or a time, or one by one.

        `begun`: why the processor came back already; -1: not entered.
        """
        processor = self.processor
        single_step = self.debug.single_step
        chunk = 1 if single_step else CHUNK
        begin = processor.spent if begun < 0 else processor.spent_before
        limit = FOREVER if instructions is None else begin + instructions
        left = processor.left(limit, until_ns)
        if begun < 0 and left <= 0:
            return self.end(self._limit_reached)
        looks, look_at = EXITS_PER_LOOK, begin + chunk
        self._looked_ns = 0
        while True:
            before = processor.retired
            if begun < 0:
                reason = processor.enter(left if left < chunk else chunk)
            else:
                reason, begun, before = begun, -1, -1
            ended = self._serve(reason)
            if ended is not None:
                return ended
            if processor.retired == before:
                if reason == PAUSE_BUDGET and self.shows_deliveries:
                    return self.end(self._limit_reached)
            elif single_step:
                return stepped(self)
            left = processor.left(limit, until_ns)
            if left <= 0:
                return self.end(self._limit_reached)
            looks -= 1 + self._carried
            self._carried = 0
            if reason == PAUSE_BUDGET or looks <= 0 or processor.spent >= look_at:
                chunk = self._look_at_clock(deadline_ns, chunk, reason == PAUSE_BUDGET and not single_step)
                if not chunk:
                    return self.end(self.interrupted)
                looks, look_at = EXITS_PER_LOOK, processor.spent + chunk

    def _look_at_clock(self, deadline_ns: int | None, chunk: int, used_up: bool) -> int:
        """How many instructions until the next look, at most; 0: the deadline has come. `used_up`: the last `chunk` was."""
        breathe()
        now_ns, looked_ns = time.monotonic_ns(), self._looked_ns
        if deadline_ns is not None and now_ns >= deadline_ns:
            return 0
        self._looked_ns = now_ns
        return next_chunk(chunk, now_ns - looked_ns) if used_up and looked_ns else chunk

    def _serve(self, reason: int) -> ExitReason | None:
        if reason in CHARGED:
            self.processor.charge_exit()
        handler = HANDLERS.get(reason)
        return self._unexpected(reason) if handler is None else handler(self)

    def carry_out(self, device_gpa: int = NO_DEVICE) -> int:
        """Have the processor carry out one instruction, or one iteration, with devices on the bus; why it came back.

        `device_gpa`: a page that no memory slot has.
        """
        self._carried += 1
        window = self.window
        window.device_gpa = device_gpa
        reason = self.processor.emulate(window, device_gpa)
        if window.failure is not None:
            window.fail()
        return reason

    def carried_out(self, reason: int) -> ExitReason | None:
        """What follows from `carry_out`: reports of the accesses, or the exit that the instruction ended with."""
        if reason in (Reason.EPT_VIOLATION, Reason.TASK_SWITCH):
            return self.cannot_emulate()
        if reason not in (Reason.PAUSE_BUDGET, Reason.PAUSE_EMULATED):
            ended = self._serve(reason)
            if ended is not None:
                return ended
        return self._next_of_backlog() if self._backlog else None

    def show_deliveries(self) -> None:
        """From now on, a run also ends (INSTRUCTION_LIMIT) when an exception was delivered, before its handler runs."""
        self._open().stop_on_delivery(True)
        self.shows_deliveries = self._careful = True

    @property
    def lapic_features(self) -> int:
        """What CPUID offers of the machine's local APIC: deadlines are the time-stamp counter's."""
        offered = LAPIC_X2APIC | (LAPIC_TSC_DEADLINE if self.processor.has(Feature.TSC) else 0)
        return offered & ~self.shared.lapic_features_off

    def serve_msrs(self, device: MsrDevice) -> None:
        """Have some MSRs answered in the middle of a run (`belljar.engine.Vcpu.serve_msrs`)."""
        self.msr_device = device

    @property
    def runs(self) -> bool:
        """Whether some thread executes the guest, or serves its exits."""
        return not self._closed and (self.runner != 0 or self.processor.entered)

    def request(self) -> None:
        """Have whoever runs this vCPU look at `requests` before another instruction. From any thread."""
        if not self._closed:
            self.processor.request()

    def kick(self) -> None:
        """Make the current run, or else the next one, return INTERRUPTED. From any thread, any number of times."""
        if not self._closed:
            self.processor.kick()

    def watch_exits(self, watch: ExitWatch, *, msrs: bool) -> bool:
        """From now on, tell of every VM exit, CPUID and MSR access; with `msrs` also of those that need no exit."""
        from belljar.soft.hypervisor.observed import ObservedProcessor  # only who looks on waits for it

        bitmap_hpa = None
        if msrs:
            bitmap_hpa = self.mmu.pool.take()
            self.memory.write(bitmap_hpa, b"\xff" * 4096)
        observed = ObservedProcessor(self._open(), self, self.memory, watch, bitmap_hpa)
        self.processor = cast(Processor, observed)
        return True

    def close(self) -> None:
        """Give everything back. Harmless when repeated."""
        if not self._closed:
            super().close()
            self.window.close()
