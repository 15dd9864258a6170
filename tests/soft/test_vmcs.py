"""The VMCS: encodings, widths, VMREAD and VMWRITE errors, and the guest-state area that lives in the processor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import belljar.soft.processor as package
from belljar.soft.processor._core import HostMemory, Processor, VmcsRegion, VmxError
from belljar.soft.processor.fields import Field

UNSUPPORTED_FIELD, READ_ONLY_FIELD, INVALID = 12, 13, 1
WRITABLE = [field for field in Field if not field.read_only]


@pytest.fixture
def processor() -> Processor:
    made = Processor(HostMemory())
    made.vmptrld(VmcsRegion())
    return made


def test_the_core_and_python_agree_on_every_encoding() -> None:
    text = (Path(package.__file__).parent / "declarations/vmx.pxi").read_text()
    core = {name: int(value, 16) for name, value in re.findall(r"^    FIELD_(\w+) = (0x[0-9A-F]+)$", text, re.M)}
    assert core == {field.name: field.value for field in Field}


@given(field=st.sampled_from(WRITABLE), value=st.integers(0, 2**64 - 1))
def test_a_field_holds_what_was_written_cut_to_its_width(field: Field, value: int) -> None:
    processor = Processor(HostMemory())
    processor.vmptrld(VmcsRegion())
    processor.vmwrite(field, value)
    assert processor.vmread(field) == value % (1 << 8 * field.width)
    assert all(processor.vmread(other) == 0 for other in WRITABLE if other is not field)


def test_the_high_half_of_a_64_bit_field_is_a_field(processor: Processor) -> None:
    processor.vmwrite(Field.TSC_OFFSET, 0x1111_2222_3333_4444)
    assert processor.vmread(Field.TSC_OFFSET + 1) == 0x1111_2222
    processor.vmwrite(Field.TSC_OFFSET + 1, 0xFFFF_FFFF_5555_6666)
    assert processor.vmread(Field.TSC_OFFSET) == 0x5555_6666_3333_4444


@given(encoding=st.integers(0, 2**64 - 1) | st.integers(0, 0x7FFF))
def test_what_is_no_field_is_refused(encoding: int) -> None:
    processor = Processor(HostMemory())
    processor.vmptrld(VmcsRegion())
    known = {int(field) for field in Field} | {field + 1 for field in Field if field >> 13 == 1}
    if encoding in known:
        processor.vmread(encoding)
        return
    for call in (lambda: processor.vmread(encoding), lambda: processor.vmwrite(encoding, 0)):
        with pytest.raises(VmxError) as caught:
            call()
        assert caught.value.number == UNSUPPORTED_FIELD
    assert processor.vmread(Field.INSTRUCTION_ERROR) == UNSUPPORTED_FIELD


@pytest.mark.parametrize("field", [field for field in Field if field.read_only])
def test_exit_information_cannot_be_written(processor: Processor, field: Field) -> None:
    with pytest.raises(VmxError) as caught:
        processor.vmwrite(field, 1)
    assert caught.value.number == READ_ONLY_FIELD


def test_without_a_current_vmcs_everything_fails(processor: Processor) -> None:
    processor.vmclear()
    for call in (
        lambda: processor.vmread(Field.GUEST_RIP),
        lambda: processor.vmwrite(Field.GUEST_RIP, 0),
        lambda: processor.enter(1),
        lambda: processor.vmlaunch(1),
        lambda: processor.vmresume(1),
        processor.vmclear,
    ):
        with pytest.raises(VmxError) as caught:
            call()
        assert caught.value.number == INVALID


def test_each_vmcs_keeps_its_own_values(processor: Processor) -> None:
    first, second = VmcsRegion(), VmcsRegion()
    processor.vmptrld(first)
    processor.vmwrite(Field.GUEST_RIP, 1)
    processor.vmptrld(second)
    processor.vmwrite(Field.GUEST_RIP, 2)
    processor.vmptrld(first)
    assert processor.vmread(Field.GUEST_RIP) == 1
