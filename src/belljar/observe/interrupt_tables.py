"""The interrupt chips of an explanation as tables, for text and HTML alike."""

from __future__ import annotations

from typing import NamedTuple

from belljar.observe.explain_model import ChipFacts, InterruptFacts, LapicFacts, LineFacts, LvtFacts, PicFacts
from belljar.observe.words import plural


class Table(NamedTuple):
    """A title, the columns' names and then the rows, and what was left out of them (empty if nothing)."""

    title: str
    rows: list[tuple[str, ...]]
    left_out: str = ""


class Moment(NamedTuple):
    """The tables of one moment."""

    title: str
    tables: list[Table]


def interrupt_tables(found: InterruptFacts) -> list[Moment]:
    """Everything about the chips at the start, and at the end what the guest left otherwise."""
    start = Moment(f"Interrupts at the start, chips: {found.chips}", _tables(found.start))
    if found.start == found.end:
        return [start, Moment("Interrupts at the end: as they were", [])]
    return [start, Moment("Interrupts at the end", _tables(found.end))]


def _tables(chips: ChipFacts) -> list[Table]:
    tables = [_lines(chips.lines), _lapics(chips.lapics), _local_vectors(chips.lapics)]
    if chips.redirection:
        tables.append(_redirection(chips))
    if chips.pics:
        tables.append(_pics(chips.pics))
    return tables


def _lines(lines: tuple[LineFacts, ...]) -> Table:
    rows: list[tuple[str, ...]] = [("gsi", "source", "level", "leads to", "vector", "delivery", "trigger", "reaches")]
    shown = [line for line in lines if _tells(line)]
    for line in shown:
        where = f"{line.chip} pin {line.pin}" if line.pin is not None else f"message {line.message_gpa:#x}"
        reached = "vCPU " + ", ".join(str(cpu) for cpu in line.vcpus) if line.vcpus else "nobody"
        rows.append(
            (
                str(line.gsi), ", ".join(line.sources) or "-", "up" if line.level else "down", where, _vector(line.vector),
                line.delivery, line.trigger, "nobody, it is masked" if line.masked else reached,
            )
        )  # fmt: skip
    left = len(lines) - len(shown)
    return Table(
        "Where lines lead",
        rows,
        f"and {plural(left, 'way')} that no device uses, or that {'is' if left == 1 else 'are'} masked" if left else "",
    )


def _tells(line: LineFacts) -> bool:
    """Whether a line is worth a row: it is up, it leads somewhere, or the guest has at least thought of where."""
    if line.level or (line.chip == "ioapic" and line.vector):
        return True
    return not line.masked and (bool(line.sources) or line.chip != "pic")


def _lapics(lapics: tuple[LapicFacts, ...]) -> Table:
    rows: list[tuple[str, ...]] = [
        ("vCPU", "mode", "id", "logical", "on", "spurious", "TPR", "PPR", "in service", "requested", "errors", "timer")
    ]
    for lapic in lapics:
        rows.append(
            (
                str(lapic.vcpu), lapic.mode, f"{lapic.id:#x}", f"{lapic.logical_id:#x}",
                "yes" if lapic.software_enabled else "no", _vector(lapic.spurious_vector), _vector(lapic.tpr),
                _vector(lapic.ppr), _vectors(lapic.in_service), _vectors(lapic.requested), f"{lapic.errors:#x}",
                _timer(lapic),
            )
        )  # fmt: skip
    return Table("Local APICs", rows)


def _timer(lapic: LapicFacts) -> str:
    timer = lapic.timer
    if timer.deadline is not None:
        return f"{timer.mode}, due at {timer.deadline:#x}" if timer.deadline else f"{timer.mode}, not armed"
    if not timer.initial:
        return "stopped"
    return f"{timer.mode}, {timer.current} of {timer.initial} left, divided by {timer.divisor}"


def _local_vectors(lapics: tuple[LapicFacts, ...]) -> Table:
    rows: list[tuple[str, ...]] = [("vCPU", *(entry.name for entry in lapics[0].local))] if lapics else [("vCPU",)]
    for lapic in lapics:
        rows.append((str(lapic.vcpu), *(_local(entry) for entry in lapic.local)))
    return Table("Local vector tables", rows)


def _local(entry: LvtFacts) -> str:
    if entry.masked:
        return "masked"
    return _vector(entry.vector) if entry.delivery == "fixed" else entry.delivery


def _redirection(chips: ChipFacts) -> Table:
    rows: list[tuple[str, ...]] = [("pin", "vector", "delivery", "to", "trigger", "active", "state", "entry")]
    shown = [entry for entry in chips.redirection if not entry.masked or entry.vector or entry.remote_irr]
    for entry in shown:
        state = [name for name, there in (("masked", entry.masked), ("in service", entry.remote_irr)) if there]
        rows.append(
            (
                str(entry.pin), _vector(entry.vector), entry.delivery,
                f"{'logical' if entry.logical else 'apic'} {entry.destination:#x}", entry.trigger,
                "low" if entry.active_low else "high", ", ".join(state) or "open", f"{entry.raw:#018x}",
            )
        )  # fmt: skip
    left = len(chips.redirection) - len(shown)
    return Table("IOAPIC, redirection table", rows, f"and {plural(left, 'pin')} as after reset, masked" if left else "")


def _pics(pics: tuple[PicFacts, ...]) -> Table:
    rows: list[tuple[str, ...]] = [
        ("8259", "vectors from", "requested", "in service", "masked", "level-triggered", "end of interrupt", "state")
    ]
    for pic in pics:
        state = (
            "special mask mode"
            if pic.special_mask
            else "ready"
            if pic.initialized
            else "waits for initialization words"
        )
        rows.append(
            (
                pic.name, _vector(pic.base), _pins(pic.requested), _pins(pic.in_service), _pins(pic.masked),
                _pins(pic.level_triggered), "automatic" if pic.auto_eoi else "by the guest", state,
            )
        )  # fmt: skip
    return Table("8259 pair, by pins", rows)


def _vector(vector: int) -> str:
    return f"{vector:#04x}"


def _vectors(vectors: tuple[int, ...]) -> str:
    return " ".join(_vector(vector) for vector in vectors) or "-"


def _pins(pins: tuple[int, ...]) -> str:
    if len(pins) == 8:
        return "all"
    return " ".join(str(pin) for pin in pins) or "-"
