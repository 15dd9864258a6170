"""What a machine needs of an engine, in the machine's own words.

`belljar.kvm` and `belljar.soft` satisfy these protocols. Nothing above this floor may ask which one it has, except
through `Engine.name` and the attributes below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from belljar.engine_data import FOREVER

if TYPE_CHECKING:
    from belljar.engine_data import DebugControl, EngineTranslation, RunPage
    from belljar.exits import Exit, ExitReason
    from belljar.platform import HypervConnections, Platform, TimeStampCounter
    from belljar.routes import MessageRoute, PinRoute, PinTarget
    from belljar.watching import ChipRegisters, ExitWatch
    from belljar.x86.machine_check import Consequence
    from belljar.x86.mp_state import MpState
    from belljar.x86.state import CpuState, Registers, SpecialRegisters


class Bus(Protocol):
    """Where a vCPU's port and memory-mapped accesses go. Called on the vCPU's own thread; must never raise for guest input.

    Values are unsigned, `size` is in bytes (ports 1, 2, 4; memory 1, 2, 4, 8). The block calls carry string instructions
    and batched writes: `data` is a whole number of items of `size` bytes.
    """

    def port_read(self, port: int, size: int) -> int:
        """The value that IN gives the guest; all ones where no device answers."""

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUT."""

    def port_read_block(self, port: int, size: int, count: int) -> bytes:
        """REP INS: `count * size` bytes."""

    def port_write_block(self, port: int, size: int, data: bytes) -> None:
        """REP OUTS, or several single writes that the engine collected, in order."""

    def mmio_read(self, gpa: int, size: int) -> int:
        """A load from unbacked guest-physical memory; all ones where no device answers."""

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """A store to unbacked (or read-only) guest-physical memory."""


class MsrDevice(Protocol):
    """A device that a vCPU reaches by RDMSR and WRMSR, on its own thread; None and False refuse with #GP(0)."""

    served: frozenset[int]
    """Its MSRs."""

    def read_msr(self, msr: int) -> int | None:
        """RDMSR."""

    def write_msr(self, msr: int, value: int) -> bool:
        """WRMSR of 64 bits."""


class MemoryRegion(Protocol):
    """A piece of guest-physical memory, as `belljar.memory` makes it. Sizes and addresses are multiples of 4096."""

    @property
    def slot(self) -> int:
        """The memory slot's number, unique in its VM."""

    @property
    def gpa(self) -> int:
        """The first guest-physical address."""

    @property
    def size(self) -> int:
        """The size in bytes."""

    @property
    def hva(self) -> int:
        """The host-virtual address of the first byte."""

    @property
    def readonly(self) -> bool:
        """Whether guest writes leave with an MMIO exit instead."""

    @property
    def log_dirty(self) -> bool:
        """Whether the engine keeps a log of pages written."""


class Vcpu(Protocol):
    """One virtual CPU."""

    @property
    def tsc(self) -> TimeStampCounter:
        """Its time-stamp counter; raises FeatureUnsupported where the engine keeps it to itself."""

    @property
    def lapic_features(self) -> int:
        """What CPUID offers of a local APIC that is not the engine's: LAPIC_X2APIC, LAPIC_TSC_DEADLINE (`engine_data`)."""

    @property
    def index(self) -> int:
        """Its number in the VM, from 0."""

    @property
    def run_page(self) -> RunPage:
        """Where exits are reported."""

    def get_registers(self) -> Registers:
        """The general registers, RIP and RFLAGS."""

    def set_registers(self, registers: Registers) -> None:
        """Set all of them. Raises ConfigurationError if a value does not fit 64 bits."""

    def get_special(self) -> SpecialRegisters:
        """Segments, tables, control registers, EFER."""

    def set_special(self, special: SpecialRegisters) -> None:
        """Set all of them as given; the engine may refuse (EngineError)."""

    def set_state(self, state: CpuState, mode: str) -> None:
        """Start state for `mode`: set, read back, and raise ModeUnsupported if the engine refuses or forgets a part of it."""

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """MSR values by index; those that the engine does not have are left out."""

    def set_msrs(self, values: Mapping[int, int]) -> None:
        """Set MSRs; raises FeatureUnsupported naming the first that the engine refuses."""

    def translate(self, gva: int) -> EngineTranslation:
        """The engine's own translation of a linear address with the current state."""

    def set_debug(self, control: DebugControl) -> None:
        """What to stop for from the next run on; raises FeatureUnsupported for what this engine cannot do."""

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
        """Run until something ends the run; accesses to ports and memory go to `bus` on the way.

        Returns the reason: never IO or MMIO unless `single_exit`, which returns after each exit, already served by the
        bus. `deadline_ns` is a time of `time.monotonic_ns()`; past it, or after `kick()`, the answer is INTERRUPTED.
        `instructions` ends the run after exactly so many with INSTRUCTION_LIMIT, and so does `until_ns` when `clock_ns` is
        that, or behind the exit whose cost takes it there (both FeatureUnsupported on an engine that cannot count).
        `observer` is called with every exit, after it was served, on this thread; not with those that wait for `answer`,
        which are the answerer's to show. Exceptions from `bus` and `observer` propagate, as does KeyboardInterrupt.
        """

    def last_exit(self) -> Exit:
        """The exit that ended the last `run`, whole."""

    def answer(self, value: int | None) -> None:
        """Finish the RDMSR, WRMSR or hypercall that the last `run` returned with; the next `run` goes on behind it.

        `value` (64 bits, signed or unsigned) is what RDMSR reads or the hypercall returns; for WRMSR any number accepts it.
        None refuses: #GP(0) for an MSR, -KVM_ENOSYS (-1000) for a hypercall. Without an answer, the next `run` or change
        of state refuses. Raises EngineError if nothing waits, ConfigurationError for a value that does not fit.
        """

    @property
    def sleeps(self) -> bool:
        """Whether HLT waits inside `run` for the engine's own interrupt chips (`Vm.use_chips`).

        Then HLT is returned only when the vCPU seems to sleep for good, once each time it fell asleep; whether it does,
        `asleep` says. It goes on sleeping in the next `run`, where another vCPU may wake it.
        """

    def asleep(self) -> bool:
        """Whether nothing but another vCPU or the host will ever wake this one. Only where `sleeps`; not during `run`.

        It waits for INIT or a start-up IPI, or has halted with RFLAGS.IF=0, and neither NMI nor SMI waits or can come
        from a chip.
        """

    def leave_halt(self) -> None:
        """Have a halted vCPU go on behind its HLT with the next `run`. Harmless where it is not halted."""

    @property
    def mp_state(self) -> MpState:
        """What it waits for, where the local APICs are the engine's (api.rst 4.38); else always RUNNABLE. Not during a run."""

    @mp_state.setter
    def mp_state(self, value: MpState) -> None:
        """Raises FeatureUnsupported for any but RUNNABLE where the local APICs are not the engine's."""

    def inject_interrupt(self, vector: int) -> bool:
        """Deliver an external interrupt with the next `run`, once; only when `ready_for_interrupt`, and not during a run.

        False, and nothing done, if an earlier one has not been delivered yet. For machines whose interrupt chips are their
        own, as are the next four.
        """

    def ready_for_interrupt(self) -> bool:
        """Whether the guest, as the last `run` left it, takes an interrupt: IF, no shadow, and none waiting for delivery."""

    def request_interrupt_window(self, wanted: bool) -> None:
        """Whether `run` is to return IRQ_WINDOW_OPEN as soon as the guest is ready for an interrupt."""

    @property
    def task_priority(self) -> int:
        """CR8 as the guest last left it; setting it sets what the guest reads. `run` returns when the guest changes it."""

    @task_priority.setter
    def task_priority(self, value: int) -> None:
        """What the guest reads in CR8 from now on."""

    def wrote_task_priority(self) -> bool:
        """Whether the guest has written CR8 since this was asked last; False where the engine does not tell writes of the same
        value."""

    @property
    def apic_base(self) -> int:
        """IA32_APIC_BASE as the guest last left it."""

    def inject_nmi(self) -> None:
        """A non-maskable interrupt, taken at the next chance; with the engine's own chips also while it runs.

        Raises FeatureUnsupported where the engine cannot, EngineError while it runs without such chips.
        """

    @property
    def nmis_blocked(self) -> bool:
        """Whether an NMI is being served: others wait for its IRET (SDM 3A 6.7.1). Between two runs."""

    clock_ns: int
    """What the processor's own time-stamp counter shows, which a guest's follows by offset and scaling: where the engine
    counts instructions, a nanosecond for each of them, and `exits_ns` for what it served. Set, it goes on from there; only
    between runs. On other engines nothing can be set: FeatureUnsupported."""

    def serve_msrs(self, device: MsrDevice) -> None:
        """Have accesses to MSRs of `device` that would end a run go there instead, unless somebody wants to see exits.

        Raises FeatureUnsupported where the engine cannot.
        """

    def follow_host_clock(self, offset_ns: int | None) -> None:
        """From now on `clock_ns` is time.monotonic_ns() and so much; None: it goes on from what it shows with instructions.

        Raises FeatureUnsupported as above.
        """

    def inject_exception(self, vector: int, error_code: int | None = None, payload: int | None = None) -> None:
        """An exception with the next entry, before the instruction at RIP; not during a run.

        `error_code` exactly where the exception has one; real mode drops it. `payload` is what comes with it and changes
        when it is delivered, not before: the address in CR2 for #PF, bits set in DR6 for #DB (KVM_CAP_EXCEPTION_PAYLOAD).
        Raises ConfigurationError for what is no exception, EngineError while another one waits for its delivery.
        """

    def inject_machine_check(
        self, bank: int, status: int, mcg_status: int = 0, address: int = 0, misc: int = 0
    ) -> Consequence:
        """An error of the hardware: `status`, `address` and `misc` for the bank's registers, `mcg_status` for the processor's.

        `address` (IA32_MCi_ADDR) is told to the guest where `status` has ADDRV. Its kind is not belljar's to say: the address
        mode in `misc` (IA32_MCi_MISC, bits 6 to 8) makes it a segment offset, a linear address, a physical one, as the guest
        has them, or a memory address; without MISCV it is what the processor's model says (SDM 3B 16.3.2.3, 16.3.2.4).

        What becomes of it is the guest's to say by IA32_MCG_CTL, IA32_MCi_CTL, IA32_MCi_CTL2 and CR4.MCE (SDM 3B 16.3, 16.5):
        it is recorded, raises #MC before the next instruction, or shuts the processor down. CMCI is raised by the engine where
        the local APICs are the engine's. Not during a run. Raises ConfigurationError for a bank that is not there or a status
        without bit 63, FeatureUnsupported where the processor has no machine checks.
        """

    def gave_turn(self) -> int:
        """Whether the last `run` came back with INTERRUPTED because this vCPU waits for another; said once.

        0: no. GAVE_TURN: it seems to. WAITS: nothing that it does will end that. WAITS_STILL: nor has it done anything since.
        """

    def wait_out(self, wanted: bool) -> None:
        """Whether to use turns up where `gave_turn` would say that this vCPU waits: there is nobody to wait for."""

    def instructions_retired(self) -> int:
        """How many instructions this vCPU has executed since it was made; FeatureUnsupported on an engine that cannot count."""

    def exits_ns(self) -> int:
        """How much of `clock_ns` was charged for exits since this vCPU was made; FeatureUnsupported as above."""

    def kick(self) -> None:
        """Make the current run, or else the next one, return INTERRUPTED. From any thread, any number of times."""

    def exit_counts(self) -> dict[ExitReason, int]:
        """How often this vCPU came back, by reason, since it was made; zero counts left out."""

    def watch_exits(self, watch: ExitWatch, *, msrs: bool) -> bool:
        """From now on, tell `watch` of every VM exit and CPUID; with `msrs` of every MSR access too. Not during a run.

        False where the engine does not see them: its exits are then those that end runs, and those that observers get.
        """

    def last_exit_name(self) -> str:
        """What the engine itself calls the last exit: KVM_EXIT_* (api.rst section 5); empty if it has no name of its own."""

    def interrupt_statistics(self) -> dict[str, int]:
        """What the engine itself has counted of this vCPU's interrupts, by its own names; empty if it counts nothing."""

    def close(self) -> None:
        """Give everything back. Harmless when repeated."""


class Vm(Protocol):
    """A virtual machine: memory and vCPUs."""

    def map(self, region: MemoryRegion) -> None:
        """Make a region guest-physical memory. From any thread; vCPUs that run see it before their next instruction."""

    def unmap(self, region: MemoryRegion) -> None:
        """Take it away again, as `map`: when this returns, no vCPU touches it any more."""

    def create_vcpu(self, index: int) -> Vcpu:
        """A vCPU in the state after reset (SDM 3A 9.1.1)."""

    def retire_vcpu(self, index: int) -> None:
        """Take a vCPU out of service: messages no longer reach it, and it is not run any more. Not during a run of it.

        `create_vcpu` with the same index gives one as new, which waits for INIT where the local APICs are the engine's.
        """

    def use_chips(self, which: str) -> None:
        """Say whose the interrupt chips are, before any vCPU is made. Not called: there are none.

        `kernel`: 8259 pair, IOAPIC, 8254 and a local APIC for each vCPU, of which all but the first then wait for INIT and
        start-up IPI. `split`: only the local APICs, the rest is the machine's: it sends messages, tells by `set_routes`
        (messages only) what the pins of its IOAPIC send, and hears of ends of interrupt by IOAPIC_EOI exits. `user`: all
        are the machine's own, which injects what they say. Raises FeatureUnsupported where the engine has none.
        """

    def set_line(self, gsi: int, level: bool) -> None:
        """Drive a line of the engine's chips. From any thread."""

    def signal_message(self, gpa: int, data: int) -> int:
        """Send a message-signalled interrupt; above 0 if a local APIC took it. From any thread."""

    def connect_eventfd(self, eventfd: int, gsi: int) -> None:
        """One edge on a line whenever a host eventfd is signalled (KVM_IRQFD, api.rst 4.75)."""

    def set_routes(self, routes: Sequence[PinRoute | MessageRoute]) -> None:
        """Replace the table of where lines lead. Raises ConfigurationError for what cannot be."""

    def pin_target(self, chip: str, pin: int) -> PinTarget:
        """What a pin of the engine's chip (`pic`, `ioapic`) is programmed to, read back; not while a vCPU runs."""

    def message_cpus(self, gpa: int, data: int) -> tuple[int, ...]:
        """Which vCPUs a message would reach now, with local APICs of the engine's; not while one runs."""

    def chip_registers(self) -> ChipRegisters:
        """The registers of the chips that are the engine's; not while a vCPU runs."""

    def pic_cpus(self) -> tuple[int, ...]:
        """Which vCPUs' local APICs, if the engine's, let an 8259's interrupts through; not while one runs."""

    def raise_lint0(self, index: int) -> None:
        """The output of an 8259 that is not the engine's went up: what a vCPU's local APIC, which is, makes of it, unless that
        is ExtINT. While that vCPU does not run."""

    def use_platform(self, platform: Platform) -> None:
        """Tell an engine that serves its guests' paravirtual interfaces itself what is around it; before the first run.

        An engine whose kernel serves them has no use for it.
        """

    def use_hyperv(self) -> None:
        """Offer guests Hyper-V's interface (TLFS) beside KVM's; before the vCPUs are made, after `use_chips`.

        Raises FeatureUnsupported where the engine cannot, on this host or without chips.
        """

    def hyperv_connections(self) -> HypervConnections:
        """Make and end connections of Hyper-V's interface. Raises FeatureUnsupported where the engine has none."""

    def set_tsc_khz(self, khz: int) -> None:
        """The frequency of the time-stamp counters of vCPUs made from now on (on KVM api.rst 4.55).

        Raises ConfigurationError for one that no guest gets, FeatureUnsupported for one that this host cannot make.
        """

    def connect_timer(self, connected: bool) -> None:
        """Whether the 8254 among the engine's chips drives its line, which an HPET may take over."""

    def flush_page(self, gpa: int) -> None:
        """Forget what the engine has of a page's translation: the next access to it asks again."""

    def exit_on_msrs(self, only: range | None = None) -> None:
        """Have RDMSR and WRMSR that the engine would refuse return from `run` instead; after the vCPUs are made.

        `only` says for which numbers the caller has answers, where the engine can keep the others to itself. Which those are
        is the engine's: MSRs that it does not know; on KVM also filtered ones and values that it does not take
        (KVM_CAP_X86_USER_SPACE_MSR). Raises FeatureUnsupported where the engine cannot.
        """

    def watch_msrs(self, watch: ExitWatch) -> str:
        """Tell `watch` of accesses to MSRs where `Vcpu.watch_exits` cannot; what it is not told of, in words.

        They end runs neither before nor after. Raises FeatureUnsupported where the engine cannot tell of any.
        """

    def exit_on_hypercalls(self) -> None:
        """Have hypercalls made at CPL0 return from `run`: all that the engine can hand over.

        KVM keeps most for itself and hands over KVM_HC_MAP_GPA_RANGE (KVM_CAP_EXIT_HYPERCALL); soft hands over all.
        Raises FeatureUnsupported where the engine can hand over none.
        """

    def batch_writes(self, port: int) -> None:
        """Allow the engine to collect single-byte writes to `port` and hand them to the bus in blocks, in order.

        A hint: an engine without such a thing does nothing. Batched writes arrive before the next exit is served, before
        `run` returns, and at the latest a few hundredths of a second after the guest made them.
        """

    def batched_writes(self) -> int:
        """How many writes arrived without an exit of their own."""

    def close(self) -> None:
        """Give everything back, vCPUs first. Harmless when repeated."""


class Engine(Protocol):
    """A way to run machines."""

    @property
    def name(self) -> str:
        """`kvm` or `soft`."""

    @property
    def threaded(self) -> bool:
        """True: each vCPU wants a host thread. False: one thread runs all vCPUs in turn, a budget of instructions each."""

    @property
    def counts_instructions(self) -> bool:
        """Whether runs can be limited to a number of instructions."""

    @property
    def cpu_features(self) -> tuple[str, ...]:
        """The CPU features that its guests have and that can be taken away, by name, sorted."""

    @property
    def chips(self) -> tuple[str, ...]:
        """What `Vm.use_chips` takes here, the best first."""

    def create_vm(self) -> Vm:
        """A VM without memory and vCPUs."""

    def close(self) -> None:
        """Give everything back. Harmless when repeated."""
