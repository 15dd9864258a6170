"""Random bytes as guests: they may crash themselves, and nothing else.

`make test` runs 10,000 of them on each engine, `make soak` a million. Every run is bounded in time, ends in one of the ways a run
may end, and leaves no descriptor, thread or mapping behind.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import threading

import pytest

from belljar.engine import Engine
from belljar.errors import ModeUnsupported
from belljar.machine import End, Machine

MODES = ("real", "protected16", "protected", "paged", "pae", "compat", "long", "la57")
COUNT = 10_000
SOAK_COUNT = 1_000_000
TIME_LIMIT = 0.002
ENDS = {End.HALT, End.POWER_OFF, End.RESET, End.DEBUG_EXIT, End.TIMEOUT, End.CRASH, End.GAVE_UP}

COMMON = (
    b"\xee", b"\xec", b"\x6e", b"\xf3\x6e", b"\xf3\x6c", b"\xe6\xe9", b"\xf4", b"\x0f\x01", b"\x0f\x22\xc0", b"\x0f\x30",
    b"\x0f\x32", b"\x66", b"\x67", b"\xf0", b"\xf3\xa4", b"\xcf", b"\xcb", b"\xff", b"\x8e", b"\x9a", b"\xea", b"\xeb\xfe",
    b"\x48", b"\xc4", b"\x62", b"\x0f\x38", b"\x0f\x3a", b"\xcd\x03", b"\x17", b"\x9d", b"\x8f",
)  # fmt: skip
"""What makes noise more interesting: port accesses, string instructions, system instructions, prefixes."""


def noise(rng: random.Random) -> bytes:
    """Up to 64 bytes: uniform noise, or noise with pieces that reach further."""
    if rng.random() < 0.5:
        return rng.randbytes(rng.randint(1, 64))
    return b"".join(rng.choice(COMMON) if rng.random() < 0.6 else rng.randbytes(2) for _ in range(rng.randint(1, 20)))


def possessions() -> tuple[int, int]:
    """Open descriptors and threads."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def run_many(engine: Engine, count: int, seed: int) -> dict[str, int]:
    """Run `count` random guests spread over the modes; how often each mode was refused or ended how."""
    rng = random.Random(seed)
    refused: set[str] = set()
    ends: dict[str, int] = {}
    while sum(ends.values()) < count:
        mode = rng.choice([mode for mode in MODES if mode not in refused])
        code = noise(rng)
        registers = {name: rng.getrandbits(rng.choice((8, 16, 32, 64))) for name in ("rax", "rcx", "rdx", "rsi", "rdi")}
        try:
            with Machine(
                code,
                format="raw",  # noise may begin like a file of another format
                engine=engine,
                mode=mode,
                memory=1 << 20,
                cpl=0 if mode == "real" else rng.choice((0, 3)),
                registers=registers,
            ) as machine:
                result = machine.run(timeout=TIME_LIMIT)
        except ModeUnsupported:
            refused.add(mode)
            continue
        assert result.end in ENDS, (mode, code.hex(), result)
        assert result.message
        ends[result.end.value] = ends.get(result.end.value, 0) + 1
    print(f"{engine.name}: ends {ends}; modes refused here: {sorted(refused) or 'none'}")
    return ends


def check_nothing_left(engine: Engine, count: int, seed: int) -> None:
    """Run many guests and compare what the process holds before and after."""
    run_many(engine, 64, seed + 1)
    gc.collect()
    before = possessions()
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends = run_many(engine, count, seed)
    gc.collect()
    assert possessions() == before
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before
    assert grown_kib < 64 << 10, f"the process grew by {grown_kib} KiB"
    assert {End.CRASH.value, End.HALT.value} <= ends.keys()


@pytest.mark.timeout(600)
def test_random_guests_harm_nobody_but_themselves(engine: Engine) -> None:
    check_nothing_left(engine, COUNT, seed=1)


@pytest.mark.soak
def test_a_million_random_guests(engine: Engine) -> None:
    check_nothing_left(engine, SOAK_COUNT, seed=random.SystemRandom().getrandbits(32))
