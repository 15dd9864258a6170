"""What an explanation says, as plain data. Sizes are bytes; an address that leads nowhere is None."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from belljar.records import dataclass
from belljar.x86.state import Registers, SpecialRegisters


@dataclass(frozen=True, slots=True)
class RegionFacts:
    """One piece of guest memory in both address spaces, last addresses included; `allocated` None: the host does not count."""

    name: str
    slot: int
    gpa: int
    gpa_last: int
    hva: int
    hva_last: int
    size: int
    readonly: bool
    allocated: int | None
    obtained: str


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """All guest memory; `size` is the sum over the regions."""

    size: int
    regions: tuple[RegionFacts, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Something in guest memory: code, a page table, a descriptor table, a stack."""

    name: str
    kind: str
    gpa: int
    size: int
    gva: int | None
    hva: int | None
    note: str


@dataclass(frozen=True, slots=True)
class TableFacts:
    """GDTR or IDTR and where it leads; `limit` is the size less one."""

    base_gva: int
    limit: int
    gpa: int | None
    hva: int | None


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """A vCPU at one moment: where it would execute next and where its stack ends, in all three address spaces."""

    pc_gva: int
    pc_gpa: int | None
    pc_hva: int | None
    bits: int
    cpl: int
    paging: str
    stack_gva: int
    stack_gpa: int | None
    stack_hva: int | None
    gdt: TableFacts
    idt: TableFacts
    registers: Registers
    special: SpecialRegisters
    halted: bool


@dataclass(frozen=True, slots=True)
class RegisterWrite:
    """A call of the host that set registers before the start, and the values that decide where and how execution starts."""

    call: str
    values: dict[str, int]


@dataclass(frozen=True, slots=True)
class SharedFacts:
    """A structure in the guest's memory by which it and its hypervisor tell each other things, at the end.

    `hva` is None, and `fields` empty, where the guest has put it where no memory is; pages have no fields either.
    """

    name: str
    gpa: int
    hva: int | None
    fields: dict[str, int]


@dataclass(frozen=True, slots=True)
class VcpuFacts:
    """One vCPU: the page it shares with its engine, its start, its end, its exits by reason, what its guest shares.

    `interrupted` among the exits are the host's own doing (a limit, another vCPU's turn), and no switches of the guest's.
    """

    index: int
    run_page_hva: int
    run_page_size: int
    run_page_what: str
    start: CpuFacts
    register_writes: tuple[RegisterWrite, ...]
    end: CpuFacts
    exits: dict[str, int]
    shared: tuple[SharedFacts, ...]


@dataclass(frozen=True, slots=True)
class TablesOfLevel:
    """The tables of one level; an entry of theirs spans `spans` bytes. `entry_gpas` lead to them (root: 0)."""

    level: str
    spans: int
    gpas: tuple[int, ...]
    hvas: tuple[int | None, ...]
    entry_gpas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RightsRun:
    """Neighbouring pages mapped to neighbouring memory with the same rights."""

    gva: int
    gva_last: int
    gpa: int
    pages: int
    page_size: int | None
    rights: str


@dataclass(frozen=True, slots=True)
class PagingFacts:
    """Page tables in use by `vcpus`, at the `start` or (if other ones) at the `end`; root level first.

    `table_pages` counts different pages. `cut` says why not everything is listed, empty if it is; `bad_entries` counts
    entries that are present but lead nowhere.
    """

    when: str
    vcpus: tuple[int, ...]
    format: str
    title: str
    cr3: int
    root_gpa: int | None
    levels: tuple[TablesOfLevel, ...]
    table_pages: int
    runs: tuple[RightsRun, ...]
    cut: str
    bad_entries: int


@dataclass(frozen=True, slots=True)
class Switch:
    """One stay in the guest: entered at `enter_rip`, left for `reason` with RIP at `exit_rip`.

    Port and memory accesses have `write`, `size`, `count`, `value` and `data` (at most `SHOWN_DATA` bytes of it); `data_hva`
    and `data_offset` say where in the run page port data lay. `detail` says what other exits carry.
    """

    number: int
    vcpu: int
    enter_rip: int
    exit_rip: int
    reason: str
    write: bool | None = None
    port: int | None = None
    gpa: int | None = None
    size: int | None = None
    count: int | None = None
    value: int | None = None
    data: bytes | None = None
    data_offset: int | None = None
    data_hva: int | None = None
    console: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SwitchGroup:
    """How many switches were of one kind: the same vCPU, reason, direction, port or page of memory, and size."""

    vcpu: int
    reason: str
    write: bool | None
    port: int | None
    gpa_page: int | None
    size: int | None
    switches: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ConsoleFacts:
    """What the guest printed: `text` holds the first `shown_bytes` of `bytes`, which came with `exits` exits."""

    text: str
    bytes: int
    shown_bytes: int
    exits: int
    batched_writes: int


@dataclass(frozen=True, slots=True)
class LineFacts:
    """Where an interrupt line leads. `pin` None: to a message. `vcpus` are the indices of those that it reaches now."""

    gsi: int
    sources: tuple[str, ...]
    level: bool
    chip: str
    pin: int | None
    vector: int
    delivery: str
    trigger: str
    masked: bool
    vcpus: tuple[int, ...]
    message_gpa: int | None
    message_data: int | None


@dataclass(frozen=True, slots=True)
class LvtFacts:
    """An entry of a local vector table (SDM 3A figure 11-8); `raw` as it stands."""

    name: str
    vector: int
    delivery: str
    masked: bool
    raw: int


@dataclass(frozen=True, slots=True)
class LapicTimerFacts:
    """A local APIC's timer; `deadline` is IA32_TSC_DEADLINE in that mode, where the engine tells it."""

    mode: str
    initial: int
    current: int
    divisor: int
    deadline: int | None


@dataclass(frozen=True, slots=True)
class LapicFacts:
    """A local APIC; vectors are those whose bits are set, `errors` is the ESR."""

    vcpu: int
    mode: str
    bootstrap: bool
    base_gpa: int
    id: int
    logical_id: int
    software_enabled: bool
    spurious_vector: int
    tpr: int
    ppr: int
    in_service: tuple[int, ...]
    requested: tuple[int, ...]
    level_triggered: tuple[int, ...]
    errors: int
    timer: LapicTimerFacts
    local: tuple[LvtFacts, ...]


@dataclass(frozen=True, slots=True)
class RedirectionFacts:
    """An entry of the IOAPIC's redirection table (82093AA 3.2.4)."""

    pin: int
    vector: int
    delivery: str
    logical: bool
    pending: bool
    active_low: bool
    remote_irr: bool
    trigger: str
    masked: bool
    destination: int
    raw: int


@dataclass(frozen=True, slots=True)
class PicFacts:
    """One 8259 by the numbers of its pins; `base` is the vector of pin 0."""

    name: str
    base: int
    requested: tuple[int, ...]
    in_service: tuple[int, ...]
    masked: tuple[int, ...]
    level_triggered: tuple[int, ...]
    auto_eoi: bool
    special_mask: bool
    initialized: bool


@dataclass(frozen=True, slots=True)
class ChipFacts:
    """All interrupt chips at one moment."""

    lines: tuple[LineFacts, ...]
    lapics: tuple[LapicFacts, ...]
    redirection: tuple[RedirectionFacts, ...]
    pics: tuple[PicFacts, ...]


@dataclass(frozen=True, slots=True)
class InterruptFacts:
    """Interrupt chips before the first instruction and after the last; `chips` says whose they are."""

    chips: str
    start: ChipFacts
    end: ChipFacts


@dataclass(frozen=True, slots=True)
class EndFacts:
    """How the run ended, and what lay at `result_gpa` then (empty: no memory there)."""

    end: str
    message: str
    status: int
    vcpu: int | None
    duration_ns: int
    result_gpa: int
    result_bytes: bytes
    unclaimed_accesses: int

    @property
    def result(self) -> int:
        """The bytes at `result_gpa` as a number."""
        return int.from_bytes(self.result_bytes, "little")


@dataclass(frozen=True, slots=True)
class Explanation:
    """All about one run. `switches` holds the first of `switch_count`; `groups` counts all of them by kind.

    `interrupts` is None without interrupt chips.
    """

    belljar: str
    guest: str
    mode: str
    mode_title: str
    bits: int
    page_size: int | None
    cpl: int
    engine: str
    engine_reason: str
    memory: MemoryFacts
    places: tuple[Place, ...]
    vcpus: tuple[VcpuFacts, ...]
    paging: tuple[PagingFacts, ...]
    enter_call: str
    switches: tuple[Switch, ...]
    switch_count: int
    groups: tuple[SwitchGroup, ...]
    console: ConsoleFacts
    interrupts: InterruptFacts | None
    end: EndFacts

    def as_dict(self) -> dict[str, Any]:
        """It as plain data for JSON; bytes become hexadecimal strings."""
        plain: dict[str, Any] = _plain(asdict(self))
        plain["end"]["result"] = self.end.result
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value
