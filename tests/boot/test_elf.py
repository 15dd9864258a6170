"""ELF: what is loaded where, and one clear line for every file that is not sound."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from elf_files import ET_CORE, ET_DYN, ET_REL, PT_DYNAMIC, PT_INTERP, PT_NOTE, Elf, Program

from belljar.boot import SegmentFlags, load, load_bytes
from belljar.errors import BelljarError, ConfigurationError, LoadError
from belljar.memory import GuestMemory

PAGE = 4096
TWO = [Program(0x1000, b"\x90\xf4", memsz=PAGE), Program(0x3000, b"data", flags=6, memsz=16)]


def assert_one_line(error: BelljarError) -> None:
    assert error.hint
    assert "\n" not in str(error)


@pytest.mark.parametrize(("bits", "mode"), [(32, "protected"), (64, "long")])
def test_segments_go_where_the_headers_say(bits, mode):
    image = load_bytes(Elf(TWO, bits, entry=0x1001).pack(), "guest.elf")
    assert (image.format, image.bits, image.mode, image.entry_gva) == ("elf", bits, mode, 0x1001)
    assert [(s.gpa, s.data, s.memory_size) for s in image.segments] == [
        (0x1000, b"\x90\xf4", PAGE),
        (0x3000, b"data", 16),
    ]
    assert image.segments[0].flags == SegmentFlags.READ | SegmentFlags.EXECUTE
    assert image.segments[1].flags == SegmentFlags.READ | SegmentFlags.WRITE
    assert image.size == PAGE + 16


def test_what_a_file_does_not_bring_is_zero():
    image = load_bytes(Elf([Program(0x1000, b"\xf4", memsz=3 * PAGE)]).pack())
    with GuestMemory() as memory:
        memory.add(0, 8 * PAGE)
        memory.write(0, b"\xff" * 8 * PAGE)
        image.place(memory)
        expected = b"\xff" * PAGE + b"\xf4" + bytes(3 * PAGE - 1) + b"\xff" * 4 * PAGE
        assert memory.read(0, 8 * PAGE) == expected


def test_physical_address_is_where_a_segment_goes_and_the_entry_follows():
    kernel = Elf([Program(0xFFFF_FFFF_8100_0000, b"\x90\xf4", paddr=0x10_0000)], entry=0xFFFF_FFFF_8100_0001)
    image = load_bytes(kernel.pack())
    assert image.segments[0].gpa == 0x10_0000
    assert image.entry_gva == 0x10_0001


def test_entry_that_is_physical_already_stays():
    vmlinux = Elf([Program(0xFFFF_FFFF_8100_0000, b"\x90\xf4", paddr=0x100_0000)], entry=0x100_0000)
    assert load_bytes(vmlinux.pack()).entry_gva == 0x100_0000


def test_physical_addresses_that_were_left_out_are_the_virtual_ones():
    image = load_bytes(Elf([Program(0x1000, b"\xf4", paddr=0), Program(0x2000, b"x", paddr=0)]).pack())
    assert [segment.gpa for segment in image.segments] == [0x1000, 0x2000]
    assert image.entry_gva == 0x1000


def test_entry_can_be_chosen_but_not_outside_of_the_segments():
    assert load_bytes(Elf(TWO).pack(), entry_gva=0x1001).entry_gva == 0x1001
    with pytest.raises(LoadError, match=r"the entry 0x9000 lies outside of what is loaded, 0x1000\.\.0x1fff"):
        load_bytes(Elf(TWO).pack(), entry_gva=0x9000)


def test_other_program_headers_and_empty_segments_are_passed_over():
    programs = [
        Program(0, b"", type=PT_NOTE),
        Program(0x1000, b"\xf4"),
        Program(0x1000, b"", memsz=0),
        Program(0, b"\0" * 16, type=PT_DYNAMIC),
    ]
    assert len(load_bytes(Elf(programs).pack()).segments) == 1


def test_position_independent_file_goes_to_1_mib_or_where_asked():
    pie = Elf([Program(0, b"\x90\xf4", align=PAGE), Program(PAGE, b"data", align=PAGE)], entry=1, type=ET_DYN).pack()
    image = load_bytes(pie)
    assert [segment.gpa for segment in image.segments] == [0x10_0000, 0x10_1000]
    assert image.entry_gva == 0x10_0001
    image = load_bytes(pie, load_gpa=0x4000)
    assert [segment.gpa for segment in image.segments] == [0x4000, 0x5000]
    assert image.entry_gva == 0x4001
    with pytest.raises(LoadError, match="multiple of its alignment 0x1000"):
        load_bytes(pie, load_gpa=0x4001)
    with pytest.raises(LoadError, match="wrap"):
        load_bytes(pie, load_gpa=(1 << 64) - PAGE)


def test_position_independent_file_that_is_linked_somewhere_stays_there():
    pie = Elf([Program(0x5000, b"\xf4", align=PAGE)], entry=0x5000, type=ET_DYN).pack()
    assert load_bytes(pie).entry_gva == 0x5000
    assert load_bytes(pie, load_gpa=0x8000).entry_gva == 0x8000


def test_file_with_fixed_addresses_cannot_be_loaded_elsewhere():
    with pytest.raises(ConfigurationError, match="fixed addresses") as caught:
        load_bytes(Elf().pack(), load_gpa=0x8000)
    assert_one_line(caught.value)


IDENT = b"\x7fELF\2\1\1" + bytes(9)


def ident(offset: int, value: int) -> bytes:
    return IDENT[:offset] + bytes([value]) + IDENT[offset + 1 :]


BAD = {
    "class": (Elf(ident=ident(4, 3)), r"EI_CLASS\] at offset 0x4 is 3"),
    "big-endian": (Elf(ident=ident(5, 2)), r"EI_DATA\] at offset 0x5 is 2, big-endian"),
    "no byte order": (Elf(ident=ident(5, 0)), r"EI_DATA\] at offset 0x5 is 0"),
    "ident version": (Elf(ident=ident(6, 2)), r"EI_VERSION\] at offset 0x6 is 2"),
    "machine": (Elf(machine=40), "e_machine at offset 0x12 is EM_ARM; a 64-bit guest must be EM_X86_64"),
    "no machine's number": (Elf(machine=0xFFF0), "e_machine at offset 0x12 is 0xfff0"),
    "x32": (Elf(bits=32, machine=62), "a 32-bit guest must be EM_386"),
    "i386 in ELF64": (Elf(machine=3), "e_machine .* is EM_386; a 64-bit"),
    "object": (Elf(type=ET_REL), "e_type at offset 0x10 is ET_REL, a relocatable object.*link it first"),
    "core": (Elf(type=ET_CORE), "a core dump"),
    "none": (Elf(type=0), "no file type"),
    "type": (Elf(type=0xFE00), "e_type at offset 0x10 is 0xfe00"),
    "version": (Elf(version=7), "e_version at offset 0x14 is 0x7"),
    "no headers": (Elf(programs=[]), "no program headers"),
    "phoff zero": (Elf(phoff=0), "no program headers"),
    "phoff past the end": (Elf(phoff=0x10000), "truncated: the table of 1 program headers at offset 0x10000"),
    "phoff wraps": (Elf(phoff=(1 << 64) - 8), "truncated: the table of 1 program"),
    "phentsize": (Elf(phentsize=32), "e_phentsize is 32, not 56"),
    "phentsize zero": (Elf(phentsize=0), "e_phentsize is 0"),
    "many headers": (Elf(phnum=0xFFFF), "e_phnum is 65535, more program headers"),
    "shoff past the end": (Elf(shoff=0x8000), "truncated: the table of 2 section headers"),
    "nothing to load": (Elf([Program(type=PT_NOTE)]), "no PT_LOAD segment"),
    "only empty segments": (Elf([Program(memsz=0, filesz=0)]), "no PT_LOAD segment"),
    "interpreter": (Elf([Program(), Program(0, b"/lib/ld.so\0", type=PT_INTERP)]), "dynamically linked.*-static"),
    "filesz above memsz": (
        Elf([Program(memsz=0)]),
        "program header 0 at offset 0x40: p_filesz 0x1 is more than p_memsz",
    ),
    "offset past the end": (Elf([Program(offset=0x5000)]), "truncated: the segment of program header 0"),
    "offset wraps": (Elf([Program(offset=(1 << 64) - 1)]), "truncated: the segment of program header 0"),
    "filesz past the end": (Elf([Program(filesz=0x5000, memsz=0x5000)]), "truncated: the segment of program header 0"),
    "vaddr wraps": (Elf([Program((1 << 64) - 1, paddr=0x1000, memsz=2)]), "at p_vaddr 0xffffffffffffffff wraps"),
    "paddr wraps": (Elf([Program(paddr=(1 << 64) - 1, memsz=2)]), "at p_paddr 0xffffffffffffffff wraps"),
    "memsz wraps": (Elf([Program(memsz=(1 << 64) - 1)]), "p_memsz 0xffffffffffffffff at p_paddr 0x1000 wraps"),
    "32-bit address wraps": (Elf([Program(0xFFFFF000, memsz=PAGE + 1)], bits=32), "end of 32-bit addresses"),
    "overlap": (
        Elf([Program(0x1000, memsz=PAGE + 1), Program(0x2000)]),
        r"0x1000\.\.0x2000 and 0x2000\.\.0x2000 overlap",
    ),
    "same place": (Elf([Program(), Program()]), "overlap"),
    "one inside": (Elf([Program(0x1000, memsz=PAGE), Program(0x1800), Program(0x4000)]), "overlap"),
    "overlap in physical memory only": (Elf([Program(), Program(0x9000, paddr=0x1000)]), "overlap"),
    "entry": (Elf(entry=0x5000), "e_entry 0x5000 lies outside of what is loaded"),
    "entry just behind": (Elf(entry=0x1001), "e_entry 0x1001 lies outside"),
    "entry zero": (Elf(entry=0), "e_entry 0x0 lies outside"),
    "alignment": (Elf([Program(0, align=3)], type=ET_DYN, entry=0), "p_align 0x3 is not a power of two"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_file_gets_one_line_that_says_where(case):
    elf, message = BAD[case]
    with pytest.raises(LoadError, match=message) as caught:
        load_bytes(elf.pack(), "bad.elf")
    assert caught.value.message.startswith("bad.elf: ")
    assert_one_line(caught.value)


def test_impossible_memory_size_is_refused_when_it_is_placed():
    image = load_bytes(Elf([Program(memsz=1 << 50)]).pack(), "bss.elf")
    with GuestMemory() as memory:
        memory.add(0, 1 << 20)
        with pytest.raises(LoadError, match=r"0x4000000000000 bytes .* do not fit"):
            image.place(memory)
        assert memory.read(0, 1 << 20) == bytes(1 << 20)


def test_same_bytes_of_a_file_named_a_thousand_times_do_not_fill_the_hosts_memory():
    size = 1 << 20
    programs = [Program(i * size, b"", offset=0, filesz=size, memsz=size) for i in range(1100)]
    data = Elf(programs, entry=0).pack()
    with pytest.raises(LoadError, match="more than the 0x40000000 that there is room for"):
        load_bytes(data + bytes(size))
    with pytest.raises(LoadError, match="more than the 0x10000 that there is room for"):
        load_bytes(Elf([Program(data=bytes(0x10001))]).pack(), memory_size=0x10000)


@pytest.mark.parametrize("bits", [32, 64])
def test_file_truncated_at_any_byte_is_refused(bits):
    data = Elf(TWO, bits).pack()
    assert load_bytes(data)
    for length in range(len(data)):
        with pytest.raises(LoadError, match="empty" if length == 0 else "truncated") as caught:
            load_bytes(data[:length])
        assert_one_line(caught.value)


def test_format_is_told_by_content_not_by_name(tmp_path):
    for name in ("guest", "guest.bin", "guest.txt"):
        path = tmp_path / name
        path.write_bytes(Elf().pack())
        assert load(path).format == "elf"
    path = tmp_path / "guest.elf"
    path.write_bytes(b"\xb8\x7fELF")
    assert load(path).format == "raw"
    assert load_bytes(Elf().pack(), format="raw").format == "raw"
    with pytest.raises(LoadError, match="magic"):
        load_bytes(b"\xf4" * 100, format="elf")


def check_untrusted(data: bytes) -> None:
    """Whatever the bytes: an image that keeps every promise of `Image`, or one clear line."""
    try:
        image = load_bytes(data, "fuzz")
    except LoadError as error:
        assert_one_line(error)
        return
    assert image.segments
    assert image.find(image.entry_gva) is not None
    end = 0
    for segment in image.segments:
        assert end <= segment.gpa < segment.end_gpa <= 1 << 64
        assert len(segment.data) <= segment.memory_size
        end = segment.end_gpa
    with GuestMemory() as memory:
        memory.add(0, 64 * PAGE)
        try:
            image.place(memory)
        except LoadError as error:
            assert_one_line(error)
            assert end > 64 * PAGE


BASES = [
    Elf(TWO, 64).pack(),
    Elf(TWO, 32).pack(),
    Elf([Program(0, b"\x90\xf4", align=PAGE), Program(PAGE, b"data")], entry=1, type=ET_DYN).pack(),
]
patches = st.lists(
    st.tuples(
        st.integers(0, 255), st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x80"])
    ),
    max_size=6,
)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(base=st.sampled_from(BASES), patches=patches, cut=st.integers(0, 400), tail=st.binary(max_size=32))
@example(base=BASES[0], patches=[], cut=400, tail=b"")
def test_mutated_file_is_loaded_soundly_or_refused(base, patches, cut, tail):
    data = bytearray(base)
    for offset, patch in patches:
        offset %= len(data)
        data[offset : offset + len(patch)] = patch
    check_untrusted(bytes(data[:cut]) + tail)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([1, 2, 3]))
def test_noise_behind_the_magic_is_refused_or_loaded_soundly(noise, elf_class):
    check_untrusted(b"\x7fELF" + bytes([elf_class, 1, 1]) + noise)


@settings(max_examples=200, deadline=None)
@given(
    numbers=st.lists(
        st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 1, 0x40, 0x1000, 0x3F000, (1 << 64) - 1]),
        min_size=12,
        max_size=12,
    )
)
def test_headers_of_any_numbers_are_loaded_soundly_or_refused(numbers):
    n = iter(numbers)
    programs = [
        Program(next(n), b"code", paddr=next(n), filesz=next(n), memsz=next(n), align=next(n)) for _ in range(2)
    ]
    check_untrusted(Elf(programs, entry=next(n), type=2 + next(n) % 2).pack())


def test_whatever_pyelftools_raises_becomes_one_line(monkeypatch):
    from elftools.elf import structs

    def explode(self, *arguments):
        raise AssertionError("construct\nbroke")

    monkeypatch.setattr(structs.ELFStructs, "create_advanced_structs", explode)
    with pytest.raises(LoadError, match=r"cannot be understood \(AssertionError: construct broke\)") as caught:
        load_bytes(Elf().pack())
    assert_one_line(caught.value)


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="no assembler and linker here")
@pytest.mark.parametrize(("bits", "options"), [(64, []), (32, []), (64, ["-pie", "--no-dynamic-linker"])])
def test_what_the_linker_writes_is_loaded(tmp_path, bits, options):
    (tmp_path / "guest.s").write_text(
        ".globl _start\n.text\nnop\n_start: hlt\n.data\n.long 0x11223344\n.bss\n.space 8192\n"
    )
    subprocess.run(["as", f"--{bits}", "-o", "guest.o", "guest.s"], cwd=tmp_path, check=True)
    emulation = {64: "elf_x86_64", 32: "elf_i386"}[bits]
    link = ["ld", "-m", emulation, "-o", "guest.elf", *options, "guest.o"]
    subprocess.run(link if options else [*link, "-Ttext=0x2000", "-Tdata=0x8000"], cwd=tmp_path, check=True)
    image = load(tmp_path / "guest.elf")
    assert image.bits == bits
    segment = image.find(image.entry_gva)
    assert segment.data[image.entry_gva - segment.gpa] == 0xF4
    with GuestMemory() as memory:
        memory.add(0, 16 << 20)
        image.place(memory)
        assert memory.read(image.entry_gva - 1, 2) == b"\x90\xf4"
    data = (tmp_path / "guest.elf").read_bytes()
    for length in range(1, len(data), 97):
        with pytest.raises(LoadError, match="truncated"):
            load_bytes(data[:length])
