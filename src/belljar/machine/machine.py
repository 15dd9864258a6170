"""A machine: memory, vCPUs, buses and devices on an engine.

with Machine("hello-long") as machine:
    result = machine.run(timeout=1)
    print(machine.console, machine.cpu.rax, machine.memory.read_u8(0x400))
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

from belljar.devices.bus import Bus, LockedBus
from belljar.devices.console import Capture
from belljar.devices.debug_console import DebugConsole
from belljar.devices.debug_exit import DebugExit
from belljar.devices.serial import Serial
from belljar.engine_data import DebugControl, Watchpoint
from belljar.errors import ClosedError, ConfigurationError, FeatureUnsupported, GuestMemoryError, ModeUnsupported
from belljar.exits import Debug, Exit, Hypercall
from belljar.machine.chip_choice import use_chips
from belljar.machine.config import MachineConfig
from belljar.machine.cpu import Cpu, with_parts
from belljar.machine.crash import describe_exit
from belljar.machine.guest import Guest, resolve
from belljar.machine.result import End, RunResult
from belljar.machine.runner import Observer, Runner
from belljar.machine.select import next_engine, select_engine
from belljar.memory import GuestMemory
from belljar.x86 import modes
from belljar.x86.code import halt_length
from belljar.x86.state import DescriptorTable

if TYPE_CHECKING:
    from belljar.devices.lines import Line
    from belljar.devices.small_pc import SmallPc
    from belljar.engine import Engine, Vm
    from belljar.machine.hotplug import RemovedCpu
    from belljar.machine.input_thread import InputThread
    from belljar.machine.interrupts import EngineInterrupts
    from belljar.machine.own_interrupts import OwnInterrupts
    from belljar.machine.pins import Pins
    from belljar.machine.timer_thread import TimerThread

REAL_MODE_VECTORS = 0x400
"""Bytes of real mode's vectors, where firmware leaves IDTR; kernels that go back to real mode count on it."""


class Machine:
    """A guest on an engine, ready to run. Takes the options of `MachineConfig`; a context manager that gives everything back.

    Raises ConfigurationError, LoadError, EngineUnavailable or ModeUnsupported, and then leaves nothing behind.
    """

    def __init__(self, guest: Any, **options: Any) -> None:
        started_ns = time.perf_counter_ns()
        try:
            self.config = MachineConfig(guest, **options)
        except TypeError as error:
            raise ConfigurationError(f"Machine: {str(error).removeprefix('MachineConfig.__init__() ')}") from None
        self.config.check()
        self.guest: Guest = resolve(self.config)
        self.timings_ns: dict[str, int] = {}
        self._closed = False
        self._owns_engine = not hasattr(self.config.engine, "create_vm")
        self.engine_reason = ""
        self.vm: Vm | None = None
        self.own_interrupts: OwnInterrupts | None = None
        self.interrupts: EngineInterrupts | OwnInterrupts | None = None
        """Lines, messages and routes, where there are interrupt chips."""
        self.pc: SmallPc | None = None
        """The rest of a PC, where there are interrupt chips."""
        self.timers: TimerThread | None = None
        """Runs the timers of the PC's devices where the engine keeps the vCPUs' own time."""
        self.input_thread: InputThread | None = None
        """Waits for console input where the guest does."""
        self.cpus: tuple[Cpu, ...] = ()
        self.removed_cpus: dict[int, RemovedCpu] = {}
        """By index: what vCPUs that were removed have counted."""
        self.memory = GuestMemory()
        self.engine: Engine
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        self.timings_ns["create"] = time.perf_counter_ns() - started_ns

    def _build(self) -> None:
        self.engine, self.engine_reason = select_engine(self.config)
        try:
            self._assemble()
        except (ModeUnsupported, FeatureUnsupported) as error:
            other = next_engine(self.config, self.engine, error.message)
            if other is None:
                raise
            self._release()
            self.memory = GuestMemory()
            self.engine, self.engine_reason = other
            self._assemble()

    def _assemble(self) -> None:
        """VM, memory, guest, vCPUs and devices on the engine that was chosen."""
        self.vm = self.engine.create_vm()
        self.chips = use_chips(self.config, self.engine, self.vm, needs_chips=self.guest.needs_chips)
        for gpa, size in self.config.memory_layout():
            region = self.memory.add(
                gpa, size, name="ram", mergeable=self.config.mergeable, huge_pages=self.config.huge_pages
            )
            self.vm.map(region)
        if self.guest.image.strict:
            from belljar.machine.firmware import add_rom  # kernels alone go back to it

            add_rom(self)
        self.setup = self._load()
        if self.config.hyperv:
            self.vm.use_hyperv()
        if self.config.tsc_khz is not None:
            self.vm.set_tsc_khz(self.config.tsc_khz)
        vcpus = []
        for index, state in enumerate(self.setup.states):
            vcpu = self.vm.create_vcpu(index)
            vcpus.append(vcpu)
            if index and not self.chips.together:
                continue  # after reset, waiting for INIT and start-up IPI
            registers = {**self.guest.registers_of(index), **self.config.registers}
            if registers:
                state.registers = with_parts(state.registers, registers)
            vcpu.set_state(state, self.guest.mode)
        self.cpus = tuple(Cpu(vcpu) for vcpu in vcpus)
        self._attach_devices()
        self._breakpoints: set[int] = set()
        self._watchpoints: set[Watchpoint] = set()
        if self.config.msr_handler is not None:
            self.vm.exit_on_msrs()
        if self.config.hypercall_handler is not None:
            self.vm.exit_on_hypercalls()
        self._runner = Runner(self.engine, self.cpus, self.bus, self._describe, self._answer, self.own_interrupts)
        if self.config.pin:
            self._bind_threads(self.config.pin)

    def _load(self) -> modes.Setup:
        """Put the mode's structures and the guest into memory; the guest may not overlap the structures."""
        layout = self.config.memory_layout()
        setup = modes.build(
            self.guest.mode,
            write=self.memory.write,
            memory_size=sum(layout[-1]),  # where RAM ends, the device hole included
            top_gpa=layout[0][1],
            entry_gva=self.guest.entry_gva,
            page_size=self.guest.page_size,
            cpl=self.guest.cpl,
            cpus=self.guest.cpus,
            idt_handlers=self.guest.idt_handlers,
        )
        if self.guest.image.strict:
            for state in setup.states:
                state.special.idt = DescriptorTable(0, REAL_MODE_VECTORS - 1)
        self.guest.place(self.memory, setup.placements)
        return setup

    def _attach_devices(self) -> None:
        self._capture = Capture() if self.config.output is None else None
        output = self.config.output or self._capture
        assert output is not None
        self.bus: Bus
        if self.chips.which is None:
            serial = Serial(output, self.config.input)
            self.bus = LockedBus() if len(self.cpus) > 1 and self.engine.threaded else Bus()
        else:
            from belljar.machine.board import attach_chips, make_serial  # a machine without chips need not wait for it

            self.bus = attach_chips(self)
            serial = make_serial(self, output)
        devices: list[Any] = [serial, DebugExit(self._debug_exit)]
        if self.config.test_device:
            from belljar.machine.board import devices_of_tests

            devices += devices_of_tests(self)
        else:
            devices.insert(0, DebugConsole(output))
        self.devices = tuple(devices)
        assert self.vm is not None
        for device in self.devices:
            self.bus.attach(device)
            for port in getattr(device, "batched_ports", ()):
                self.vm.batch_writes(port)

    def line(self, gsi: SupportsIndex, source: str) -> Line:
        """A new source of interrupts on line `gsi`: call it with its level. Raises ConfigurationError without `irqchip`.

        From any thread. A machine that idles waits for it where else it would take itself to be halted for good.
        """
        chips = self._chips()
        line = chips.line(gsi, source)
        chips.expect(gsi)
        return line

    def _chips(self) -> EngineInterrupts | OwnInterrupts:
        if self.interrupts is None:
            raise ConfigurationError("this machine has no interrupt chips", hint='Machine(..., irqchip="kernel")')
        return self.interrupts

    def _debug_exit(self, status: int) -> None:
        self._runner.finish(End.DEBUG_EXIT, f"the guest asked to end with status {status}", status=status)

    def reset_requested(self, source: str) -> None:
        """The guest asked for a reset, which ends the run; called by the devices that can be asked."""
        self._runner.finish(End.RESET, f"the guest asked {source} for a reset")

    def power_off_requested(self) -> None:
        """The guest switched the machine off, which ends the run; called by the device that did it."""
        self._runner.finish(End.POWER_OFF, "the guest switched the machine off")

    def _answer(self, exit: Exit) -> int | None:
        if self.own_interrupts is not None:
            answer = self.own_interrupts.answer(exit)
            if answer is not None:
                return answer
        handler: Any = self.config.hypercall_handler if isinstance(exit, Hypercall) else self.config.msr_handler
        answer = None if handler is None else handler(exit)
        return None if answer is None else operator.index(answer)  # engines take nothing else

    def _describe(self, exit: Exit) -> str:
        return describe_exit(exit, self.cpu_of(exit.vcpu), self.peek_code)

    # -- using it ------------------------------------------------------------------------------------------------

    @property
    def cpu(self) -> Cpu:
        """The first vCPU."""
        return self.cpus[0]

    def cpu_of(self, index: int) -> Cpu:
        """The vCPU with this index. Raises ConfigurationError if there is none."""
        for cpu in self.cpus:
            if cpu.index == index:
                return cpu
        raise ConfigurationError(
            f"there is no vCPU {index}", hint=f"vCPUs: {', '.join(str(c.index) for c in self.cpus)}"
        )

    def add_cpu(self) -> Cpu:
        """One more vCPU, with the lowest free index, which waits for INIT and a start-up IPI; also while the guest runs.

        From any thread; the run pauses for it. A device, observer or handler that a vCPU's own thread calls gets EngineError:
        `defer` is for them. Raises ConfigurationError without interrupt chips, or if there are as many as can be.
        """
        from belljar.machine.hotplug import add_cpu  # few machines grow

        self._check_open()
        return add_cpu(self, self._runner)

    def remove_cpu(self, index: SupportsIndex) -> None:
        """One vCPU less, whatever it does, also while the guest runs; `add_cpu` may give its index again.

        As `add_cpu`. Raises ConfigurationError for a vCPU that is not there, and for the bootstrap processor, vCPU 0.
        """
        from belljar.machine.hotplug import remove_cpu  # as above

        self._check_open()
        remove_cpu(self, self._runner, operator.index(index))

    def defer(self, action: Callable[[], object]) -> None:
        """Have `action` called as soon as no vCPU runs, at once if none does; then they go on. From any thread.

        For devices, observers and handlers: `machine.defer(machine.add_cpu)`. An instruction that is being served is served
        to its end. It is called on the thread that called `run`, when a run ends at the latest; what it raises ends the run,
        and is raised by it.
        """
        self._check_open()
        self._runner.defer(action)

    @property
    def console(self) -> bytes:
        """What the guest printed, if the machine was made without an `output` of the caller's; at most `CAPTURE_LIMIT` bytes."""
        return self._capture.getvalue() if self._capture is not None else b""

    @property
    def result(self) -> RunResult | None:
        """How the last run ended; None before the first and while one goes on."""
        return self._runner.result

    @property
    def ending(self) -> bool:
        """Whether the run going on should be over by now; what waits on the guest's behalf must then stop waiting."""
        return self._closed or self._runner.ending

    def run(
        self,
        *,
        timeout: float | None = None,
        instructions: SupportsIndex | None = None,
        observer: Observer | None = None,
    ) -> RunResult:
        """Run until the guest ends, `timeout` seconds pass, exactly `instructions` were executed, `stop()` or a breakpoint.

        `observer` is called with every exit after its device served it. After an end that is not the guest's own (time
        limit, stop, breakpoint, instruction limit), calling `run` again continues; after a halt it continues behind the
        HLT. KeyboardInterrupt and exceptions of observers stop all vCPUs and propagate.
        """
        self._check_open()
        started_ns = time.perf_counter_ns()
        limit = None if instructions is None else operator.index(instructions)
        stepped = self._step_off_breakpoints()
        if stepped is not None:
            return stepped
        result = self._runner.run(timeout=timeout, instructions=limit, observer=observer, in_turn=self._debugging)
        self.timings_ns["run"] = time.perf_counter_ns() - started_ns
        return result

    def exits(self, *, timeout: float | None = None) -> Iterator[Exit]:
        """Run and iterate over every exit, each already served by its device; the whole machine stands still meanwhile.

        The last item is the exit that ended the run; `result` then says how. Breaking off is fine; `run` continues.
        """
        self._check_open()
        return self._runner.exits(timeout=timeout)

    def _bind_threads(self, host_cpus: Sequence[int]) -> Pins:
        from belljar.machine.pins import Pins  # few machines are bound

        if len(host_cpus) > len(self.cpus):
            raise ConfigurationError(f"{len(host_cpus)} host CPUs for {len(self.cpus)} vCPUs", hint="one each at most")
        self._runner.pins = Pins(self._runner.threads, host_cpus)
        return self._runner.pins

    def pin(self, index: SupportsIndex, host_cpu: SupportsIndex | None) -> None:
        """Bind the thread of vCPU `index` to a host CPU, also while the guest runs; None: to none. From any thread.

        Where vCPUs run in turn on one thread (always on soft), that thread may run on the host CPUs of all of them. The
        caller's thread, which runs the only vCPU of a machine, is set free again when the run is over. Raises
        ConfigurationError for a vCPU that is not there, or a host CPU that this process may not use.
        """
        self._check_open()
        index = self.cpu_of(operator.index(index)).index
        host = None if host_cpu is None else operator.index(host_cpu)
        (self._runner.pins or self._bind_threads(())).move(index, host)

    @property
    def pins(self) -> dict[int, int]:
        """The host CPU of every vCPU that is bound to one."""
        return {} if self._runner.pins is None else self._runner.pins.host_cpus

    def step(self, cpu: Cpu | None = None) -> RunResult:
        """Execute one instruction on one vCPU; End.DEBUG unless that instruction ended the guest.

        Interrupts and NMIs that come meanwhile wait until the machine runs on; exceptions are taken. Stepping a HLT is
        End.HALT at once, whatever could end the halt; stepping on afterwards continues behind it. A vCPU that halted in a
        run executes the instruction behind the HLT if something has come that ends the halt; else that is End.HALT, too.

        On KVM before Linux 5.15 the kernel's chips interrupt steps, too, and a handler may then be one step.
        """
        self._check_open()
        cpu = cpu or self.cpu
        before_gva = cpu.pc_gva
        behind_halt = halt_length(self.peek_code(cpu), cpu.bits)
        cpu.vcpu.set_debug(DebugControl(single_step=True))
        try:
            result = self._runner.run_one(cpu)
        finally:
            self._apply_debug()
        # KVM reports the step and forgets the halt where its emulator executed the HLT.
        if result.end is End.DEBUG and behind_halt and cpu.pc_gva == before_gva + behind_halt:
            result = self._runner.settle_halt(cpu)
        return result

    def stop(self) -> None:
        """End the run that is going on, or else the next one. From any thread, in every state of the guest."""
        self._runner.stop()

    # -- breakpoints ---------------------------------------------------------------------------------------------

    @property
    def _debugging(self) -> bool:
        return bool(self._breakpoints or self._watchpoints)

    def add_breakpoint(self, gva: SupportsIndex) -> None:
        """Stop before the instruction at linear address `gva`. FeatureUnsupported past the engine's number (KVM: 4)."""
        place = operator.index(gva)
        self._breakpoints.add(place)
        self._apply_debug(undo=lambda: self._breakpoints.discard(place))

    def remove_breakpoint(self, gva: int) -> None:
        """Take a breakpoint away; harmless if there is none."""
        self._breakpoints.discard(gva)
        self._apply_debug()

    def add_watchpoint(self, gva: SupportsIndex, size: SupportsIndex = 1, *, on_read: bool = False) -> None:
        """Stop after a write (or any access) to `size` (1, 2, 4, 8) bytes at linear address `gva`, which is a multiple of it."""
        gva, size = operator.index(gva), operator.index(size)
        if size not in (1, 2, 4, 8) or gva % size:
            raise ConfigurationError(f"a watchpoint covers 1, 2, 4 or 8 aligned bytes, not {size} at {gva:#x}")
        watchpoint = Watchpoint(gva, size, on_read)
        self._watchpoints.add(watchpoint)
        self._apply_debug(undo=lambda: self._watchpoints.discard(watchpoint))

    def remove_watchpoint(self, gva: int) -> None:
        """Take the watchpoints at `gva` away."""
        self._watchpoints = {point for point in self._watchpoints if point.gva != gva}
        self._apply_debug()

    @property
    def debug_control(self) -> DebugControl:
        """What every vCPU stops for."""
        return DebugControl(
            breakpoints_gva=tuple(sorted(self._breakpoints)),
            watchpoints=tuple(sorted(self._watchpoints, key=lambda point: point.gva)),
        )

    def _apply_debug(self, undo: Any = None) -> None:
        try:
            for cpu in self.cpus:
                cpu.vcpu.set_debug(self.debug_control)
        except BaseException:
            if undo is not None:
                undo()
            raise

    def _step_off_breakpoints(self) -> RunResult | None:
        """Execute the instruction under a breakpoint at which a vCPU stands; a result if that already ended the run."""
        if not self._breakpoints:
            return None
        for cpu in self.cpus:
            if cpu.halted or cpu.pc_gva not in self._breakpoints:
                continue
            result = self.step(cpu)
            if result.end is End.HALT and (cpu.keeper is not None or cpu.vcpu.sleeps):
                from belljar.x86.mp_state import MpState  # few breakpoints are on a HLT

                cpu.mp_state = MpState.HALTED  # what ends that, the chips know
                continue
            if result.end is not End.DEBUG:
                return result
            if isinstance(result.exit, Debug) and cpu.pc_gva in self._breakpoints:
                return result
        return None

    def peek_code(self, cpu: Cpu, limit: int = 15) -> bytes:
        """Up to `limit` bytes at the vCPU's next instruction, as the guest would fetch them; fewer where memory ends."""
        code = b""
        gva = cpu.pc_gva
        while len(code) < limit:
            found = cpu.translate(gva + len(code))
            size = min(limit - len(code), 0x1000 - found.gpa % 0x1000)
            if not found.valid:
                break
            try:
                code += self.memory.read(found.gpa, size)
            except GuestMemoryError:
                break
        return code

    # -- giving back ---------------------------------------------------------------------------------------------

    @property
    def real_time(self) -> bool:
        """Whether the guest's time is the host's; else it is a function of the instructions that were executed."""
        return self.engine.threaded or self.config.clock == "host"

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this machine is closed")

    def close(self) -> None:
        """Give back vCPUs, VM, memory and the engine if the machine opened it. Harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._release()

    def _release(self) -> None:
        engine = self.engine if self._owns_engine and hasattr(self, "engine") else None
        parts = (self.input_thread, self.timers, self.own_interrupts, self.vm, self.memory, engine)
        _close_all([part for part in parts if part is not None])

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def _close_all(parts: Sequence[Any]) -> None:
    """In this order; also what comes behind one that is interrupted."""
    for number, part in enumerate(parts, 1):
        try:
            part.close()
        except BaseException:
            _close_all(parts[number:])
            raise
