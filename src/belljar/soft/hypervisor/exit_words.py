"""VM exits in words: the reason's name, and what its qualification says (SDM 3C 28.2.1, 28.2.4)."""

from __future__ import annotations

from belljar.soft.hypervisor.events import VALID
from belljar.soft.hypervisor.reasons import Reason
from belljar.soft.processor._core import Processor
from belljar.soft.processor.fields import Field
from belljar.x86.state import GENERAL_REGISTERS

REASONS = {int(reason): reason.name for reason in Reason}

SIZE_LESS_ONE, IS_IN, IS_STRING, IS_REPEATED, PORT_SHIFT = 7, 1 << 3, 1 << 4, 1 << 5, 16
"""SDM 3C table 28-5."""

EPT_ACCESSES = ((1, "read"), (2, "write"), (4, "fetch"))
"""SDM 3C table 28-7."""

CR_ACCESSES = ("mov to", "mov from", "clts", "lmsw")
"""SDM 3C table 28-3."""

TASK_SWITCHES = ("call", "iret", "jmp", "task gate in the IDT")
"""SDM 3C table 28-2."""

VECTOR = 0xFF


def exit_words(processor: Processor, reason: int) -> tuple[str, str]:
    """The name of a basic exit reason and the details of the exit that just happened, as one string, empty if none."""
    read = processor.vmread
    qualification = read(Field.EXIT_QUALIFICATION)
    details = []
    if reason == Reason.IO:
        details = [f"qualification={qualification:#x}", _port(qualification)]
    elif reason in (Reason.EPT_VIOLATION, Reason.EPT_MISCONFIG):
        details = [f"qualification={qualification:#x}", f"gpa={read(Field.GUEST_PHYSICAL_ADDRESS):#x}"]
        details.append("+".join(name for bit, name in EPT_ACCESSES if qualification & bit))
    elif reason == Reason.CR_ACCESS:
        details = [f"qualification={qualification:#x}", _control_register(qualification)]
    elif reason == Reason.TASK_SWITCH:
        details = [f"qualification={qualification:#x}", f"by {TASK_SWITCHES[qualification >> 30 & 3]}"]
    elif reason == Reason.EXCEPTION_OR_NMI:
        details = [f"qualification={qualification:#x}", f"vector={read(Field.EXIT_INTERRUPTION_INFO) & VECTOR:#x}"]
    elif qualification:
        details = [f"qualification={qualification:#x}"]
    vectoring = read(Field.IDT_VECTORING_INFO)
    if vectoring & VALID:
        details.append(f"while-delivering={vectoring & VECTOR:#x}")
    return REASONS.get(reason, f"reason {reason}"), " ".join(detail for detail in details if detail)


def _port(qualification: int) -> str:
    name = "in" if qualification & IS_IN else "out"
    if qualification & IS_STRING:
        name = ("rep " if qualification & IS_REPEATED else "") + name + "s"
    return f"{name} port={qualification >> PORT_SHIFT & 0xFFFF:#x} size={(qualification & SIZE_LESS_ONE) + 1}"


def _control_register(qualification: int) -> str:
    access = qualification >> 4 & 3
    text = f"{CR_ACCESSES[access]} cr{qualification & 15}"
    return text + (f" {GENERAL_REGISTERS[qualification >> 8 & 15]}" if access < 2 else "")
