"""A system, a VM and a small guest of the binding, without any engine; skipped with the reason where there is no KVM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from belljar.errors import EngineUnavailable
from belljar.kvm import Kvm, Vm
from kvm.guest import Guest


@pytest.fixture
def system() -> Iterator[Kvm]:
    try:
        opened = Kvm()
    except EngineUnavailable as error:
        pytest.skip(error.message)
    with opened:
        yield opened


@pytest.fixture
def vm(system: Kvm) -> Iterator[Vm]:
    with system.create_vm() as made:
        yield made


@pytest.fixture
def guest(vm: Vm) -> Iterator[Guest]:
    """A vCPU in real mode with 64 KiB of memory; its program is given by `load`."""
    with Guest(vm) as made:
        yield made
