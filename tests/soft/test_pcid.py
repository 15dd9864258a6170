"""Process-context identifiers: what the TLB may keep over MOV to CR3, and what it must forget (SDM 3A 4.10.4)."""

from __future__ import annotations

import random
import struct

import pytest
from bare_guest import RAX, RBX, RCX, RDX, RIP, LongGuest

PCIDE, PGE, PAE, KEEP = 1 << 17, 1 << 7, 1 << 5, 1 << 63
WP = 1 << 16
GLOBAL, PRESENT, WRITABLE = 1 << 8, 1, 2
TABLES, SPACE_SIZE = 0x110000, 0x4000
FRAMES, PAGE = 0x180000, 0x1000
SPACES = 12
"""More than the TLB has banks."""

WINDOW_GVA = 1 << 30
"""Where each address space has pages of its own: one table of 512."""

TRY_GVA = WINDOW_GVA + 5 * PAGE
DESCRIPTOR = 0xD000


class Spaces:
    """A 64-bit guest with several address spaces, alike below 2 MiB. Frame n is full of n."""

    def __init__(self, count: int = SPACES) -> None:
        self.guest = LongGuest(cr4=PAE | PCIDE | PGE)
        self.spaces = range(count)
        for space in self.spaces:
            pml4 = self.root(space)
            for gpa, entry in (
                (pml4, pml4 + PAGE + 7), (pml4 + PAGE, 0x102007), (pml4 + PAGE + 8, pml4 + 2 * PAGE + 7),
                (pml4 + 2 * PAGE, pml4 + 3 * PAGE + 7),
            ):  # fmt: skip
                self.guest.write(gpa, struct.pack("<Q", entry))
        for number in range(16):
            self.guest.write(FRAMES + PAGE * number, bytes([number]) * PAGE)

    def root(self, space: int) -> int:
        """Its PML4."""
        return TABLES + SPACE_SIZE * space

    def map(self, space: int, frame: int, *, gva: int = TRY_GVA, flags: int = 0, writable: bool = True) -> None:
        """Write an entry; nothing is flushed."""
        flags |= PRESENT | (WRITABLE if writable else 0)
        entry = self.root(space) + 3 * PAGE + (gva >> 12 & 511) * 8
        self.guest.memory[entry : entry + 8] = struct.pack("<Q", FRAMES + PAGE * frame | flags)

    def use_table_of(self, space: int) -> None:
        """Have the directory of space 0 lead to another's table; nothing is flushed."""
        entry = self.root(0) + 2 * PAGE
        self.guest.memory[entry : entry + 8] = struct.pack("<Q", self.root(space) + 3 * PAGE + 7)

    def switch(self, space: int, *, keep: bool = True) -> None:
        """MOV to CR3, the space's number its PCID."""
        self.guest.cpu.put(RCX, self.root(space) | space | (KEEP if keep else 0))
        assert self.guest.run("0f22d9 mov cr3, rcx\nf4 hlt").vector is None

    def seen(self, gva: int = TRY_GVA) -> int:
        """What is there, as the present space sees it."""
        self.guest.cpu.put(RBX, gva)
        return self.guest.run("8a03 mov al, [rbx]\nf4 hlt").registers[RAX] & 0xFF

    def ran(self, gva: int = TRY_GVA) -> int:
        """What code of `put_code` says that runs there."""
        self.guest.cpu.put(RIP, gva)
        return self.guest.resume().registers[RAX] & 0xFF

    def put_code(self) -> None:
        """Have frame n begin with code that says n."""
        for number in range(16):
            self.guest.write(FRAMES + PAGE * number, bytes([0xB0, number, 0xF4]))  # mov al, number; hlt

    def invlpg(self, gva: int = TRY_GVA) -> None:
        """INVLPG."""
        self.guest.cpu.put(RBX, gva)
        self.guest.run("0f013b invlpg [rbx]\nf4 hlt")

    def invpcid(self, kind: int, pcid: int = 0, gva: int = TRY_GVA) -> None:
        """INVPCID."""
        self.guest.write(DESCRIPTOR, struct.pack("<QQ", pcid, gva))
        self.guest.cpu.put(RDX, kind)
        self.guest.cpu.put(RBX, DESCRIPTOR)
        assert self.guest.run("660f388213 invpcid rdx, [rbx]\nf4 hlt").vector is None

    def __enter__(self) -> Spaces:
        return self

    def __exit__(self, *_: object) -> None:
        self.guest.__exit__()


def test_each_space_sees_its_own_page_however_often_it_comes_back():
    with Spaces() as spaces:
        for space in spaces.spaces:
            spaces.map(space, space)
        for turn in range(3):
            for space in spaces.spaces:
                spaces.switch(space, keep=turn > 0)
                assert spaces.seen() == space


@pytest.mark.parametrize("how", ["switch", "invlpg", "address", "context", "everything", "all but global", "cr4"])
def test_a_changed_entry_is_seen_after_what_must_flush_it(how):
    with Spaces(3) as spaces:
        for space in spaces.spaces:
            spaces.map(space, space)
            spaces.switch(space, keep=False)
            assert spaces.seen() == space
        spaces.map(1, 9)
        if how == "invlpg":
            spaces.switch(1)
            spaces.invlpg()
        elif how == "address":
            spaces.invpcid(0, 1)
        elif how == "context":
            spaces.invpcid(1, 1)
        elif how == "everything":
            spaces.invpcid(2)
        elif how == "all but global":
            spaces.invpcid(3)
        elif how == "cr4":
            for value in (PAE | PCIDE, PAE | PCIDE | PGE):
                spaces.guest.cpu.put(RAX, value)
                spaces.guest.run("0f22e0 mov cr4, rax\nf4 hlt")
        spaces.switch(1, keep=how != "switch")
        assert spaces.seen() == 9
        spaces.switch(2)
        assert spaces.seen() == 2


def test_invlpg_forgets_global_pages_of_every_pcid():
    with Spaces(3) as spaces:
        for space in spaces.spaces:
            spaces.map(space, 4, flags=GLOBAL)
            spaces.switch(space, keep=False)
            assert spaces.seen() == 4
        for space in spaces.spaces:
            spaces.map(space, 5, flags=GLOBAL)
        spaces.invlpg()
        for space in spaces.spaces:
            spaces.switch(space)
            assert spaces.seen() == 5


def test_code_at_the_same_address_is_each_spaces_own():
    with Spaces(3) as spaces:
        spaces.put_code()
        for space in spaces.spaces:
            spaces.map(space, space)
        for turn in range(3):
            for space in spaces.spaces:
                spaces.switch(space, keep=turn > 0)
                assert spaces.ran() == space


@pytest.mark.parametrize("between", [0, 1, 256])
def test_code_whose_page_moves_is_found_where_it_is_after_invlpg(between):
    """Whatever ran since it did: as the 256th page on it takes the TLB's place from it."""
    with Spaces(1) as spaces:
        spaces.put_code()
        spaces.map(0, 1)
        spaces.map(0, 2, gva=TRY_GVA + between * PAGE)
        spaces.map(0, 1)
        spaces.switch(0, keep=False)
        assert spaces.ran() == 1
        assert spaces.ran(TRY_GVA + between * PAGE) == (2 if between else 1)
        spaces.map(0, 3)
        spaces.invlpg()
        assert spaces.ran() == 3


def test_code_that_a_device_wrote_is_seen_by_the_space_that_comes_back():
    with Spaces(2) as spaces:
        spaces.put_code()
        spaces.map(0, 0)
        spaces.switch(0, keep=False)
        assert spaces.ran() == 0
        spaces.switch(1, keep=False)
        spaces.guest.memory[FRAMES + 1] = 9
        spaces.guest.host.host_changed()
        spaces.guest.cpu.put(RCX, spaces.root(0) | KEEP)
        spaces.guest.cpu.put(RBX, TRY_GVA)
        assert spaces.guest.run("0f22d9 mov cr3, rcx\nffe3 jmp rbx").registers[RAX] & 0xFF == 9


def test_write_protection_holds_from_when_it_is_switched_on():
    """Though a store was made through the same translation before."""
    with Spaces(1) as spaces:
        guest = spaces.guest
        spaces.map(0, 1, writable=False)
        spaces.switch(0, keep=False)
        cr0 = guest.cpu.get_control()[0]
        for value, vector in ((cr0 & ~WP, None), (cr0 | WP, 14), (cr0 & ~WP, None), (cr0 | WP, 14)):
            guest.cpu.put(RAX, value)
            guest.cpu.put(RBX, TRY_GVA)
            assert guest.run("0f22c0 mov cr0, rax\nc60355 mov byte [rbx], 0x55\nf4 hlt").vector == vector
        assert spaces.seen() == 0x55


OTHER_GVA = TRY_GVA + PAGE


def test_a_page_that_another_table_has_is_found_though_nothing_was_flushed():
    """An entry that faulted may be made better without INVLPG (SDM 3A 4.10.4.3), and those above it as well."""
    with Spaces(2) as spaces:
        spaces.map(0, 1)
        spaces.map(1, 2, gva=OTHER_GVA)
        spaces.switch(0, keep=False)
        assert spaces.seen() == 1
        spaces.use_table_of(1)
        assert spaces.seen(OTHER_GVA) == 2


def test_invlpg_of_any_page_forgets_which_tables_there_are():
    with Spaces(2) as spaces:
        spaces.map(0, 1)
        spaces.map(0, 2, gva=OTHER_GVA)
        spaces.map(1, 3, gva=OTHER_GVA)
        spaces.switch(0, keep=False)
        assert spaces.seen() == 1
        spaces.use_table_of(1)
        spaces.invlpg(0)
        assert spaces.seen(OTHER_GVA) == 3


def test_a_store_through_a_kept_translation_reaches_code_decoded_meanwhile():
    with Spaces(2) as spaces:
        for space in spaces.spaces:
            spaces.map(space, 3)
        spaces.guest.write(FRAMES + 3 * PAGE, bytes([0xB0, 0x11, 0xF4]))
        spaces.switch(1, keep=False)
        store = "c6430122 mov byte [rbx+1], 0x22\nf4 hlt"
        spaces.guest.cpu.put(RBX, TRY_GVA + 0x100)
        spaces.guest.run(store)  # a write entry for the page, before code is decoded from it
        spaces.switch(0, keep=False)
        spaces.guest.cpu.put(RIP, TRY_GVA)
        assert spaces.guest.resume().registers[RAX] & 0xFF == 0x11
        spaces.switch(1)
        spaces.guest.cpu.put(RBX, TRY_GVA)
        spaces.guest.run(store)
        spaces.switch(0)
        spaces.guest.cpu.put(RIP, TRY_GVA)
        assert spaces.guest.resume().registers[RAX] & 0xFF == 0x22


@pytest.mark.parametrize("fetch", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_random_switches_and_flushes_leave_nothing_stale(seed, fetch):
    """Entries change and are flushed at once, by what is least but enough; every page then shows, or runs, what is mapped."""
    rng = random.Random(seed)
    pages = [WINDOW_GVA + PAGE * number for number in (0, 1, 5, 257, 300)]
    with Spaces() as spaces:
        mapped = {}
        if fetch:
            spaces.put_code()
        for space in spaces.spaces:
            for gva in pages:
                mapped[space, gva] = rng.randrange(16)
                spaces.map(space, mapped[space, gva], gva=gva)
        now = 0
        spaces.switch(0, keep=False)
        for _ in range(120):
            if rng.random() < 0.5:
                now = rng.randrange(SPACES)
                spaces.switch(now, keep=rng.random() < 0.8)
            else:
                space, gva = rng.choice((now, rng.randrange(SPACES))), rng.choice(pages)
                mapped[space, gva] = rng.randrange(16)
                spaces.map(space, mapped[space, gva], gva=gva)
                if space == now and rng.random() < 0.3:
                    spaces.invlpg(gva)
                else:
                    spaces.invpcid(rng.choice((0, 0, 0, 1, 2, 3)), space, gva)
            for gva in rng.sample(pages, 2):
                assert (spaces.ran(gva) if fetch else spaces.seen(gva)) == mapped[now, gva]


@pytest.mark.parametrize("flush", ["invlpg", "switch", "switch to another"])
def test_a_store_to_a_page_with_code_goes_where_the_page_is_mapped_now(flush):
    with Spaces(2) as spaces:
        spaces.map(0, 3)
        spaces.map(1, 8)
        spaces.guest.write(FRAMES + 3 * PAGE, b"\xf4")
        spaces.switch(0, keep=False)
        spaces.guest.cpu.put(RIP, TRY_GVA)
        spaces.guest.resume()  # code is decoded from the page
        store = "c6430122 mov byte [rbx+1], 0x22\nf4 hlt"
        spaces.guest.cpu.put(RBX, TRY_GVA)
        spaces.guest.run(store)
        assert spaces.guest.read(FRAMES + 3 * PAGE + 1, 1) == 0x22
        spaces.map(0, 7)
        frame = 7
        if flush == "invlpg":
            spaces.invlpg()
        else:
            spaces.switch(int(flush != "switch"), keep=False)
            frame = 7 if flush == "switch" else 8
        spaces.guest.write(FRAMES + 3 * PAGE + 1, b"\x33")
        spaces.guest.cpu.put(RBX, TRY_GVA)
        spaces.guest.run(store)
        assert spaces.guest.read(FRAMES + frame * PAGE + 1, 1) == 0x22
        assert spaces.guest.read(FRAMES + 3 * PAGE + 1, 1) == 0x33
