"""Control registers that select each paging format."""

from __future__ import annotations

from belljar.x86.control import Cr0, Cr4, Efer
from belljar.x86.paging import PAGING_4LEVEL, PAGING_5LEVEL, PAGING_32BIT, PAGING_PAE, PagingFormat
from belljar.x86.state import SpecialRegisters

_CR4 = {
    PAGING_32BIT.name: Cr4.PSE,
    PAGING_PAE.name: Cr4.PAE,
    PAGING_4LEVEL.name: Cr4.PAE,
    PAGING_5LEVEL.name: Cr4.PAE | Cr4.LA57,
}


def paged(paging: PagingFormat, root_gpa: int, *, nxe: bool = True, cr4: int = 0) -> SpecialRegisters:
    """CR0.PG with what `paging` needs; `cr4` is added."""
    long_mode = paging in (PAGING_4LEVEL, PAGING_5LEVEL)
    efer = (Efer.LME | Efer.LMA if long_mode else 0) | (Efer.NXE if nxe else 0)
    return SpecialRegisters(
        cr0=int(Cr0.PE | Cr0.PG | Cr0.WP), cr3=root_gpa, cr4=int(_CR4[paging.name] | cr4), efer=int(efer)
    )
