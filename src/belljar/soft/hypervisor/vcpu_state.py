"""The part of a vCPU that is its processor's state: what is in the registers, the VMCS and the clock between two runs."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, NoReturn, cast

from belljar.engine_data import EngineTranslation, RunPage
from belljar.errors import ClosedError, EngineError
from belljar.soft.hypervisor import controls, state
from belljar.soft.hypervisor.charges import EXIT_NS
from belljar.soft.hypervisor.events import forget
from belljar.soft.hypervisor.mmu.mmu import Mmu
from belljar.soft.hypervisor.start import check_pages, start_special
from belljar.soft.hypervisor.tsc import GuestTsc
from belljar.soft.hypervisor.vcpu_events import VcpuEvents
from belljar.soft.processor._core import Processor, VmcsRegion
from belljar.soft.processor.fields import Field
from belljar.x86.state import CpuState, Registers, SpecialRegisters
from belljar.x86.walker import walk

if TYPE_CHECKING:
    from belljar.soft.hypervisor.paravirt.interfaces import Interfaces


class _Closed:
    """Stands where a closed vCPU's processor was: looking at a flag at each run would cost more than this."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __getattr__(self, name: str) -> NoReturn:
        raise ClosedError(f"vCPU {self._index} is closed")


class VcpuState(VcpuEvents):
    """What `SoftVcpu` has of it."""

    def __init__(self, index: int, mmu: Mmu, msr_bitmap_hpa: int) -> None:
        self.index = index
        self.mmu = mmu
        self.memory = mmu.memory
        self.processor = Processor(mmu.memory)
        self.processor.exit_ns = EXIT_NS
        self.runner = 0
        """Which thread is in `run`, beyond its shortest way; 0: none."""
        self.nmis = 0
        self.put_off: int | None = None
        self._machine_checks = None
        self._waiting = None
        self._closed = False
        self.processor.vmptrld(VmcsRegion())
        controls.set_up(self.processor, mmu.tables.eptp, msr_bitmap_hpa)
        self.tsc: GuestTsc = GuestTsc(self.processor)
        self.interfaces_made: Interfaces | None = None
        self.set_special(SpecialRegisters())
        self.set_registers(Registers(rip=0xFFF0, rdx=0x600))

    @property
    def run_page(self) -> RunPage:
        """The processor's own structure: there is no page shared with a kernel."""
        processor = self._open()
        return RunPage(processor.state_hva, processor.debug_state_size, "the soft processor's state (struct Cpu)")

    def get_registers(self) -> Registers:
        """The general registers, RIP and RFLAGS."""
        return state.get_registers(self._settled())

    def set_registers(self, registers: Registers) -> None:
        """Set all of them. Raises ConfigurationError if a value does not fit 64 bits."""
        self._refuse_waiting()
        state.set_registers(self._settled(), registers)

    def get_special(self) -> SpecialRegisters:
        """Segments, tables, control registers, EFER."""
        return state.get_special(self._settled())

    def set_special(self, special: SpecialRegisters) -> None:
        """Set all of them as given. Raises EngineError for what no processor could be in."""
        processor = self._settled()
        self._refuse_waiting()
        state.set_special(processor, special)
        if state.uses_pdptes(special):
            state.set_pdptes(processor, self.mmu.read(special.cr3 & 0xFFFFFFE0, 32))

    def set_state(self, state: CpuState, mode: str) -> None:
        """Start state for `mode`; this engine has every mode, but for features that are switched off: ModeUnsupported then."""
        special = start_special(self._open(), state.special, mode)
        self.set_special(special)
        self.set_registers(state.registers)
        forget(self)
        check_pages(self.processor, special, self.pc_gva(), mode, self.mmu.read)
        if self.interfaces_made is not None:
            self.interfaces_made.reset()

    def translate(self, gva: int) -> EngineTranslation:
        """A walk of the guest's page tables as they are in memory now."""
        found = walk(self.get_special(), gva, self.mmu.read, physical_bits=controls.PHYSICAL_BITS)
        if found.gpa is None or found.rights is None:
            return EngineTranslation(gva, 0, False, False, False)
        return EngineTranslation(gva, found.gpa, True, found.rights.write, found.rights.user)

    def pc_gva(self) -> int:
        """The linear address of the next instruction."""
        processor = self.processor
        rip = processor.vmread(Field.GUEST_RIP)
        if processor.vmread(Field.GUEST_EFER) & controls.EFER_LMA and (
            processor.vmread(Field.GUEST_CS_RIGHTS) & controls.RIGHTS_L
        ):
            return rip
        return rip + processor.vmread(Field.GUEST_CS_BASE) & 0xFFFFFFFF

    @property
    def clock_ns(self) -> int:
        """The processor's own time-stamp counter, which a guest's follows: a nanosecond an instruction, and what exits cost."""
        return self.processor.tsc

    @clock_ns.setter
    def clock_ns(self, value: int) -> None:
        """It goes on from there."""
        self.processor.tsc = value

    def follow_host_clock(self, offset_ns: int | None) -> None:
        """Whether `clock_ns` goes on with the host's clock (`belljar.engine.Vcpu.follow_host_clock`)."""
        if offset_ns is None:
            self.processor.count_instructions()
        else:
            self.processor.follow_host_clock(offset_ns)

    def instructions_retired(self) -> int:
        """How many instructions this vCPU has executed since it was made."""
        return self.processor.retired

    def exits_ns(self) -> int:
        """How much of `clock_ns` was charged for exits since this vCPU was made (`belljar.soft.hypervisor.charges`)."""
        return self.processor.exits_ns

    def _settled(self) -> Processor:
        """For looking at state, or changing it: nobody else may be at it."""
        if self.runner and self.runner != get_ident():
            raise EngineError(
                f"vCPU {self.index} is running on another thread", hint="stop it before looking at its state"
            )
        return self._open()

    def _open(self) -> Processor:
        if self._closed:
            raise ClosedError(f"vCPU {self.index} is closed")
        return self.processor

    def close(self) -> None:
        """Give everything back. Harmless when repeated."""
        if not self._closed:
            self._closed = True
            self.processor.vmclear()
            # The processor owns more than Python knows of: it must not wait for the garbage collector.
            self.processor = cast(Processor, _Closed(self.index))
            self.tsc.detach(self.processor)
