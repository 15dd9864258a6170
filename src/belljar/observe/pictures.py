"""The geometry of an explanation's pictures: boxes and lines as plain data, for a template to draw. Units are CSS pixels."""

from __future__ import annotations

from belljar.observe.explain_model import Explanation, PagingFacts, Place, RegionFacts, Switch
from belljar.observe.words import about, address, character, data_size, plural, span
from belljar.records import dataclass

MAX_BANDS = 80
"""Places that the memory map shows; a guest file may have thousands of segments."""

MAX_BOXES = 8
"""Tables of one level, and runs of pages, that the tree shows."""

MAX_ARROWS = 60
"""Switches that the timeline shows."""

BAND = 30
GAP = 22


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with a few lines of text; `kind` chooses its colour."""

    x: int
    y: int
    width: int
    height: int
    kind: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A line or arrow with words above its middle, or beside its end where `beside`."""

    x1: int
    y1: int
    x2: int
    y2: int
    kind: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """Text alone; `anchor` is start, middle or end."""

    x: int
    y: int
    text: str
    anchor: str = "start"
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing, and what it left out in words."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    labels: tuple[Label, ...]
    left_out: str = ""


def memory_map(found: Explanation) -> Picture:
    """Guest memory from top to bottom, each place a band between its guest-physical and its host-virtual address."""
    boxes: list[Box] = []
    labels = [
        Label(150, 16, "guest-physical", "end", "head"),
        Label(560, 16, "host-virtual", "start", "head"),
        Label(355, 16, "what lies there", "middle", "head"),
    ]
    y = 28
    left = MAX_BANDS
    for region in found.memory.regions:
        inside = [place for place in found.places if region.gpa <= place.gpa <= region.gpa_last]
        y = _region(region, inside[:left], boxes, labels, y) + 16
        left = max(left - len(inside), 0)
    for vcpu in found.vcpus:
        text = (f"run page of vCPU {vcpu.index}, {data_size(vcpu.run_page_size)}",)
        boxes.append(Box(160, y, 390, BAND, "run", text))
        labels.append(Label(150, y + 20, "not guest memory", "end", "dim"))
        labels.append(Label(560, y + 20, f"{vcpu.run_page_hva:#x}"))
        y += BAND + 6
    shown = len(found.places) <= MAX_BANDS
    return Picture(
        720, y, tuple(boxes), (), tuple(labels), "" if shown else f"{len(found.places) - MAX_BANDS} places more"
    )


def _region(region: RegionFacts, places: list[Place], boxes: list[Box], labels: list[Label], y: int) -> int:
    """Highest address first, as memory maps are drawn; returns where the region's picture ends."""
    labels.append(Label(150, y + 12, f"{region.gpa_last:#x}", "end", "dim"))
    labels.append(Label(560, y + 12, f"{region.hva_last:#x}", "start", "dim"))
    above = region.gpa_last + 1
    for place in sorted(places, key=lambda place: -place.gpa):
        end = place.gpa + place.size
        if end < above:
            boxes.append(Box(160, y, 390, GAP, "free", (f"{about(above - end)} free",)))
            y += GAP
        name = f"{place.name}, {data_size(place.size)}"
        boxes.append(Box(160, y, 390, BAND, place.kind, (f"{name}: {place.note}" if place.note else name,)))
        labels.append(Label(150, y + 20, f"{place.gpa:#x}", "end"))
        labels.append(Label(560, y + 20, address(place.hva)))
        y += BAND
        above = min(above, place.gpa)
    if above > region.gpa:
        boxes.append(Box(160, y, 390, GAP, "free", (f"{about(above - region.gpa)} free",)))
        labels.append(Label(150, y + 16, f"{region.gpa:#x}", "end", "dim"))
        labels.append(Label(560, y + 16, f"{region.hva:#x}", "start", "dim"))
        y += GAP
    return y


COLUMN = 165
BOX_WIDTH = 130
BOX_HEIGHT = 44
RUN_WIDTH = 300


def table_tree(paging: PagingFacts) -> Picture | None:
    """CR3, the tables level by level, and the runs of pages they map; None without paging."""
    if not paging.levels:
        return None
    boxes = [Box(0, 30, 90, BOX_HEIGHT, "register", ("CR3", f"{paging.cr3:#x}"))]
    labels: list[Label] = []
    lines: list[Line] = []
    left_out = []
    where: dict[int, tuple[int, int]] = {}
    x = 130
    for level in paging.levels:
        if not level.gpas:
            continue
        labels.append(Label(x, 18, f"{level.level}: {plural(len(level.gpas), 'table')}", "start", "head"))
        y = 30
        for gpa, entry_gpa in list(zip(level.gpas, level.entry_gpas, strict=True))[:MAX_BOXES]:
            entry = f"entry {entry_gpa:#x}" if entry_gpa else "the root"
            boxes.append(Box(x, y, BOX_WIDTH, BOX_HEIGHT, "page-table", (f"gpa {gpa:#x}", entry)))
            start = where.get(entry_gpa - entry_gpa % 4096) if entry_gpa else (90, 30 + BOX_HEIGHT // 2)
            if start is not None:
                lines.append(Line(*start, x, y + BOX_HEIGHT // 2, "arrow"))
            where[gpa - gpa % 4096] = (x + BOX_WIDTH, y + BOX_HEIGHT // 2)
            y += BOX_HEIGHT + 10
        if len(level.gpas) > MAX_BOXES:
            left_out.append(plural(len(level.gpas) - MAX_BOXES, f"{level.level} table"))
        x += COLUMN
    y = 30
    labels.append(Label(x, 18, "map", "start", "head"))
    for run in paging.runs[:MAX_BOXES]:
        pages = f"{run.pages} x {data_size(run.page_size)} at" if run.page_size else ""
        text = (span(run.gva, run.gva_last), f"{pages} gpa {run.gpa:#x}, {run.rights}".strip())
        boxes.append(Box(x, y, RUN_WIDTH, BOX_HEIGHT, "code" if "x" in run.rights[:3] else "stack", text))
        y += BOX_HEIGHT + 10
    if len(paging.runs) > MAX_BOXES:
        left_out.append(plural(len(paging.runs) - MAX_BOXES, "run"))
    height = max(box.y + box.height for box in boxes) + 10
    return Picture(x + RUN_WIDTH + 4, height, tuple(boxes), tuple(lines), tuple(labels), " and ".join(left_out))


ROW = 42
HOST_X = 90


def timeline(found: Explanation) -> Picture | None:
    """The host on the left, each vCPU to its right; an arrow into the guest, an arrow back with what it came for."""
    if not found.switches:
        return None
    lanes = {vcpu.index: HOST_X + 420 + 200 * i for i, vcpu in enumerate(found.vcpus)}
    shown = found.switches[:MAX_ARROWS]
    bottom = 40 + ROW * len(shown)
    labels = [Label(HOST_X, 16, "host", "middle", "head")]
    labels += [Label(x, 16, f"guest, vCPU {index}", "middle", "head") for index, x in lanes.items()]
    lines = [Line(x, 26, x, bottom, "life") for x in (HOST_X, *lanes.values())]
    y = 40
    for switch in shown:
        x = lanes[switch.vcpu]
        lines.append(Line(HOST_X, y, x - 5, y + 3, "in"))
        lines.append(Line(x, y + 22, HOST_X + 5, y + 25, "out"))
        labels.append(Label(HOST_X - 12, y + 16, str(switch.number), "end", "dim"))
        labels.append(Label(HOST_X + 210, y + 17, _words(switch), "middle"))
        labels.append(Label(x + 10, y + 12, f"rip {switch.exit_rip:#x}", "start", "dim"))
        y += ROW
    left = found.switch_count - len(shown)
    width = max(lanes.values()) + 170
    return Picture(
        width, bottom + 10, (), tuple(lines), tuple(labels), plural(left, "switch", "switches") if left else ""
    )


def _words(switch: Switch) -> str:
    if switch.size is None:
        return f"{switch.reason} {switch.detail}".strip()
    where = f"port {switch.port:#x}" if switch.port is not None else f"gpa {switch.gpa:#x}"
    arrow = "<-" if switch.write else "->"
    times = f" x {switch.count}" if switch.count and switch.count > 1 else ""
    return f"{switch.reason}: {where} {arrow} {address(switch.value)}{character(switch.value, switch.size)}{times}"
