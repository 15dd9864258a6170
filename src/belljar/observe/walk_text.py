"""Walks for people and for programs."""

from __future__ import annotations

from typing import Any

from belljar.observe.walk import AddressWalk, WalkStep
from belljar.x86.paging import size_name


def walk_lines(found: AddressWalk, exits_before: int = 0) -> list[str]:
    """The walk as lines of plain text, gva first, hva last."""
    walk = found.walk
    when = f"after {exits_before} exit{'s' * (exits_before != 1)}" if exits_before else "before the first instruction"
    lines = [f"gva {found.gva:#x} on vCPU {found.vcpu}, {when}: {walk.paging.title}"]
    if walk.paging.levels:
        lines.append(f"  CR3 = {found.cr3:#x}")
    lines += [_step_line(step) for step in found.steps]
    if walk.ok and walk.gpa is not None:
        page = f", in a {size_name(walk.page_size)} page, {walk.rights}" if walk.page_size else ", as it stands"
        lines.append(f"gpa {walk.gpa:#x}{page}")
        if found.hva is not None:
            lines.append(f"hva {found.hva:#x} in region {found.region}")
        else:
            lines.append("hva none: no memory there; an access leaves with an MMIO exit")
    else:
        lines.append(f"not mapped: {walk.why}")
    return [*lines, engine_line(found)]


def engine_line(found: AddressWalk) -> str:
    """What the engine itself says, and whether that is the same."""
    call = "KVM_TRANSLATE" if found.engine == "kvm" else f"engine {found.engine}"
    answer = "not mapped" if found.engine_gpa is None else f"gpa {found.engine_gpa:#x}"
    verdict = {True: "which agrees", False: "WHICH DOES NOT AGREE", None: "which does not look at the upper bits"}
    return f"{call}: {answer}, {verdict[found.agrees]}"


def _step_line(item: WalkStep) -> str:
    step = item.step
    where = f"gpa {step.entry_gpa:#x}" + (f" hva {item.entry_hva:#x}" if item.entry_hva is not None else "")
    text = f"  {step.level:<4} [{step.index:#5x}] {where}"
    if step.raw is None:
        return f"{text}: not in guest memory"
    bits = " ".join(step.bits) or "not present"
    text += f" = {step.raw:#0{2 + 2 * step.entry_size}x}  {bits}"
    if step.reserved:
        return f"{text}  reserved bits {step.reserved:#x}"
    if step.next_gpa is None:
        return text
    what = f"{size_name(step.page_size)} page" if step.page_size else "table"
    return f"{text} -> {what} {step.next_gpa:#x}"


def walk_dict(found: AddressWalk) -> dict[str, Any]:
    """The walk as plain data for JSON; addresses are integers."""
    walk = found.walk
    return {
        "vcpu": found.vcpu,
        "gva": found.gva,
        "paging": walk.paging.name,
        "cr3": found.cr3,
        "steps": [step_dict(step) for step in found.steps],
        "mapped": walk.ok,
        "gpa": walk.gpa,
        "hva": found.hva,
        "page_size": walk.page_size,
        "rights": None if walk.rights is None else str(walk.rights),
        "why_not": walk.why or None,
        "engine": found.engine,
        "engine_gpa": found.engine_gpa,
        "agrees": found.agrees,
    }


def step_dict(item: WalkStep) -> dict[str, Any]:
    """One step as plain data."""
    step = item.step
    return {
        "level": step.level,
        "entry": step.entry_name,
        "table_gpa": step.table_gpa,
        "index": step.index,
        "entry_gpa": step.entry_gpa,
        "entry_hva": item.entry_hva,
        "entry_size": step.entry_size,
        "raw": step.raw,
        "bits": list(step.bits),
        "next_gpa": step.next_gpa,
        "page_size": step.page_size,
        "reserved": step.reserved,
    }
