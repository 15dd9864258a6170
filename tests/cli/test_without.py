"""`--without`: CPU features taken away from the guest."""

from __future__ import annotations

import pytest

from belljar.engines import open_engine
from belljar.errors import ConfigurationError, FeatureUnsupported
from belljar.kvm.engine import KvmEngine
from belljar.machine import Machine
from belljar.soft.engine import SoftEngine
from belljar.soft.processor.features import CPUINFO_NAMES
from belljar.x86.cpuid import ALIASES

from .conftest import Belljar, Guest

HAS_CX16 = "0fa2 0fbae10d 0f92c0 e6f4"
"""cpuid; bt ecx, 13; setc al; out 0xf4, al: status 3 if leaf 1 tells of CMPXCHG16B, else 1."""

POPCNT = "f30fb8c3 f4"
"""popcnt eax, ebx; hlt"""


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ((), 3),
        (("--without", "cx16"), 1),
        (("--without=sep,CX16", "--without", "movbe"), 1),
        (("--without", "abm"), 3),
    ],
)
def test_the_guest_does_not_find_the_feature(
    belljar: Belljar, engine_name: str, guest: Guest, options: tuple[str, ...], status: int
) -> None:
    done = belljar("run", guest(HAS_CX16), "--mode", "long", "--reg", "rax=1", "--engine", engine_name, *options)
    assert (done.status, done.err) == (status, "")


def test_soft_raises_an_exception_for_it(belljar: Belljar, guest: Guest) -> None:
    options = ("--mode", "long", "--engine", "soft")
    assert belljar("run", guest(POPCNT), *options).status == 0
    assert belljar("run", guest(POPCNT), *options, "--without", "popcnt").status == 134


def test_start_states_do_without_comforts(belljar: Belljar, engine_name: str) -> None:
    assert belljar("run", "hello-long", "--engine", engine_name, "--without", "nx,syscall,sse2").status == 0


@pytest.mark.parametrize(
    ("guest_name", "options", "feature"),
    [
        ("hello-la57", (), "la57"),
        ("hello-long", (), "lm"),
        ("hello-long", (), "pae"),
        ("hello-pae", (), "pae"),
        ("hello-paged", (), "pse"),
        ("hello-long", ("--page-size", "1G"), "pdpe1gb"),
    ],
)
def test_a_mode_that_needs_it_does_not_start(
    belljar: Belljar, guest_name: str, options: tuple[str, ...], feature: str
) -> None:
    done = belljar("run", guest_name, *options, "--engine", "soft", "--without", feature)
    assert done.status == 125
    assert "which is switched off" in done.complaint


def test_an_unknown_feature_names_near_ones(belljar: Belljar, engine_name: str) -> None:
    done = belljar("run", "hello-long", "--engine", engine_name, "--without", "smpe")
    assert done.status == 125
    assert "'smpe'" in done.complaint
    assert "smep" in done.complaint


def test_auto_takes_the_engine_that_can(belljar: Belljar, kvm: object) -> None:
    done = belljar("run", "hello-long", "--without", "crc32")
    assert done.status == 0
    assert "runs on soft" in done.complaint
    assert belljar("run", "hello-long", "--without", "crc32", "--engine", "kvm").status == 125


def test_engines_list_what_they_can_take_away(kvm: object) -> None:
    with KvmEngine() as whole, KvmEngine(without=["CX16", "sep"]) as less:
        assert set(whole.cpu_features) - set(less.cpu_features) == {"cx16", "sep"}
    with SoftEngine() as soft, SoftEngine(without=["pae"]) as old:
        assert {"pae", "lm", "nx", "la57"} <= set(soft.cpu_features) - set(old.cpu_features)
        for name in soft.cpu_features:
            open_engine("soft", without=[name]).close()


@pytest.mark.parametrize("name", ["apic", "arat", "msr", "hypervisor"])
def test_soft_refuses_what_it_cannot_take_away(name: str) -> None:
    with pytest.raises(FeatureUnsupported):
        SoftEngine(without=[name])


def test_an_open_engine_has_its_features() -> None:
    with SoftEngine() as engine, pytest.raises(ConfigurationError, match="open"):
        Machine("hello-long", engine=engine, without=["nx"])


def test_names_by_the_manual_are_the_same_everywhere() -> None:
    assert {feature.name.lower(): label for feature, label in CPUINFO_NAMES.items()} == ALIASES
