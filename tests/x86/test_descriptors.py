"""Descriptors, gates and TSSs: known bytes from the field, and round trips."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.errors import ConfigurationError
from belljar.x86 import gdt
from belljar.x86.descriptor_tables import decode_gdt, decode_idt
from belljar.x86.descriptors import (
    code_segment,
    data_segment,
    decode_segment,
    describe_segment,
    encode_segment,
    is_gate,
    unusable_segment,
)
from belljar.x86.gates import Gate, decode_gate, describe_gate, encode_gate
from belljar.x86.state import Segment
from belljar.x86.tss import TSS16, TSS32, TSS64, TSS_SIZE, allowed_ports, decode_tss, io_bitmap, tss32, tss64


@pytest.mark.parametrize(
    ("segment", "raw"),
    [
        # The values every boot loader writes.
        (code_segment(32), 0x00CF9B000000FFFF),
        (data_segment(32), 0x00CF93000000FFFF),
        (code_segment(64), 0x00AF9B000000FFFF),
        (code_segment(32, dpl=3), 0x00CFFB000000FFFF),
        (code_segment(16, base=0x12345678, limit=0xFFFF), 0x12009B345678FFFF),
        (Segment(0, 0x12345678, 0x67, 11, 0), 0x12008B3456780067),
    ],
)
def test_known_descriptors(segment, raw):
    assert encode_segment(segment) == raw.to_bytes(8, "little")


def test_long_mode_tss_descriptor_is_wide():
    segment = Segment(0, 0xFFFF_8123_4567_89AB, 0x67, 11, 0)
    raw = encode_segment(segment, long_mode=True)
    assert raw[8:] == bytes.fromhex("2381ffff00000000")
    assert decode_segment(raw) == segment


bit = st.integers(0, 1)
segments = st.builds(
    Segment,
    selector=st.just(0),
    base=st.integers(0, (1 << 32) - 1),
    limit=st.integers(0, 0xFFFFF),
    type=st.integers(0, 15),
    s=bit,
    dpl=st.integers(0, 3),
    present=bit,
    avl=bit,
    l=bit,
    db=bit,
    g=bit,
)


@given(segment=segments)
def test_segments_round_trip(segment):
    if segment.g:
        segment.limit = segment.limit << 12 | 0xFFF
    for long_mode in (False, True):
        assert decode_segment(encode_segment(segment, long_mode=long_mode)) == segment
    assert describe_segment(segment)


@given(raw=st.binary(min_size=8, max_size=8))
def test_any_descriptor_decodes_and_encodes_back(raw):
    assert encode_segment(decode_segment(raw)) == raw


def test_impossible_segments_are_refused():
    with pytest.raises(ConfigurationError, match="4 KiB"):
        encode_segment(Segment(limit=0x12345678, g=1))
    with pytest.raises(ConfigurationError, match="does not fit"):
        encode_segment(Segment(limit=0x100000))
    with pytest.raises(ConfigurationError, match="base"):
        encode_segment(Segment(base=1 << 32))
    with pytest.raises(ConfigurationError, match="8 or 16"):
        decode_segment(b"123")


def test_unusable_segment_is_a_null_descriptor():
    assert encode_segment(unusable_segment()) == bytes(8)
    assert describe_segment(unusable_segment()) == "unusable"


@given(
    long_mode=st.booleans(),
    offset=st.integers(0, (1 << 64) - 1),
    selector=st.integers(0, 0xFFFF),
    kind=st.sampled_from([4, 6, 7, 12, 14, 15]),
    dpl=st.integers(0, 3),
    present=bit,
    extra=st.integers(0, 7),
)
def test_gates_round_trip(long_mode, offset, selector, kind, dpl, present, extra):
    if not long_mode:
        offset &= 0xFFFFFFFF if kind & 8 else 0xFFFF
    gate = Gate(selector, offset, kind, dpl, present, extra if long_mode else 0, 0 if long_mode else extra)
    raw = encode_gate(gate, long_mode=long_mode)
    assert decode_gate(raw) == gate
    assert is_gate(raw[:8])


def test_gate_is_encoded_as_the_manual_draws_it():
    gate = Gate(0x10, 0xFFFFFFFF81234567, 14, 3, ist=2)
    assert encode_gate(gate, long_mode=True) == bytes.fromhex("6745100002ee2381ffffffff00000000")
    assert describe_gate(gate) == "interrupt gate -> 0x10:0xffffffff81234567 dpl 3 ist 2"
    with pytest.raises(ConfigurationError, match="32-bit gate"):
        encode_gate(gate)


@given(raw=st.binary(max_size=80), long_mode=st.booleans())
def test_any_bytes_read_as_tables(raw, long_mode):
    entries = decode_gdt(raw, long_mode=long_mode)
    assert b"".join(entry.raw for entry in entries) == raw[: len(raw) & -8]
    for mode, size in (("real", 4), ("protected", 8), ("long", 16)):
        assert len(decode_idt(raw, mode=mode)) == len(raw) // size


def test_gdt_reads_in_words():
    texts = {entry.selector: entry.text for entry in decode_gdt(gdt.gdt_bytes(long_mode=True), long_mode=True)}
    assert texts[0] == "null"
    assert texts[gdt.KERNEL_CODE] == "code64 dpl 0 base 0x0 limit 0xffffffff read accessed"
    assert texts[gdt.USER_DATA] == "data32 dpl 3 base 0x0 limit 0xffffffff write accessed"
    assert texts[gdt.KERNEL_CODE16].startswith("code16 dpl 0 base 0x0 limit 0xffff ")


def test_idt_reads_in_words():
    table = bytes(8) + encode_gate(Gate(8, 0x1000, 15))
    assert [entry.text for entry in decode_idt(table, mode="protected")] == [
        "not-present",
        "trap gate -> 0x8:0x1000 dpl 0",
    ]
    assert decode_idt(bytes.fromhex("00f03412"), mode="real")[0].text == "0x1234:0xf000"
    with pytest.raises(ConfigurationError):
        decode_idt(b"", mode="virtual")


@pytest.mark.parametrize(("layout", "size"), [(TSS16, 44), (TSS32, TSS_SIZE), (TSS64, TSS_SIZE)])
def test_tss_layout_fills_its_size(layout, size):
    assert max(item.offset + item.size for item in layout) == size
    ordered = sorted(layout, key=lambda item: item.offset)
    assert all(one.offset + one.size <= two.offset for one, two in pairwise(ordered))


def test_tss_fields_lie_where_the_manual_says():
    long_tss = decode_tss(tss64(rsp0=0x123456789A), TSS64)
    assert (long_tss["rsp0"], long_tss["io_map"]) == (0x123456789A, TSS_SIZE)
    short = decode_tss(tss32(esp0=0x9000, ss0=0x10), TSS32)
    assert (short["esp0"], short["ss0"], short["io_map"], short["cr3"]) == (0x9000, 0x10, TSS_SIZE, 0)
    assert [(item.name, item.offset) for item in TSS32 if item.name in ("cr3", "eip", "ldt", "edi")] == [
        ("cr3", 28),
        ("eip", 32),
        ("edi", 68),
        ("ldt", 96),
    ]


@given(ports=st.sets(st.integers(0, 0xFFFF), max_size=20))
def test_bitmap_allows_exactly_its_ports(ports):
    raw = tss64(rsp0=0, bitmap=io_bitmap(range(port, port + 1) for port in ports))
    assert {port for part in allowed_ports(raw) for port in part} == ports


def test_tss_without_a_bitmap_allows_nothing():
    assert allowed_ports(tss64(rsp0=0)) == ()
    assert allowed_ports(b"") == ()
    assert allowed_ports(tss64(rsp0=0, bitmap=io_bitmap([range(0)]))) == ()


@pytest.mark.parametrize("ports", [range(-1, 2), range(0x10001), range(0, 4, 2)])
def test_ports_that_do_not_exist_are_refused(ports):
    with pytest.raises(ConfigurationError):
        io_bitmap([ports])
