"""ACPI tables, read as a kernel reads them and by ACPICA's disassembler."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from shutil import which

import pytest

from belljar.boot.acpi import RSDP_SIZE, TABLES_GPA, acpi_tables
from belljar.boot.image import ImageSegment
from belljar.devices import pm1, pm_timer, reset
from belljar.machine.firmware import acpi_hardware

RAM = ((0, 128 << 20),)


def tables(cpus: int) -> dict[str, bytes]:
    """The tables by name, found from the RSDP on, through the XSDT."""
    (segment,) = acpi_tables(acpi_hardware(cpus), RAM, ())
    data = segment.data

    def at(gpa: int) -> bytes:
        offset = gpa - TABLES_GPA
        return data[offset : offset + struct.unpack_from("<I", data, offset + 4)[0]]

    rsdt, _, xsdt = struct.unpack_from("<IIQ", data, 16)
    found = {"RSDP": data[:RSDP_SIZE], "RSDT": at(rsdt), "XSDT": at(xsdt)}
    entries = struct.unpack(f"<{(len(found['XSDT']) - 36) // 8}Q", found["XSDT"][36:])
    assert struct.unpack(f"<{len(entries)}I", found["RSDT"][36:]) == entries
    found |= {at(gpa)[:4].decode(): at(gpa) for gpa in entries}
    facs, dsdt = struct.unpack_from("<II", found["FACP"], 36)
    assert struct.unpack_from("<QQ", found["FACP"], 132) == (facs, dsdt)
    assert facs % 64 == 0
    return found | {"FACS": at(facs), "DSDT": at(dsdt)}


def test_every_table_sums_to_zero() -> None:
    for name, table in tables(3).items():
        assert name == "FACS" or sum(table) & 0xFF == 0, name
    assert sum(tables(1)["RSDP"][:20]) & 0xFF == 0


def test_fixed_hardware_is_where_the_fadt_says() -> None:
    fadt = tables(1)["FACP"]
    assert struct.unpack_from("<I", fadt, 56)[0] == pm1.PM1_PORT
    assert struct.unpack_from("<I", fadt, 64)[0] == pm1.PM1_PORT + pm1.CONTROL
    assert struct.unpack_from("<I", fadt, 76)[0] == pm_timer.PM_TIMER_PORT
    assert struct.unpack_from("<Q", fadt, 120)[0] == reset.RESET_PORT


@pytest.mark.parametrize("cpus", [1, 8, 300])
def test_the_madt_lists_every_processor(cpus: int) -> None:
    madt = tables(cpus)["APIC"]
    ids, at = [], 44
    while at < len(madt):
        kind, size = madt[at : at + 2]
        if kind == 0:
            ids.append(madt[at + 3])
        elif kind == 9:
            ids.append(struct.unpack_from("<I", madt, at + 4)[0])
        at += size
    assert at == len(madt)
    assert ids == list(range(cpus))


def test_there_are_none_where_the_kernel_lies_or_no_memory() -> None:
    hardware = acpi_hardware(1)
    assert not acpi_tables(hardware, ((0, 0xE0000),), ())
    assert not acpi_tables(hardware, RAM, (ImageSegment(TABLES_GPA + 16, b"", 1),))
    assert acpi_tables(hardware, RAM, (ImageSegment(0x10_0000, b"", 1),))


def test_acpica_reads_them(tmp_path: Path) -> None:
    iasl = which("iasl")
    if iasl is None:
        pytest.skip("iasl is not installed; on Debian: apt-get install acpica-tools")
    for name, table in tables(2).items():
        if name == "RSDP":
            continue
        (tmp_path / f"{name}.dat").write_bytes(table)
        done = subprocess.run([iasl, "-d", f"{name}.dat"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        said = (done.stdout + done.stderr).lower()
        assert done.returncode == 0, said
        assert "warning" not in said, said
        assert "error" not in said, said
    assert "Package" in (tmp_path / "DSDT.dsl").read_text()
