"""Everything about one run of a bare guest: where all of it lay, how it started, each switch into it and back, how it ended.

`explain` runs the guest itself; the answer is plain data, which `explain_text` and `explain_html` show.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from belljar import __version__
from belljar.errors import GuestMemoryError
from belljar.machine import Cpu, End, Machine, RunResult
from belljar.machine.result import STATUS
from belljar.observe.chip_facts import chip_facts
from belljar.observe.explain_model import (
    ChipFacts,
    ConsoleFacts,
    CpuFacts,
    EndFacts,
    Explanation,
    InterruptFacts,
    MemoryFacts,
    PagingFacts,
    Place,
    RegionFacts,
    RegisterWrite,
    RightsRun,
    TableFacts,
    TablesOfLevel,
    VcpuFacts,
)
from belljar.observe.shared_structures import shared_structures
from belljar.observe.switches import ConsoleCounter, SwitchLog
from belljar.observe.walk import host_address
from belljar.x86.address_space import AddressSpace, address_space
from belljar.x86.paging import format_of
from belljar.x86.state import Registers, SpecialRegisters
from belljar.x86.walker import walk

DEFAULT_TIMEOUT = 5.0
"""Seconds of running after which an explanation is given for what happened so far."""

DEFAULT_LIMIT = 200
"""How many switches are told one by one."""

RESULT_GPA = 0x400
"""Where the sample guests leave their answer."""

RESULT_BYTES = 8

_CALLS = {
    "kvm": ("KVM_SET_SREGS", "KVM_SET_REGS", "KVM_RUN"),
    "soft": ("VMWRITE of the guest-state fields", "the processor's registers", "VMLAUNCH or VMRESUME"),
}
"""What setting special registers, general registers and entering the guest are called, by engine."""


def explain(guest: Any, *, timeout: float = DEFAULT_TIMEOUT, limit: int = DEFAULT_LIMIT, **options: Any) -> Explanation:
    """Run `guest` for up to `timeout` seconds and say everything about it; `limit` switches one by one, the rest counted.

    Takes the options of `belljar.Machine` (but not `output`) and raises what it raises. KeyboardInterrupt ends the run early.
    """
    console = ConsoleCounter()
    with Machine(guest, output=console, **options) as machine:
        return _explain(machine, console, timeout, limit)


def _explain(machine: Machine, console: ConsoleCounter, timeout: float, limit: int) -> Explanation:
    starts = [_cpu_facts(machine, cpu) for cpu in machine.cpus]
    maps = [(cpu.special, "start", cpu.index) for cpu in machine.cpus]
    places = _places(machine)
    paging = _paging(machine, maps)
    chips = chip_facts(machine)
    log = SwitchLog(machine, console, limit)
    result = _run(machine, log, timeout)
    ends = [_cpu_facts(machine, cpu) for cpu in machine.cpus]
    paging += [
        facts
        for facts in _paging(machine, [(cpu.special, "end", cpu.index) for cpu in machine.cpus])
        if not any(_same_tables(facts, before) for before in paging)
    ]
    enter_call = _CALLS.get(machine.engine.name, ("", "", "run"))[2]
    return Explanation(
        belljar=__version__,
        guest=machine.guest.name,
        mode=machine.setup.mode.name,
        mode_title=machine.setup.mode.title,
        bits=machine.setup.mode.bits,
        page_size=machine.setup.page_size or None,
        cpl=machine.setup.cpl,
        engine=machine.engine.name,
        engine_reason="; ".join(filter(None, (machine.engine_reason, machine.chips.reason))),
        memory=_memory(machine),
        places=tuple(places),
        vcpus=tuple(
            VcpuFacts(
                index=cpu.index,
                run_page_hva=cpu.run_page.hva,
                run_page_size=cpu.run_page.size,
                run_page_what=cpu.run_page.what,
                start=starts[cpu.index],
                register_writes=_register_writes(machine, starts[cpu.index]),
                end=ends[cpu.index],
                exits={
                    reason.label: count
                    for reason, count in sorted(cpu.vcpu.exit_counts().items(), key=lambda item: -item[1])
                },
                shared=shared_structures(machine, cpu),
            )
            for cpu in machine.cpus
        ),
        paging=tuple(paging),
        enter_call=enter_call,
        switches=tuple(log.switches),
        switch_count=log.count,
        groups=tuple(log.groups()),
        console=ConsoleFacts(
            text=console.text(),
            bytes=console.total,
            shown_bytes=console.kept,
            exits=log.console_exits,
            batched_writes=machine.vm.batched_writes() if machine.vm is not None else 0,
        ),
        interrupts=_interrupts(machine, chips),
        end=_end(machine, result),
    )


def _run(machine: Machine, log: SwitchLog, timeout: float) -> RunResult:
    try:
        for exit in machine.exits(timeout=timeout):
            log.add(exit)
    except KeyboardInterrupt:
        return RunResult(End.STOPPED, STATUS[End.STOPPED], "interrupted (Ctrl-C)")
    assert machine.result is not None
    return machine.result


def _interrupts(machine: Machine, start: ChipFacts | None) -> InterruptFacts | None:
    end = chip_facts(machine)
    if start is None or end is None:
        return None
    return InterruptFacts(machine.chips.which or "", start, end)


def _memory(machine: Machine) -> MemoryFacts:
    return MemoryFacts(
        size=machine.memory.size,
        regions=tuple(
            RegionFacts(
                name=region.name,
                slot=region.slot,
                gpa=region.gpa,
                gpa_last=region.end_gpa - 1,
                hva=region.hva,
                hva_last=region.hva + region.size - 1,
                size=region.size,
                readonly=region.readonly,
                allocated=region.allocated,
                obtained=region.obtained,
            )
            for region in machine.memory.regions
        ),
    )


def _places(machine: Machine) -> list[Place]:
    """Code and the mode's structures, in the order of their guest-physical addresses."""
    special = machine.cpu.special
    image = machine.guest.image
    numbers = count()
    alone = sum(not segment.name for segment in image.segments) == 1
    places = []
    for segment in image.segments:
        found = walk(special, segment.gpa, machine.memory.read)
        places.append(
            Place(
                name=segment.name or ("code" if alone else f"segment {next(numbers)}"),
                kind="data" if segment.name else "code",
                gpa=segment.gpa,
                size=segment.memory_size,
                gva=segment.gpa if found.gpa == segment.gpa else None,
                hva=host_address(machine, segment.gpa),
                note=f"handed to the guest, {image.format}" if segment.name else f"the guest itself, {image.format}",
            )
        )
    for placement in machine.setup.placements:
        places.append(
            Place(
                name=placement.name,
                kind=placement.kind,
                gpa=placement.gpa,
                size=placement.size,
                gva=placement.gva,
                hva=host_address(machine, placement.gpa),
                note=placement.note,
            )
        )
    return sorted(places, key=lambda place: (place.gpa, place.size))


def _cpu_facts(machine: Machine, cpu: Cpu) -> CpuFacts:
    """A vCPU as it stands."""
    registers, special = cpu.registers, cpu.special
    pc_gva, bits = cpu.pc_gva, cpu.bits
    code_gpa = walk(special, pc_gva, machine.memory.read).gpa
    stack_gva = _stack_gva(registers, special, bits)
    stack_gpa = walk(special, stack_gva, machine.memory.read).gpa
    return CpuFacts(
        pc_gva=pc_gva,
        pc_gpa=code_gpa,
        pc_hva=None if code_gpa is None else host_address(machine, code_gpa),
        bits=bits,
        cpl=special.ss.dpl,
        paging=format_of(special).title,
        stack_gva=stack_gva,
        stack_gpa=stack_gpa,
        stack_hva=None if stack_gpa is None else host_address(machine, stack_gpa),
        gdt=_table(machine, special, special.gdt.base_gva, special.gdt.limit),
        idt=_table(machine, special, special.idt.base_gva, special.idt.limit),
        registers=registers,
        special=special,
        halted=cpu.halted,
    )


def _stack_gva(registers: Registers, special: SpecialRegisters, bits: int) -> int:
    """The linear address of the stack's top: SS has no base in 64-bit mode, and SS.B says how wide SP is (SDM 1 6.2.3)."""
    if bits == 64:
        return registers.rsp
    mask = 0xFFFFFFFF if special.ss.db else 0xFFFF
    return (special.ss.base + (registers.rsp & mask)) & 0xFFFFFFFF


def _table(machine: Machine, special: SpecialRegisters, base_gva: int, limit: int) -> TableFacts:
    gpa = walk(special, base_gva, machine.memory.read).gpa
    return TableFacts(base_gva, limit, gpa, None if gpa is None else host_address(machine, gpa))


def _register_writes(machine: Machine, start: CpuFacts) -> tuple[RegisterWrite, ...]:
    """Which calls put the vCPU at its first instruction."""
    special_call, general_call, _ = _CALLS.get(machine.engine.name, ("set_special", "set_registers", "run"))
    special, registers = start.special, start.registers
    first = {
        "cs.selector": special.cs.selector,
        "cs.base": special.cs.base,
        "cr0": special.cr0,
        "cr3": special.cr3,
        "cr4": special.cr4,
        "efer": special.efer,
    }
    second = {"rip": registers.rip, "rsp": registers.rsp, "rflags": registers.rflags}
    return (RegisterWrite(special_call, first), RegisterWrite(general_call, second))


def _paging(machine: Machine, states: list[tuple[SpecialRegisters, str, int]]) -> list[PagingFacts]:
    """The page tables of every vCPU, those that share them once."""
    groups: dict[tuple[object, ...], tuple[AddressSpace, list[int], str, SpecialRegisters]] = {}
    for special, when, index in states:
        key = (format_of(special).name, special.cr3, special.cr4, special.efer)
        if key in groups:
            groups[key][1].append(index)
        else:
            groups[key] = (address_space(special, machine.memory.read), [index], when, special)
    return [_paging_facts(machine, *group) for group in groups.values()]


def _paging_facts(
    machine: Machine, found: AddressSpace, vcpus: list[int], when: str, special: SpecialRegisters
) -> PagingFacts:
    levels = tuple(
        TablesOfLevel(
            level=level.name,
            spans=level.page_size,
            gpas=tuple(found.table_gpas[level.name]),
            hvas=tuple(host_address(machine, gpa) for gpa in found.table_gpas[level.name]),
            entry_gpas=tuple(found.table_gpas[level.name].values()),
        )
        for level in found.paging.levels
    )
    return PagingFacts(
        when=when,
        vcpus=tuple(vcpus),
        format=found.paging.name,
        title=found.paging.title,
        cr3=special.cr3,
        root_gpa=special.cr3 & found.paging.root_mask if found.paging.levels else None,
        levels=levels,
        table_pages=len({gpa for gpas in found.table_gpas.values() for gpa in gpas}),
        runs=tuple(
            RightsRun(run.gva, run.gva + run.size - 1, run.gpa, run.pages, run.page_size, str(run.rights))
            for run in found.mappings
        ),
        cut=found.cut,
        bad_entries=len(found.bad_entries),
    )


def _same_tables(one: PagingFacts, other: PagingFacts) -> bool:
    """Whether a guest left its page tables as they were, the accessed and dirty bits aside."""
    return (one.format, one.cr3, one.levels, one.runs) == (other.format, other.cr3, other.levels, other.runs)


def _end(machine: Machine, result: RunResult) -> EndFacts:
    try:
        data = machine.memory.read(RESULT_GPA, RESULT_BYTES)
    except GuestMemoryError:
        data = b""
    return EndFacts(
        end=result.end.value,
        message=result.message,
        status=result.status & 0xFF,
        vcpu=result.vcpu,
        duration_ns=result.duration_ns,
        result_gpa=RESULT_GPA,
        result_bytes=data,
        unclaimed_accesses=machine.bus.unclaimed,
    )
