"""Putting the same cases to an engine and to an oracle, and saying what differs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from iced_x86 import Decoder, Formatter, FormatterSyntax

from .cases import RF, Case, Outcome, Stop, Stuck, Unsupported, differences
from .forms import Form, forms
from .generate import Generator
from .operands import CannotEncode
from .worlds import STACK, STACK_SIZE, World

SHOWN = 6
"""Discrepancies that a failure spells out."""


class Oracle(Protocol):
    """Whoever answers cases of one world."""

    world: World

    def ask(self, case: Case) -> Outcome:
        """The outcome; raises Unsupported or Stuck."""

    def close(self) -> None:
        """Give everything back."""


Compare = Callable[[Case, Outcome, Outcome], list[str]]


@dataclass
class Exam:
    """How many cases agreed, what differed, and what could not be compared and why."""

    agreed: int = 0
    wrong: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def report(self) -> str:
        """What a failed test shows."""
        more = f"\n... and {len(self.wrong) - SHOWN} more" if len(self.wrong) > SHOWN else ""
        return f"{len(self.wrong)} of {len(self.wrong) + self.agreed} differ\n" + "\n".join(self.wrong[:SHOWN]) + more

    def verdict(self, skip: Callable[[str], None]) -> None:
        """Fail on any difference; call `skip` with the reasons when nothing could be compared."""
        assert not self.wrong, self.report()
        if not self.agreed:
            skip("; ".join(f"{reason} ({count}x)" for reason, count in self.skipped.most_common(3)) or "no cases")


def disassembly(case: Case, bits: int) -> str:
    """The case's first instructions as text."""
    decoder = Decoder(bits, case.code, ip=case.offset or 0)
    formatter = Formatter(FormatterSyntax.INTEL)
    return "; ".join(formatter.format(instruction) for instruction, _ in zip(decoder, range(12), strict=False))


def examine(cases: Iterable[Case], expected_of: Oracle, tested: Oracle, compare: Compare) -> Exam:
    """Ask both about each case. What the oracle cannot answer is skipped; what the tested one cannot is an error."""
    exam = Exam()
    for case in cases:
        try:
            expected = expected_of.ask(case)
        except (Unsupported, Stuck) as reason:
            exam.skipped[str(reason)[:80] if isinstance(reason, Unsupported) else "the oracle ran into its budget"] += 1
            continue
        try:
            found = compare(case, expected, tested.ask(case))
        except (Unsupported, Stuck) as reason:
            found = [f"no answer: {reason}"]
        if found:
            text = disassembly(case, tested.world.bits)
            exam.wrong.append(
                f"{text}  [{case.code.hex()}] {case.note}\n    " + "\n    ".join(found) + f"\n    {case!r}"
            )
        else:
            exam.agreed += 1
    return exam


def form_cases(world: World, chosen: Iterable[Form], each: int, seed: object) -> Iterator[Case]:
    """`each` cases of every form, the same for the same seed."""
    for form in chosen:
        rng = random.Random(f"{seed} {world.name} {form.name}")
        generator = Generator(world, rng)
        for _ in range(each):
            try:
                yield generator.case(form)
            except CannotEncode:
                continue


def by_mnemonic(bits: int) -> dict[str, list[Form]]:
    """The forms of a code size, grouped for one test each."""
    groups: dict[str, list[Form]] = {}
    for form in forms(bits):
        groups.setdefault(form.mnemonic, []).append(form)
    return groups


def like_unicorn(case: Case, expected: Outcome, got: Outcome) -> list[str]:
    """Compare with what Unicorn can tell: no selectors, no error codes, no CR2; at a fault, not even flags."""
    if expected.stop is Stop.FAULT:
        possible = {None: {got.vector}, 14: {12, 13, 14}}.get(expected.vector, {expected.vector})
        good_stack = STACK <= case.registers.get("rsp", STACK) <= STACK + STACK_SIZE and case.mnemonic not in (
            "CALL_FAR",
            "JMP_FAR",
        )
        if got.stop is Stop.SHUTDOWN and not good_stack:
            return []  # a fault on a stack (perhaps a new task's) that cannot take the exception
        if got.stop is not Stop.FAULT or got.vector not in possible:
            return [
                f"expected a fault (vector {expected.vector}), got {got.stop} (vector {got.vector}) at {got.rip:#x}"
            ]
        return []
    return differences(case, expected, got, ignore_flags=RF | 0x3F7202, ignore_cr2=True)
