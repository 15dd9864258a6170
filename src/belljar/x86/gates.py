"""Gates: the entries of an IDT, and call gates (SDM 3A 5.8.3, 6.11, 6.14.1)."""

from __future__ import annotations

from belljar.errors import ConfigurationError
from belljar.records import dataclass
from belljar.x86.descriptors import SystemType

GATE_SIZE = 8
"""The size of a gate outside IA-32e mode (SDM 3A figure 6-2)."""

GATE_SIZE_LONG = 16
"""The size of a gate in IA-32e mode (SDM 3A figure 6-8)."""

IVT_ENTRY_SIZE = 4
"""An entry of the real-mode interrupt vector table: IP, then CS (SDM 3B 21.1.4)."""

VECTORS = 256
"""How many vectors there are (SDM 3A 6.2)."""

_NAMES: dict[int, str] = {
    SystemType.CALL_GATE16: "call gate 16",
    SystemType.TASK_GATE: "task gate",
    SystemType.INTERRUPT_GATE16: "interrupt gate 16",
    SystemType.TRAP_GATE16: "trap gate 16",
    SystemType.CALL_GATE: "call gate",
    SystemType.INTERRUPT_GATE: "interrupt gate",
    SystemType.TRAP_GATE: "trap gate",
}


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate: where it leads (`selector`, `offset`), its `type` (a SystemType that is a gate), DPL, IST (64-bit only).

    `parameters` is a legacy call gate's count of stack words to copy.
    """

    selector: int
    offset: int
    type: int = SystemType.INTERRUPT_GATE
    dpl: int = 0
    present: int = 1
    ist: int = 0
    parameters: int = 0


def encode_gate(gate: Gate, *, long_mode: bool = False) -> bytes:
    """The gate's bytes: 8, or 16 with `long_mode`. Raises ConfigurationError for an offset that its kind cannot hold."""
    bits = 64 if long_mode else 32 if gate.type & 8 else 16
    if not 0 <= gate.offset < 1 << bits:
        raise ConfigurationError(f"offset {gate.offset:#x} does not fit a {bits}-bit gate")
    middle = gate.ist & 7 if long_mode else gate.parameters & 31
    raw = gate.offset & 0xFFFF | gate.selector << 16 | middle << 32
    raw |= (gate.type | gate.dpl << 5 | gate.present << 7) << 40 | (gate.offset >> 16) << 48
    return raw.to_bytes(GATE_SIZE_LONG if long_mode else GATE_SIZE, "little")


def decode_gate(raw: bytes) -> Gate:
    """The fields of a gate of 8 bytes, or of 16 from IA-32e mode. Raises ConfigurationError for another length."""
    if len(raw) not in (GATE_SIZE, GATE_SIZE_LONG):
        raise ConfigurationError(f"a gate has 8 or 16 bytes, not {len(raw)}")
    long_mode = len(raw) == GATE_SIZE_LONG
    value = int.from_bytes(raw, "little")
    kind = value >> 40 & 0xF
    high_bits = 48 if long_mode else 16 if kind & 8 else 0
    offset = value & 0xFFFF | (value >> 48 & (1 << high_bits) - 1) << 16
    middle = value >> 32 & 0xFF
    return Gate(
        selector=value >> 16 & 0xFFFF,
        offset=offset,
        type=kind,
        dpl=value >> 45 & 3,
        present=value >> 47 & 1,
        ist=middle & 7 if long_mode else 0,
        parameters=0 if long_mode else middle & 31,
    )


def describe_gate(gate: Gate) -> str:
    """A gate in one line for people: `interrupt gate -> 0x8:0x1000 dpl 0`."""
    name = _NAMES.get(gate.type, f"type {gate.type}")
    text = f"{name} -> {gate.selector:#x}:{gate.offset:#x} dpl {gate.dpl}"
    if gate.ist:
        text += f" ist {gate.ist}"
    return text if gate.present else text + " not-present"
