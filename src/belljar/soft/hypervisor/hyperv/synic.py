"""The synthetic interrupt controller: sixteen sources, each with a message slot and event flags (TLFS 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from belljar.soft.hypervisor.hyperv.part import PAGE, PAGE_MASK, HypervPart
from belljar.soft.hypervisor.paravirt import memory
from belljar.soft.hypervisor.paravirt.part import ENABLED, Register, refuse
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

SINTS = 16
SYNIC_VERSION = 1
FIRST_VECTOR = 16
"""Lower vectors are refused."""

SINT_VECTOR, SINT_MASKED, SINT_AUTO_EOI = 0xFF, 1 << 16, 1 << 17

SLOT = 256
"""Bytes of a message slot, and of a source's event flags."""

FLAGS_PER_SINT = SLOT * 8

HEADER = Struct("<IBB2xQ")
"""HV_MESSAGE_HEADER: type, payload size, flags, sender."""

TYPE_BYTES, FLAGS_OFFSET = 4, 5
PENDING = 1
"""Flag of a message: another waits for the slot."""

NO_MESSAGE = 0
MAX_PAYLOAD = 240


class Message(NamedTuple):
    """One message; `type` is not 0, `payload` at most 240 bytes."""

    type: int
    payload: bytes
    sender: int = 0

    def pack(self) -> bytes:
        """As it lies in a slot, without what the payload leaves free."""
        return HEADER.pack(self.type, len(self.payload), 0, self.sender) + self.payload


def decode_message(slot: bytes) -> dict[str, Any]:
    """A message slot by the names of its fields; empty if there is no message."""
    kind, size, flags, sender = HEADER.unpack_from(slot)
    if kind == NO_MESSAGE:
        return {}
    payload = slot[HEADER.size : HEADER.size + min(size, MAX_PAYLOAD)]
    return {"type": kind, "flags": flags, "sender": sender, "payload": payload}


class SynIc(HypervPart):
    """One vCPU's: HV_X64_MSR_SCONTROL, SVERSION, SIEFP, SIMP, EOM, SINT0 to SINT15.

    `freed` are called with the number of a source whose slot may have become free, by EOM or an end of interrupt.
    """

    name = "hyperv_synic"

    def __init__(self, vcpu: SoftVcpu) -> None:
        super().__init__(vcpu)
        self.control = 0
        self.event_page = 0
        self.message_page = 0
        self.sints = [SINT_MASKED] * SINTS
        self._auto_eoi: frozenset[int] = frozenset()
        self.freed: list[Callable[[int], None]] = []

    def msrs(self) -> Mapping[int, Register]:
        """21."""
        found: dict[int, Register] = {
            Msr.HV_SCONTROL: Register(lambda: self.control, self._write_control),
            Msr.HV_SVERSION: Register(lambda: SYNIC_VERSION, refuse),
            Msr.HV_SIEFP: Register(lambda: self.event_page, self._write_event_page),
            Msr.HV_SIMP: Register(lambda: self.message_page, self._write_message_page),
            Msr.HV_EOM: Register(lambda: 0, self._end_of_message),
        }
        for sint in range(SINTS):
            found[Msr.HV_SINT0 + sint] = self._sint_register(sint)
        return found

    def _sint_register(self, sint: int) -> Register:
        return Register(lambda: self.sints[sint], lambda value: self._write_sint(sint, value))

    def _write_control(self, value: int) -> bool:
        self.control = value
        return True

    def _page_written(self, before: int, value: int) -> bool:
        """A page that is switched on, or moved, begins with zeros; False if it is not RAM."""
        if not value & ENABLED:
            return True
        if before & ENABLED and before & PAGE_MASK == value & PAGE_MASK:
            return True
        return memory.write(self.vcpu.mmu, value & PAGE_MASK, bytes(PAGE))

    def _write_event_page(self, value: int) -> bool:
        if not self._page_written(self.event_page, value):
            return False
        self.event_page = value
        return True

    def _write_message_page(self, value: int) -> bool:
        if not self._page_written(self.message_page, value):
            return False
        self.message_page = value
        return True

    def _write_sint(self, sint: int, value: int) -> bool:
        if value & SINT_VECTOR < FIRST_VECTOR and not value & SINT_MASKED:
            return False
        self.sints[sint] = value
        self._auto_eoi = frozenset(
            each & SINT_VECTOR for each in self.sints if each & SINT_AUTO_EOI and not each & SINT_MASKED
        )
        self.platform.local_apic(self.vcpu.index).ended = self._ended
        if self._auto_eoi:
            self.vcpu.interfaces.watch(self)
        return True

    def _end_of_message(self, value: int) -> bool:
        for sint in range(SINTS):
            self._free(sint)
        return True

    def _free(self, sint: int) -> None:
        for each in self.freed:
            each(sint)

    def _ended(self, vector: int) -> None:
        """The local APIC's end of interrupt: the slots of the sources with that vector may be free."""
        for sint, value in enumerate(self.sints):
            if value & SINT_VECTOR == vector and not value & SINT_MASKED:
                self._free(sint)

    def taken(self, vector: int) -> None:
        """A source may be set up so that its interrupts end when they begin."""
        if vector in self._auto_eoi:
            self.platform.local_apic(self.vcpu.index).end_of_interrupt()

    def signal(self, sint: int) -> bool:
        """A source's interrupt; False if it is masked, or the local APIC does not take it."""
        value = self.sints[sint]
        if value & SINT_MASKED:
            return False
        return self.platform.local_apic(self.vcpu.index).raise_interrupt(value & SINT_VECTOR, f"sint {sint}")

    def _place(self, page: int, sint: int) -> int | None:
        if not (page & ENABLED and self.control & ENABLED):
            return None
        return (page & PAGE_MASK) + SLOT * sint

    def vector_of_message(self, sint: int) -> int | None:
        """With which vector a message would interrupt now; None if none would: no page, slot taken, source masked."""
        gpa = self._place(self.message_page, sint)
        if gpa is None or self.sints[sint] & SINT_MASKED or memory.read_u32(self.vcpu.mmu, gpa) != NO_MESSAGE:
            return None
        return self.sints[sint] & SINT_VECTOR

    def deliver(self, sint: int, message: Message, *, mark: bool = True) -> bool | None:
        """Put a message into its source's slot and interrupt; None if the guest has no slots or no interrupt for it.

        False if the slot is taken: with `mark` the message there is told that another waits.
        """
        gpa = self._place(self.message_page, sint)
        kind = None if gpa is None else memory.read_u32(self.vcpu.mmu, gpa)
        if gpa is None or kind is None:
            return None
        if kind != NO_MESSAGE:
            if mark:
                flags = memory.read(self.vcpu.mmu, gpa + FLAGS_OFFSET, 1) or b"\0"
                memory.write(self.vcpu.mmu, gpa + FLAGS_OFFSET, bytes([flags[0] | PENDING]))
            return False
        data = message.pack()
        memory.write(self.vcpu.mmu, gpa + TYPE_BYTES, data[TYPE_BYTES:])
        memory.write(self.vcpu.mmu, gpa, data[:TYPE_BYTES])
        return True if self.signal(sint) else None

    def set_flag(self, sint: int, flag: int) -> bool | None:
        """Set an event flag and interrupt; False if it was set already, None if the guest has no flags."""
        base = self._place(self.event_page, sint)
        if base is None:
            return None
        gpa = base + flag // 8
        before = memory.read(self.vcpu.mmu, gpa, 1)
        if before is None:
            return None
        if before[0] >> flag % 8 & 1:
            return False
        memory.write(self.vcpu.mmu, gpa, bytes([before[0] | 1 << flag % 8]))
        self.signal(sint)
        return True

    def reset(self) -> None:
        """As after power-up."""
        self.control = self.event_page = self.message_page = 0
        self.sints = [SINT_MASKED] * SINTS
        self._auto_eoi = frozenset()

    def decode(self) -> dict[str, Any]:
        """The sources that are open, and the messages in their slots."""
        if not self.control & ENABLED:
            return {}
        sources = {}
        for sint, value in enumerate(self.sints):
            if value & SINT_MASKED:
                continue
            gpa = self._place(self.message_page, sint)
            slot = None if gpa is None else memory.read(self.vcpu.mmu, gpa, SLOT)
            sources[sint] = {
                "vector": value & SINT_VECTOR,
                "auto_eoi": bool(value & SINT_AUTO_EOI),
                "message": decode_message(slot) if slot else {},
            }
        return {"message_page": self.message_page, "event_page": self.event_page, "sints": sources}

    def state(self) -> dict[str, Any]:
        """The MSRs."""
        return {"control": self.control, "pages": [self.event_page, self.message_page], "sints": list(self.sints)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.control = state["control"]
        self.event_page, self.message_page = state["pages"]
        for sint, value in enumerate(state["sints"]):
            self._write_sint(sint, value)
