"""--hyperv and --tsc-khz: what the guest is offered, and what is said where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from belljar.machine import Machine

from .conftest import Belljar

# mov eax, 0x40000000; xor ecx, ecx; cpuid; mov eax, ebx; mov edx, 0xE9 as four bytes of output; hlt (real mode)
SIGNATURE = bytes.fromhex("66b800000040 6631c9 0fa2 6689d8 e6e9 66c1e808 e6e9 66c1e808 e6e9 66c1e808 e6e9 f4")
BASE_MHZ = bytes.fromhex("66b816000000 6631c9 0fa2 e6e9 88e0 e6e9 f4")  # leaf 16H: AL and AH


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    path = tmp_path / "signature"
    path.write_bytes(SIGNATURE)
    return path


def test_interface_stands_in_front_where_it_is_asked_for(belljar: Belljar, guest: Path) -> None:
    assert belljar("run", guest, "--engine", "soft").out == "KVMK"
    assert belljar("run", guest, "--engine", "soft", "--hyperv").out == "Micr"


def test_auto_takes_an_engine_that_has_it(belljar: Belljar, guest: Path) -> None:
    done = belljar("run", guest, "--hyperv")
    assert (done.status, done.out) == (0, "Micr")
    with Machine(SIGNATURE, mode="real", hyperv=True) as machine:
        if machine.engine.name == "soft":
            assert "kvm: " in machine.engine_reason


def test_kvm_without_local_apics_says_what_is_missing(belljar: Belljar, guest: Path, kvm: object) -> None:
    done = belljar("run", guest, "--engine", "kvm", "--hyperv")
    assert done.status == 125
    assert "Hyper-V" in done.complaint


def test_guest_is_told_its_frequency(belljar: Belljar, tmp_path: Path) -> None:
    path = tmp_path / "frequency"
    path.write_bytes(BASE_MHZ)
    assert belljar("run", path, "--engine", "soft", "--tsc-khz", "16705000").out == "AA"  # 0x4141 MHz


@pytest.mark.parametrize("khz", ["999", "100000001"])
def test_frequency_that_no_guest_gets_is_refused(belljar: Belljar, guest: Path, khz: str) -> None:
    done = belljar("run", guest, "--engine", "soft", "--tsc-khz", khz)
    assert done.status == 125
    assert f"{khz} kHz" in done.complaint
