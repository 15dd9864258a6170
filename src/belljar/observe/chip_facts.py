"""A machine's interrupt chips at one moment, decoded: where lines lead, and what the chips hold, whoever's they are."""

from __future__ import annotations

from collections.abc import Callable

from belljar.devices.apic_message import delivery_name
from belljar.devices.i8259 import Pic
from belljar.devices.ioapic import (
    ACTIVE_LOW,
    DELIVERY_MASK,
    DELIVERY_PENDING,
    DELIVERY_SHIFT,
    DESTINATION_SHIFT,
    LEVEL,
    LOGICAL,
    MASKED,
    REMOTE_IRR,
    VECTOR,
)
from belljar.devices.lapic import Lapic
from belljar.devices.lapic_timer import MODE_NAMES, TSC_DEADLINE, divisor
from belljar.devices.lines import PIT_GSI, LineRoute
from belljar.machine import Cpu, Machine
from belljar.machine.own_interrupts import OwnInterrupts
from belljar.observe.explain_model import (
    ChipFacts,
    LapicFacts,
    LapicTimerFacts,
    LineFacts,
    LvtFacts,
    PicFacts,
    RedirectionFacts,
)
from belljar.watching import ChipRegisters, PicRegisters
from belljar.x86.local_apic import (
    BASE_BSP,
    BASE_ENABLED,
    BASE_X2APIC,
    LVT_MASKED,
    LVT_NAMES,
    LVT_TIMER_MODE_SHIFT,
    MODE_MASK,
    MODE_SHIFT,
    SVR_ENABLED,
    VECTOR_MASK,
    XAPIC_ID_SHIFT,
    Reg,
)
from belljar.x86.msr import Msr

REGISTER_SHIFT = 4
PAGE_SIZE = 1024

KERNELS_PIT = "the kernel's pit"

NEEDS_MAX_LVT = {Reg.LVT_PERF: 4, Reg.LVT_THERMAL: 5, Reg.LVT_CMCI: 6}
"""From which number of its last entry on a local vector table has them (SDM 3A 11.4.8; KVM's APIC_LVT_NUM)."""

FIXED_ONLY = (Reg.LVT_TIMER, Reg.LVT_ERROR)
"""Entries without a delivery mode: always fixed (SDM 3A figure 11-8)."""


def chip_facts(machine: Machine) -> ChipFacts | None:
    """The chips as they are programmed now; None without any. Not during a run."""
    interrupts = machine.interrupts
    if interrupts is None:
        return None
    registers = chip_registers(machine)
    return ChipFacts(
        lines=tuple(_line(row, isinstance(interrupts, OwnInterrupts)) for row in interrupts.explain()),
        lapics=tuple(_lapic(cpu, registers.lapics[cpu.index]) for cpu in machine.cpus if cpu.index in registers.lapics),
        redirection=tuple(_redirection(pin, entry) for pin, entry in enumerate(registers.redirection)),
        pics=tuple(_pic(name, pic) for name, pic in zip(("master", "slave"), registers.pics, strict=False)),
    )


def chip_registers(machine: Machine) -> ChipRegisters:
    """The registers of all chips, of the machine's own and of the engine's."""
    interrupts = machine.interrupts
    assert machine.vm is not None
    if not isinstance(interrupts, OwnInterrupts):
        return machine.vm.chip_registers()
    with interrupts.lock:
        chips = interrupts.chips
        lapics = {index: lapic_page(lapic) for index, lapic in chips.lapics.items()}
        redirection, ioapic_id = tuple(chips.ioapic.redirection), chips.ioapic.id
        pics = tuple(_pic_registers(pic) for pic in chips.pic.chips)
    if not lapics:
        lapics = dict(machine.vm.chip_registers().lapics)
    return ChipRegisters(lapics, redirection, ioapic_id, pics)


def lapic_page(lapic: Lapic) -> bytes:
    """A local APIC's registers as KVM_GET_LAPIC would give them: the id where an xAPIC has it (api.rst 4.57)."""
    page = bytearray(PAGE_SIZE)
    for index in range(PAGE_SIZE >> REGISTER_SHIFT):
        value = lapic.read(index)
        if value is not None:
            if index == Reg.ID and lapic.x2apic:
                value = value << XAPIC_ID_SHIFT & 0xFFFF_FFFF
            page[index << REGISTER_SHIFT : (index << REGISTER_SHIFT) + 4] = value.to_bytes(4, "little")
    return bytes(page)


def _pic_registers(pic: Pic) -> PicRegisters:
    return PicRegisters(pic.base, pic.irr, pic.isr, pic.imr, pic.elcr, pic.auto_eoi, pic.special_mask, not pic.expects)


def _line(row: LineRoute, own_timer: bool) -> LineFacts:
    state = row.state
    gpa, data = row.message or (None, None)
    return LineFacts(
        gsi=row.gsi,
        sources=row.sources if own_timer or row.gsi != PIT_GSI else (KERNELS_PIT, *row.sources),
        level=row.level,
        chip=row.chip,
        pin=None if row.message is not None else row.pin,
        vector=state.vector,
        delivery=state.delivery,
        trigger=state.trigger,
        masked=state.masked,
        vcpus=state.cpus,
        message_gpa=gpa,
        message_data=data,
    )


def _lapic(cpu: Cpu, page: bytes) -> LapicFacts:
    def read(register: int) -> int:
        """A register of the page."""
        return int.from_bytes(page[register << REGISTER_SHIFT : (register << REGISTER_SHIFT) + 4], "little")

    base = cpu.special.apic_base
    enabled, x2apic = bool(base & BASE_ENABLED), bool(base & BASE_X2APIC)
    return LapicFacts(
        vcpu=cpu.index,
        mode="off" if not enabled else "x2APIC" if x2apic else "xAPIC",
        bootstrap=bool(base & BASE_BSP),
        base_gpa=base & ~0xFFF,
        id=read(Reg.ID) >> XAPIC_ID_SHIFT,
        logical_id=read(Reg.LDR),
        software_enabled=bool(read(Reg.SVR) & SVR_ENABLED),
        spurious_vector=read(Reg.SVR) & VECTOR_MASK,
        tpr=read(Reg.TPR),
        ppr=read(Reg.PPR),
        in_service=_vectors(read, Reg.ISR),
        requested=_vectors(read, Reg.IRR),
        level_triggered=_vectors(read, Reg.TMR),
        errors=read(Reg.ESR),
        timer=_timer(cpu, read),
        local=tuple(
            _lvt(register, read(register))
            for register in LVT_NAMES
            if read(Reg.VERSION) >> 16 & 0xFF >= NEEDS_MAX_LVT.get(register, 0)
        ),
    )


def _vectors(read: Callable[[int], int], first: int) -> tuple[int, ...]:
    bits = sum(read(first + word) << 32 * word for word in range(8))
    return tuple(vector for vector in range(256) if bits >> vector & 1)


def _timer(cpu: Cpu, read: Callable[[int], int]) -> LapicTimerFacts:
    mode = read(Reg.LVT_TIMER) >> LVT_TIMER_MODE_SHIFT & 3
    deadline = cpu.vcpu.get_msrs([Msr.IA32_TSC_DEADLINE]) if mode == TSC_DEADLINE else {}
    return LapicTimerFacts(
        MODE_NAMES[mode],
        read(Reg.INITIAL_COUNT),
        read(Reg.CURRENT_COUNT),
        divisor(read(Reg.DIVIDE)),
        deadline.get(Msr.IA32_TSC_DEADLINE),
    )


def _lvt(register: Reg, entry: int) -> LvtFacts:
    delivery = "fixed" if register in FIXED_ONLY else delivery_name(entry >> MODE_SHIFT & MODE_MASK)
    return LvtFacts(
        register.name.removeprefix("LVT_").lower(), entry & VECTOR_MASK, delivery, bool(entry & LVT_MASKED), entry
    )


def _redirection(pin: int, entry: int) -> RedirectionFacts:
    return RedirectionFacts(
        pin=pin,
        vector=entry & VECTOR,
        delivery=delivery_name(entry >> DELIVERY_SHIFT & DELIVERY_MASK),
        logical=bool(entry & LOGICAL),
        pending=bool(entry & DELIVERY_PENDING),
        active_low=bool(entry & ACTIVE_LOW),
        remote_irr=bool(entry & REMOTE_IRR),
        trigger="level" if entry & LEVEL else "edge",
        masked=bool(entry & MASKED),
        destination=entry >> DESTINATION_SHIFT,
        raw=entry,
    )


def _pic(name: str, pic: PicRegisters) -> PicFacts:
    return PicFacts(
        name=name,
        base=pic.base,
        requested=_pins(pic.irr),
        in_service=_pins(pic.isr),
        masked=_pins(pic.imr),
        level_triggered=_pins(pic.elcr),
        auto_eoi=pic.auto_eoi,
        special_mask=pic.special_mask,
        initialized=pic.initialized,
    )


def _pins(bits: int) -> tuple[int, ...]:
    return tuple(pin for pin in range(8) if bits >> pin & 1)
