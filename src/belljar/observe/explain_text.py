"""An explanation as lines of plain text, section by section; lines that start without a space are headings."""

from __future__ import annotations

from belljar.observe.explain_model import (
    CpuFacts,
    Explanation,
    PagingFacts,
    Place,
    SharedFacts,
    Switch,
    SwitchGroup,
    VcpuFacts,
)
from belljar.observe.interrupt_tables import interrupt_tables
from belljar.observe.words import address, character, data_size, plural, span, table

SHOWN_RUNS = 64
"""Runs of mapped pages that are listed before the rest is counted."""

SHOWN_TEXT = 400
"""Characters of the console that are quoted."""


def explain_lines(found: Explanation) -> list[str]:
    """All of it."""
    lines = _head(found) + _memory(found)
    for vcpu in found.vcpus:
        lines += _vcpu(vcpu, found)
    lines += ["", "What lies where before the first instruction", *_places(found.places)]
    for paging in found.paging:
        lines += _paging(paging)
    lines += _switches(found) + _console(found)
    for vcpu in found.vcpus:
        lines += _vcpu_end(vcpu)
    if found.interrupts is not None:
        lines += ["", *interrupt_lines(found)]
    return lines + _end(found)


def interrupt_lines(found: Explanation) -> list[str]:
    """The interrupt chips only."""
    if found.interrupts is None:
        return ["Interrupts: this machine has no interrupt chips (--irqchip gives it some)"]
    lines: list[str] = []
    for moment in interrupt_tables(found.interrupts):
        lines += ["", moment.title] if lines else [moment.title]
        for each in moment.tables:
            lines.append(f"  {each.title}" + ("" if len(each.rows) > 1 else ": nothing is there"))
            if len(each.rows) > 1:
                lines += [f"  {line}" for line in table(each.rows)]
            if each.left_out:
                lines.append(f"    {each.left_out}")
    return lines


def _head(found: Explanation) -> list[str]:
    pages = f", pages of {data_size(found.page_size)}" if found.page_size else ""
    why = f" ({found.engine_reason})" if found.engine_reason else ""
    return [
        f"{found.guest} on engine {found.engine}{why}",
        f"  mode {found.mode}: {found.mode_title}{pages}; starts at CPL{found.cpl}; {plural(len(found.vcpus), 'vCPU')}",
    ]


def _memory(found: Explanation) -> list[str]:
    lines = ["", f"Guest memory: {data_size(found.memory.size)}"]
    for region in found.memory.regions:
        kind = " read-only" if region.readonly else ""
        held = "" if region.allocated is None else f", {data_size(region.allocated)} of it touched"
        lines += [
            f"  {region.name}{kind}, slot {region.slot}, {data_size(region.size)}{held}, obtained with {region.obtained}",
            f"    guest-physical {span(region.gpa, region.gpa_last)}",
            f"    host-virtual   {span(region.hva, region.hva_last)}",
        ]
    return lines


def _vcpu(vcpu: VcpuFacts, found: Explanation) -> list[str]:
    start = vcpu.start
    lines = [
        "",
        f"vCPU {vcpu.index}",
        f"  run page: {data_size(vcpu.run_page_size)} at host-virtual {vcpu.run_page_hva:#x} ({vcpu.run_page_what})",
        f"  starts at {_triple(start.pc_gva, start.pc_gpa, start.pc_hva)}",
    ]
    for write in vcpu.register_writes:
        values = " ".join(f"{name}={value:#x}" for name, value in write.values.items())
        lines.append(f"    set by {write.call}: {values}")
    lines.append(f"  {start.bits}-bit code, CPL{start.cpl}, {start.paging}")
    return [*lines, *_tables(start)]


def _tables(cpu: CpuFacts) -> list[str]:
    return [
        f"  stack ends at {_triple(cpu.stack_gva, cpu.stack_gpa, cpu.stack_hva)}",
        f"  GDT at {_triple(cpu.gdt.base_gva, cpu.gdt.gpa, cpu.gdt.hva)}, limit {cpu.gdt.limit:#x}",
        f"  IDT at {_triple(cpu.idt.base_gva, cpu.idt.gpa, cpu.idt.hva)}, limit {cpu.idt.limit:#x}",
    ]


def _triple(gva: int, gpa: int | None, hva: int | None) -> str:
    if gpa is None:
        return f"gva {gva:#x} (not mapped)"
    return f"gva {gva:#x} = gpa {gpa:#x} = hva {address(hva)}"


def _places(places: tuple[Place, ...]) -> list[str]:
    rows: list[tuple[str, ...]] = [("what", "kind", "gva", "gpa", "hva", "bytes", "")]
    for place in places:
        rows.append(
            (place.name, place.kind, address(place.gva), f"{place.gpa:#x}", address(place.hva), f"{place.size:#x}",
             place.note)
        )  # fmt: skip
    return table(rows)


def _paging(paging: PagingFacts) -> list[str]:
    who = "vCPU " + ", ".join(str(index) for index in paging.vcpus)
    when = "at the start" if paging.when == "start" else "at the end: the guest changed it"
    lines = ["", f"Paging of {who} {when}"]
    if not paging.levels:
        return [*lines, "  none: a linear address is the guest-physical address"]
    total = plural(paging.table_pages, "page")
    lines.append(f"  {paging.title}; {total} of tables ({data_size(paging.table_pages * 4096)}); CR3 = {paging.cr3:#x}")
    for level in paging.levels:
        where = ", ".join(
            f"gpa {gpa:#x} hva {address(hva)}" for gpa, hva in list(zip(level.gpas, level.hvas, strict=True))[:4]
        )
        more = f" and {len(level.gpas) - 4} more" if len(level.gpas) > 4 else ""
        lines.append(f"  {level.level:<4} {plural(len(level.gpas), 'table')}: {where or 'none'}{more}")
    lines.append("  maps")
    for run in paging.runs[:SHOWN_RUNS]:
        pages = f"{plural(run.pages, 'page')} of {data_size(run.page_size)}, " if run.page_size else ""
        lines.append(f"    gva {span(run.gva, run.gva_last)} -> gpa {run.gpa:#x}: {pages}{run.rights}")
    if len(paging.runs) > SHOWN_RUNS:
        lines.append(f"    and {len(paging.runs) - SHOWN_RUNS} more runs (--json lists them)")
    if paging.cut:
        lines.append(f"    and more: belljar {paging.cut}")
    if paging.bad_entries:
        lines.append(f"    {plural(paging.bad_entries, 'present entry', 'present entries')} lead nowhere")
    return lines


def _switches(found: Explanation) -> list[str]:
    lines = ["", f"Switches: {found.switch_count} times into the guest with {found.enter_call} and back"]
    lines += [_switch(switch) for switch in found.switches]
    left = found.switch_count - len(found.switches)
    if left:
        lines.append(f"  and {left} more, told below by kind only (--limit shows more one by one)")
    interrupted = sum(vcpu.exits.get("interrupted", 0) for vcpu in found.vcpus)
    if interrupted:
        lines.append(
            f"  besides, the host itself interrupted the guest {plural(interrupted, 'time')}: limits, and vCPUs in turn"
        )
    return [*lines, "", "Switches by kind", *(_group(group) for group in found.groups)]


def _switch(switch: Switch) -> str:
    text = f"  {switch.number:>4} vCPU {switch.vcpu}  in at rip {switch.enter_rip:#x}, out at {switch.exit_rip:#x}: "
    text += switch.reason
    if switch.size is None:
        return text + (f" {switch.detail}" if switch.detail else "")
    text += " write" if switch.write else " read"
    where = f"port {switch.port:#x}" if switch.port is not None else f"gpa {switch.gpa:#x}"
    text += f" {where} size {switch.size}"
    if switch.count and switch.count > 1:
        text += f" count {switch.count}"
    text += f" value {switch.value:#x}{character(switch.value, switch.size)}"
    if switch.data_offset is not None:
        text += f", data at run page + {switch.data_offset:#x} = hva {address(switch.data_hva)}"
    return text


def _group(group: SwitchGroup) -> str:
    text = f"  {group.switches:>8} x vCPU {group.vcpu} {group.reason}"
    if group.write is not None:
        where = f"port {group.port:#x}" if group.port is not None else f"gpa page {address(group.gpa_page)}"
        text += f" {'write' if group.write else 'read'} {where} size {group.size}"
    elif group.reason in ("io", "mmio"):
        text += " elsewhere"
    return text + (f" (number {group.first})" if group.switches == 1 else f" (numbers {group.first} to {group.last})")


def _console(found: Explanation) -> list[str]:
    console = found.console
    if not console.bytes:
        return ["", "Console: the guest printed nothing"]
    quoted = console.text[:SHOWN_TEXT]
    more = "" if len(quoted) == len(console.text) and console.shown_bytes == console.bytes else " ..."
    return [
        "",
        f"Console: {plural(console.bytes, 'byte')} took {plural(console.exits, 'exit')}",
        f"  {quoted!r}{more}",
    ]


def _vcpu_end(vcpu: VcpuFacts) -> list[str]:
    end = vcpu.end
    counts = ", ".join(f"{count} {reason}" for reason, count in vcpu.exits.items()) or "none"
    lines = ["", f"vCPU {vcpu.index} at the end ({end.bits}-bit code, CPL{end.cpl}, {end.paging}; exits: {counts})"]
    values = [(name, getattr(end.registers, name)) for name in end.registers.__slots__]
    for i in range(0, len(values), 4):
        lines.append("  " + "  ".join(f"{name:<6} {value:016x}" for name, value in values[i : i + 4]))
    special = end.special
    lines.append(
        f"  cs {special.cs.selector:#x} base {special.cs.base:#x}  cr0 {special.cr0:#x}  cr2 {special.cr2:#x}  "
        f"cr3 {special.cr3:#x}  cr4 {special.cr4:#x}  efer {special.efer:#x}"
    )
    if (end.gdt, end.idt) != (vcpu.start.gdt, vcpu.start.idt):
        lines += _tables(end)
    return lines + _shared(vcpu.shared)


def _shared(structures: tuple[SharedFacts, ...]) -> list[str]:
    lines = []
    for each in structures:
        where = "which is not memory" if each.hva is None else f"hva {address(each.hva)}"
        fields = ", ".join(f"{name} {value}" for name, value in each.fields.items())
        lines.append(
            f"  shares with its hypervisor: {each.name} at gpa {each.gpa:#x}, {where}{': ' * bool(fields)}{fields}"
        )
    return lines


def _end(found: Explanation) -> list[str]:
    end = found.end
    lines = ["", f"The end: {end.end}, {end.message} (status {end.status}, after {end.duration_ns / 1e6:.2f} ms)"]
    if end.result_bytes:
        lines.append(
            f"  guest-physical {end.result_gpa:#x} holds {end.result_bytes.hex(' ')} "
            f"(as a number {end.result:#x}, the first byte {end.result_bytes[0]})"
        )
    else:
        lines.append(f"  guest-physical {end.result_gpa:#x} is not memory")
    if end.unclaimed_accesses:
        lines.append(f"  {plural(end.unclaimed_accesses, 'access', 'accesses')} found no device")
    return lines
