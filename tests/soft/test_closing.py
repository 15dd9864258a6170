"""What a closed machine of the soft engine still holds."""

from __future__ import annotations

import gc

import pytest

from belljar.machine import Machine
from belljar.soft.processor._core import Processor


def processors() -> int:
    return sum(isinstance(each, Processor) for each in gc.get_objects())


@pytest.mark.parametrize("clock", ["instructions", "host"])
def test_processor_is_given_back_without_waiting_for_the_garbage_collector(clock: str) -> None:
    gc.collect()
    gc.disable()
    try:
        before = processors()
        with Machine(b"\xf4", engine="soft", clock=clock) as machine:
            machine.run(timeout=20)
            assert processors() == before + 1
        assert processors() == before
    finally:
        gc.enable()
