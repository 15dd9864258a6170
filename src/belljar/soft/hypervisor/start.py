"""What a start state has to give up where the processor lacks a feature, and modes that cannot start without one."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from belljar.errors import ModeUnsupported
from belljar.soft.hypervisor.controls import PHYSICAL_BITS
from belljar.soft.processor._core import Processor
from belljar.soft.processor.features import Feature
from belljar.x86.control import Cr4, Efer
from belljar.x86.paging import SIZE_1G
from belljar.x86.state import SpecialRegisters
from belljar.x86.walker import walk

DISPENSABLE_CR4 = int(Cr4.OSFXSR | Cr4.OSXMMEXCPT)
DISPENSABLE_EFER = int(Efer.SCE | Efer.NXE)
"""Start states set them for the guest's comfort and do without them: SSE, SYSCALL, no-execute pages."""

CR4_NEEDS = ((Feature.LA57, Cr4.LA57), (Feature.PAE, Cr4.PAE), (Feature.PSE, Cr4.PSE))
"""Features that a start state cannot do without, and the bit by which it says so."""


def start_special(processor: Processor, special: SpecialRegisters, mode: str) -> SpecialRegisters:
    """The special registers to start with in `mode`. Raises ModeUnsupported if it needs a feature that is switched off."""
    cr4, efer = processor.allowed_controls
    if not special.cr4 & ~cr4 and not special.efer & ~efer:
        return special
    if special.efer & Efer.LME and not processor.has(Feature.LM):
        raise _switched_off(mode, Feature.LM)
    for feature, bit in CR4_NEEDS:
        if special.cr4 & bit and not processor.has(feature):
            raise _switched_off(mode, feature)
    special = copy(special)
    special.cr4 &= cr4 | ~DISPENSABLE_CR4
    special.efer &= efer | ~DISPENSABLE_EFER
    return special


def check_pages(
    processor: Processor, special: SpecialRegisters, pc_gva: int, mode: str, read: Callable[[int, int], bytes]
) -> None:
    """Raise ModeUnsupported if the page that the guest starts on is of a size that was switched off."""
    if not special.efer & Efer.LMA or processor.has(Feature.PAGE1G):
        return
    if walk(special, pc_gva, read, physical_bits=PHYSICAL_BITS).page_size == SIZE_1G:
        raise _switched_off(mode, Feature.PAGE1G)


def _switched_off(mode: str, feature: Feature) -> ModeUnsupported:
    return ModeUnsupported(mode, f"it needs the feature {feature.label}, which is switched off")
