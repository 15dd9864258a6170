"""Multiboot headers: what is loaded where, and one clear line for every header that cannot be followed."""

from __future__ import annotations

import struct
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from elf_files import Elf, Program
from multiboot_files import ADDRESSES, BASE, END, MAGIC1, MAGIC2, Flat1, Flat2, tag

from belljar.boot import Image, load_bytes
from belljar.errors import BelljarError, ConfigurationError, LoadError
from belljar.machine import Machine
from belljar.memory import GuestMemory

M = 1 << 20
HEADER1 = struct.pack("<3I", MAGIC1, 0, -MAGIC1 & 0xFFFFFFFF)
HEADER2 = struct.pack("<4I", MAGIC2, 0, 24, -(MAGIC2 + 24) & 0xFFFFFFFF) + END


def load(data: bytes, **options: object) -> Image:
    return load_bytes(data, "kernel", **({"memory_size": 16 * M} | options))


def elf(header: bytes, bits: int = 32, **changes: object) -> bytes:
    """An ELF file whose only segment begins with the header, which is aligned in the file too."""
    lead = {32: 84, 64: 120}[bits]
    program = Program(BASE, bytes(-lead % 8) + header + b"\xf4" * 32, memsz=4096)
    return Elf([program], bits, entry=BASE + 48, **changes).pack()


def kernel_parts(image: Image) -> list[tuple[int, int]]:
    return [(part.gpa, part.memory_size) for part in image.segments if not part.name]


# -- what is sound -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("header", "name"), [(HEADER1, "multiboot1"), (HEADER2, "multiboot2")])
def test_elf_with_a_header_is_multiboot_unless_a_format_is_forced(bits, header, name):
    image = load(elf(header, bits))
    assert (image.format, image.bits, image.mode, image.strict) == (name, 32, "protected", True)
    assert image.entry_gva == BASE + 48
    assert kernel_parts(image) == [(BASE, 4096)]
    plain = load(elf(header, bits), format="elf")
    assert (plain.format, plain.strict, dict(plain.registers)) == ("elf", False, {})


def test_multiboot_2_comes_first_and_1_can_be_forced():
    both = elf(HEADER2 + HEADER1)
    assert load(both).format == "multiboot2"
    assert load(both, format="multiboot1").format == "multiboot1"


def test_plain_files_stay_plain():
    assert load(elf(b"")).format == "elf"
    assert load(b"\xf4" * 64).format == "raw"


def test_code_that_looks_for_the_magic_number_is_no_header():
    code = b"\x90\x90\x90\x3d" + MAGIC1.to_bytes(4, "little") + b"\x0f\x84\x00\x01\x00\x00\xeb\xfe"
    assert load(code).format == "raw"
    code = b"\x90" * 7 + b"\x3d" + MAGIC2.to_bytes(4, "little") + b"\x0f\x84\x00\x01\x00\x00\xeb\xfe" * 4
    assert load(code).format == "raw"


@pytest.mark.parametrize("offset", [0, 4, 8160])
def test_header_1_is_found_on_every_multiple_of_four(offset):
    image = load(Flat1(before=b"\x90" * offset).pack())
    assert image.format == "multiboot1"
    assert kernel_parts(image) == [(BASE, offset + 48)]
    assert image.entry_gva == BASE + offset + 32


@pytest.mark.parametrize("offset", [1, 2, 3, 8192])
def test_header_1_elsewhere_is_none(offset):
    assert load(Flat1(before=b"\x90" * offset).pack()).format == "raw"


@pytest.mark.parametrize(
    ("offset", "name"), [(8, "multiboot2"), (32704, "multiboot2"), (32712, "cut"), (4, "raw"), (32768, "raw")]
)
def test_header_2_is_found_on_multiples_of_eight(offset, name):
    tags = [tag(2, BASE + offset, BASE, 0, 0), tag(3, BASE)]
    data = Flat2(tags, before=b"\x90" * offset).pack()
    if name == "cut":
        with pytest.raises(LoadError, match="does not fit the first 32768 bytes"):
            load(data)
        return
    assert load(data).format == name


def test_first_header_with_a_right_checksum_counts():
    decoy = struct.pack("<3I", MAGIC1, ADDRESSES, 12345)
    image = load(Flat1(before=decoy).pack())
    assert (image.format, image.entry_gva) == ("multiboot1", BASE + 12 + 32)


def test_addresses_place_data_and_bss():
    image = load(
        Flat1(before=b"skipped!", load=BASE + 8, header=BASE + 8, load_end=BASE + 48, bss_end=BASE + 4096).pack()
    )
    part = next(part for part in image.segments if not part.name)
    assert (part.gpa, len(part.data), part.memory_size) == (BASE + 8, 40, 4088)
    assert part.data[:4] == MAGIC1.to_bytes(4, "little")


def test_optional_flags_of_header_1_are_ignored():
    assert load(Flat1(flags=0xFFFF_0003).pack()).format == "multiboot1"


def test_load_address_minus_one_means_the_whole_file():
    tags = [tag(2, BASE + 8, 0xFFFFFFFF, 0, 0), tag(3, BASE + 0x100)]
    assert kernel_parts(load(Flat2(tags, before=b"\x90" * 8).pack())) == [(BASE, 0x200)]


def test_entry_tag_goes_before_the_entry_of_an_elf_file():
    tags = tag(3, BASE + 50)
    length = 16 + len(tags) + 8
    header = struct.pack("<4I", MAGIC2, 0, length, -(MAGIC2 + length) & 0xFFFFFFFF) + tags + END
    assert load(elf(header)).entry_gva == BASE + 50


def test_user_may_choose_the_entry():
    assert load(Flat1().pack(), entry_gva=BASE + 40).entry_gva == BASE + 40
    with pytest.raises(LoadError, match="the entry 0x5 lies outside"):
        load(Flat1().pack(), entry_gva=5)


def test_relocatable_tag_moves_what_cannot_stay():
    place = [tag(2, BASE, BASE, 0, 0), tag(3, BASE + 0x100)]
    stays = load(Flat2([*place, tag(10, 0, 0xFFFFFFFF, 4096, 0)]).pack())
    assert (kernel_parts(stays), stays.entry_gva) == ([(BASE, 0x200)], BASE + 0x100)
    moved = load(Flat2([*place, tag(10, 3 * M, 4 * M, 0x10000, 0)]).pack())
    assert (kernel_parts(moved), moved.entry_gva) == ([(3 * M, 0x200)], 3 * M + 0x100)
    lowest = load(Flat2([*place, tag(10, 0, 4 * M, 0, 1)]).pack())
    assert kernel_parts(lowest) == [(0x1000, 0x200)]
    highest = load(Flat2([*place, tag(10, 0, 0xFFFFFFFF, 0x1000, 2)]).pack())
    assert kernel_parts(highest) == [(16 * M - 0x11000, 0x200)]
    chosen = load(Flat2([*place, tag(10, 0, 0xFFFFFFFF, 0x1000, 2)]).pack(), load_gpa=5 * M, entry_gva=5 * M + 8)
    assert (kernel_parts(chosen), chosen.entry_gva) == ([(5 * M, 0x200)], 5 * M + 8)
    for bad in (5 * M + 1, 1 << 33):
        with pytest.raises(ConfigurationError, match="may be loaded between"):
            load(Flat2([*place, tag(10, 0, 0xFFFFFFFF, 0x1000, 2)]).pack(), load_gpa=bad)


def test_kernel_in_the_way_of_the_information_and_modules_around_holes(tmp_path):
    # One segment where the information would go, one at the end of what is free behind the other.
    programs = [Program(0x8000, HEADER1 + b"\xf4" * 64, memsz=0x10000), Program(0xF0_0000 - 0x2000, b"x", memsz=0x2000)]
    data = Elf(programs, 32, entry=0x8010).pack()
    assert load(data).format == "multiboot1"
    module = tmp_path / "module"
    module.write_bytes(b"m" * (2 * M))
    image = load(data, modules=[(module, "")])
    parts = {part.name: part for part in image.segments if part.name}
    assert parts["multiboot information"].gpa == 0x1_8000
    assert parts[f"module {module}"].gpa == M  # 2 MiB do not fit behind the kernel in 16
    assert image.registers["rbx"] == 0x1_8000


# -- what is not ---------------------------------------------------------------------------------------------------

PLACE = [tag(2, BASE, BASE, 0, 0), tag(3, BASE + 0x100)]
BIG = 0xFFFF_F000
BAD = {
    "1 checksum": (Flat1(checksum=7), r"at offset 0x0 has the checksum 0x7, which should be 0xe4514ffe"),
    "1 video": (Flat1(flags=ADDRESSES | 4), "requires a video mode"),
    "1 unknown requirement": (Flat1(flags=ADDRESSES | 0x4008), "does not know, flags 0x4008"),
    "1 neither ELF nor addresses": (Flat1(flags=0), "no load addresses, which only an ELF file"),
    "1 load above header": (Flat1(load=BASE + 4, header=BASE), r"load_addr 0x100004 is above its header_addr 0x100000"),
    "1 load before the file": (Flat1(header=BASE + 64), "starts 0x40 bytes before it, which is before the file"),
    "1 load end below load": (Flat1(load_end=BASE - 1), "load_end_addr 0xfffff is below its load_addr"),
    "1 load end at load": (Flat1(load_end=BASE), "lies outside of what is loaded"),
    "1 load end past the file": (Flat1(load_end=BASE + 0x1000), "load 0x1000 bytes from offset 0x0, the file ends at"),
    "1 bss below the data": (Flat1(bss_end=BASE + 8), "bss_end_addr 0x100008 is below the end of its data 0x100030"),
    "1 wraps": (Flat1(load=0xFFFF_FFF0, load_end=0), "wrap past the end of 32-bit"),
    "1 entry outside": (Flat1(entry=BASE + 48), r"entry_addr 0x100030 lies outside of what is loaded, 0x100000\.\.0x10002f"),
    "1 entry 0": (Flat1(entry=0), "entry_addr 0x0 lies outside"),
    "1 above memory's 4 GiB": (Flat1(load=BIG, bss_end=0xFFFF_FFFF, entry=BIG + 32), None),
    "1 cut": (Flat1(code=b"").pack()[:28], "ends at 0x20, after the file"),
    "1 over the limit": (Flat1(before=b"\x90" * 8168), "ends at 0x2008, after the first 8192 bytes"),
    "2 checksum": (Flat2(checksum=1), "has the checksum 0x1, which should be"),
    "2 MIPS": (Flat2(architecture=4), "is for MIPS"),
    "2 architecture": (Flat2(architecture=77), "unknown architecture 77"),
    "2 no length": (Flat2(length=0), "length 0x0, which does not fit the file"),
    "2 short length": (Flat2(length=16), "no end tag before its end at 0x10"),
    "2 long length": (Flat2(length=0x8000), "length 0x8000, which does not fit the file"),
    "2 huge length": (Flat2(length=0xFFFF_FFFF), "length 0xffffffff, which does not fit the file"),
    "2 past 32 KiB": (Flat2(before=b"\x90" * 32744, size=40000), "does not fit the first 32768 bytes"),
    "2 no end tag": (Flat2(end=b""), "no end tag"),
    "2 tag of no size": (Flat2([tag(1, size=0)]), "tag of type 1 at offset 0x10 has the size 0x0"),
    "2 tag of size 7": (Flat2([tag(1, size=7)]), "has the size 0x7"),
    "2 huge tag": (Flat2([tag(1, size=0xFFFF_FFF8)]), "has the size 0xfffffff8, which does not fit the header"),
    "2 short addresses": (Flat2([tag(2, BASE)]), "has 12 bytes, it should have 24"),
    "2 short entry": (Flat2([tag(3)]), "has 8 bytes, it should have 12"),
    "2 short relocation": (Flat2([*PLACE, tag(10, 0)]), "has 12 bytes, it should have 24"),
    "2 addresses twice": (Flat2([*PLACE, PLACE[0]]), "type 2 at offset .* is there twice"),
    "2 no entry": (Flat2(PLACE[:1]), "an address tag but no entry address tag"),
    "2 neither ELF nor addresses": (Flat2([]), "no load addresses, which only an ELF file"),
    "2 load above header": (Flat2([tag(2, BASE, BASE + 8, 0, 0), PLACE[1]]), "is above its header_addr"),
    "2 load end": (Flat2([tag(2, BASE, BASE, 8, 0), PLACE[1]]), "load_end_addr 0x8 is below"),
    "2 bss end": (Flat2([tag(2, BASE, BASE, 0, 8), PLACE[1]]), "bss_end_addr 0x8 is below"),
    "2 wraps": (Flat2([tag(2, BIG + 0xFF0, BIG + 0xFF0, 0, 0), PLACE[1]]), "wrap past the end"),
    "2 file from below 0": (Flat2([tag(2, 4, 0xFFFFFFFF, 0, 0), tag(3, 4)], before=bytes(8)), "would begin below 0"),
    "2 entry outside": (Flat2([PLACE[0], tag(3, 0xFFFF_FFFF)]), "entry_addr 0xffffffff lies outside"),
    "2 console": (Flat2([*PLACE, tag(4, 1)]), "requires a console, and this machine has no display"),
    "2 framebuffer": (Flat2([*PLACE, tag(5, 0, 0, 0)]), "requires a framebuffer"),
    "2 ELF sections": (Flat2([*PLACE, tag(1, 6, 9)]), "requires information of type 9"),
    "2 unknown information": (Flat2([*PLACE, tag(1, 22)]), "requires information of type 22"),
    "2 unknown tag": (Flat2([*PLACE, tag(11)]), "of type 11 at offset .* is required"),
    "2 relocation's alignment": (Flat2([*PLACE, tag(10, 0, BIG, 3, 0)]), "alignment 0x3"),
    "2 relocation's preference": (Flat2([*PLACE, tag(10, 0, BIG, 8, 3)]), "preference 3"),
    "2 nowhere to go": (Flat2([*PLACE, tag(10, 8 * M, 8 * M, 8, 0)]), "do not fit between 0x800000 and 0x800000"),
    "2 upside down": (Flat2([*PLACE, tag(10, 8 * M, 2 * M, 8, 2)]), "do not fit between"),
    "2 memory ends before": (Flat2([*PLACE, tag(10, 17 * M, BIG, 8, 1)]), "do not fit between"),
    "ELF above 4 GiB": (elf(HEADER1, 64).replace(struct.pack("<Q", BASE), struct.pack("<Q", 1 << 32)), "outside|above 4 GiB"),
    "overlapping segments": (
        Elf([Program(BASE, HEADER1, memsz=64), Program(BASE + 8, b"x")], 32, entry=BASE).pack(),
        "overlap in guest-physical",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_hostile_header_gets_one_clear_line(name):
    made, message = BAD[name]
    data = made if isinstance(made, bytes) else made.pack()
    if message is None:
        image = load(data)
        with GuestMemory() as memory, pytest.raises(LoadError, match="do not fit, guest memory is nowhere"):
            image.place(memory)
        return
    with pytest.raises(LoadError, match=message) as caught:
        load(data)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        Flat2([*PLACE, tag(4, 1, flags=1)]),
        Flat2([*PLACE, tag(5, 0, 0, 0, flags=1)]),
        Flat2([*PLACE, tag(1, 9, 99, flags=1)]),
        Flat2([*PLACE, tag(0xFFFF, flags=1)]),
        Flat2([*PLACE, tag(1, *range(1, 9), *range(10, 22))]),
        Flat2([*PLACE, tag(4, 2), tag(6), tag(7), tag(8, 1), tag(9, 1)]),
    ],
)
def test_what_may_be_ignored_is_ignored(data):
    assert load(data.pack()).format == "multiboot2"


def test_forced_formats_say_what_is_missing():
    for name in ("multiboot1", "multiboot2"):
        with pytest.raises(LoadError, match="there is no multiboot"):
            load(b"\xf4" * 100, format=name)
    with pytest.raises(LoadError, match="has the checksum"):
        load(Flat1(checksum=7).pack(), format="multiboot1")


def test_modules_that_do_not_fit_or_do_not_exist(tmp_path, leaves_nothing):
    module = tmp_path / "module"
    for missing in (module, tmp_path):
        with pytest.raises(LoadError, match=r"cannot be opened|a directory"):
            load(Flat1().pack(), modules=[(missing, "")])
    module.write_bytes(b"")
    with module.open("r+b") as file:
        file.truncate(15 * M)
    with pytest.raises(LoadError, match="no room for its 0xf00000 bytes"):
        load(Flat1().pack(), modules=[(module, "")])
    with module.open("r+b") as file:
        file.truncate(10 * M)
    with pytest.raises(LoadError, match=r"more than the .* that are left beside the kernel"):
        load(Flat1().pack(), modules=[(module, ""), (module, "")])
    with module.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(LoadError, match="more than the"):
        load(Flat1().pack(), modules=[(module, "")])


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_no_c_string_holds(text, tmp_path):
    (tmp_path / "m").write_bytes(b"m")
    for options in ({"command_line": text}, {"modules": [(tmp_path / "m", text)]}):
        with pytest.raises(ConfigurationError, match="holds"):
            load(Flat1().pack(), **options)


def test_a_command_line_larger_than_memory():
    with pytest.raises(LoadError, match=r"no room for 0x.* bytes of multiboot information"):
        load(Flat2().pack(), command_line="x" * (17 * M))


def test_other_formats_take_neither_command_line_nor_modules(tmp_path):
    for data in (b"\xf4", elf(b"")):
        for options in ({"command_line": "x"}, {"modules": [(tmp_path, "")]}):
            with pytest.raises(ConfigurationError, match="takes no"):
                load(data, **options)


def test_without_memory_there_is_no_room():
    with pytest.raises(LoadError, match="no room for"):
        load_bytes(Flat1().pack())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "long"}, "entered with --mode protected, not long"),
        ({"cpl": 3}, "entered with --cpl 0, not 3"),
        ({"load_gpa": 0x1000}, "cannot be loaded at 0x1000"),
        ({"page_size": 4096}, "no pages"),
        ({"memory": M}, "do not fit, guest memory is"),
        ({"format": "a.out"}, "no file format called"),
    ],
)
def test_machine_refuses_what_is_not_multiboot(options, message, kvm, leaves_nothing):
    with pytest.raises(BelljarError, match=message):
        Machine(Flat1().pack(), engine=kvm, **options)


@pytest.mark.parametrize(
    "options",
    [{"format": "raw"}, {"command_line": "x"}, {"modules": [("/dev/null", "")]}],
    ids=lambda value: next(iter(value)),
)
def test_samples_are_handed_nothing(options, kvm):
    with pytest.raises(ConfigurationError, match="no file that could be handed"):
        Machine("hello-long", engine=kvm, **options)


# -- noise ---------------------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from([0, 1, 8, BASE, BASE + 0x100, 0x7FFF_FFFF, 0x8000_0000, BIG, 0xFFFF_FFFF]),
    st.integers(0, 0xFFFF_FFFF),
)
TAGS = st.builds(
    lambda kind, flags, words, size: tag(kind, *words, flags=flags, size=size),
    st.one_of(st.integers(0, 12), st.integers(0, 0xFFFF)),
    st.integers(0, 1),
    st.lists(WORDS, max_size=6),
    st.one_of(st.none(), st.none(), WORDS),
)
ONES = st.builds(
    Flat1,
    flags=st.sampled_from([0, 1, 3, ADDRESSES, ADDRESSES | 3, ADDRESSES | 4, 0xFFFF]),
    before=st.binary(max_size=64).map(lambda data: data[: len(data) & -4]),
    header=st.none() | WORDS,
    load=st.just(BASE) | WORDS,
    load_end=st.just(0) | WORDS,
    bss_end=st.just(0) | WORDS,
    entry=st.none() | WORDS,
)
TWOS = st.builds(
    Flat2,
    tags=st.lists(st.sampled_from(PLACE) | TAGS, max_size=8),
    end=st.sampled_from([END, b""]),
    architecture=st.sampled_from([0, 0, 0, 4, 9]),
    length=st.none() | WORDS,
)


def load_or_line(data: bytes) -> Image | str:
    try:
        return load(data)
    except LoadError as error:
        return str(error)


@settings(max_examples=3000, deadline=None)
@given(ONES | TWOS, st.integers(0, 600), st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=2))
@example(Flat1(), 600, [])
@example(Flat2(), 600, [])
def test_noise_is_loaded_whole_or_refused(file, cut, patches):
    data = bytearray(file.pack()[:cut])
    for offset, value in patches:
        if offset < len(data):
            data[offset] = value
    if not data:
        return
    image = load_or_line(bytes(data))
    if isinstance(image, str):
        assert "\n" not in image
        return
    assert image.find(image.entry_gva) is not None
    parts = image.segments
    assert all(one.end_gpa <= two.gpa for one, two in pairwise(parts))
    if image.format.startswith("multiboot"):
        assert parts[-1].end_gpa <= 1 << 32
        information = image.find(image.registers["rbx"])
        assert information is not None
        assert information.name == "multiboot information"
