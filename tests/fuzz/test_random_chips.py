"""Guests that program the interrupt chips with nonsense: every run ends in its time, and nothing is ever raised."""

from __future__ import annotations

import random
import time

import pytest

from belljar.engine import Engine
from belljar.errors import FeatureUnsupported
from belljar.machine import Machine
from belljar.machine.config import IRQCHIPS
from common import open_or_skip
from conformance.assembly import guest

PORTS = (0x20, 0x21, 0xA0, 0xA1, 0x40, 0x41, 0x42, 0x43, 0x61)
WIDTHS = ("al", "ax", "eax")
LAPIC_REGISTERS = (0x80, 0xB0, 0xD0, 0xE0, 0xF0, 0x280, 0x310, 0x320, 0x350, 0x360, 0x370, 0x380, 0x3E0)
PC_PORTS = (
    0x60, 0x64, 0x70, 0x71, 0x72, 0x73, 0x80, 0x92, 0xCF8, 0xCF9, 0xCFC, 0xE0, 0xE4, 0xE8, 0x510, 0x511, 0x608, 0x2000, 0x2016,
)  # fmt: skip
"""The rest of a PC, and the test device."""

LIMIT_S = 0.03
SLOW_S = 5
"""Far more than the limit and what closing takes, for busy hosts."""

SEEDS = range(16)


def poke(chance: random.Random) -> str:
    """One access to a chip, or something that lets interrupts happen."""
    return chance.choice(
        (
            f"lapic {chance.choice(LAPIC_REGISTERS):#x}, {chance.getrandbits(32):#x}",
            f"lapic {chance.randrange(0, 0x400, 16):#x}, {chance.getrandbits(8):#x}",
            f"lapic 0x300, {0x4000 | chance.getrandbits(11) | chance.getrandbits(2) << 18:#x}",
            f"redirect {chance.randrange(26)}, {chance.getrandbits(17):#x}, {chance.choice((0, 1 << 24, 255 << 24)):#x}",
            f"mov al, {chance.getrandbits(8)}\n out {chance.choice(PORTS):#x}, al",
            f"in al, {chance.choice(PORTS):#x}",
            f"mov eax, [rbx + {chance.randrange(0, 0x1000, 4):#x}]",
            f"mov dx, {chance.choice(PC_PORTS):#x}\n mov eax, {chance.getrandbits(32):#x}\n out dx, {chance.choice(WIDTHS)}",
            f"mov dx, {chance.choice(PC_PORTS):#x}\n in {chance.choice(WIDTHS)}, dx",
            f"mov edi, {0xFED00000 + chance.randrange(0, 0x400, 4):#x}\n mov dword ptr [rdi], {chance.getrandbits(32):#x}",
            f"mov edi, {0xFED00000 + chance.randrange(0, 0x180, 16):#x}\n mov dword ptr [rdi], {chance.getrandbits(15):#x}",
            f"mov edi, {0xFF000000 + chance.randrange(0x10000):#x}\n mov eax, [rdi]\n mov [rdi], rax",
            "sti",
            "chance",
        )
    )


def program(seed: int) -> bytes:
    """Nonsense, and one handler for all vectors."""
    chance = random.Random(seed)
    lines = [f"gate {vector}, handler" for vector in range(256)]
    lines += [poke(chance) for _ in range(60)]
    return guest(
        "main:\n" + "\n".join(lines) + "\n done\nhandler:\n end_of_interrupt\n mov al, 0x20\n out 0x20, al\n iretq\n"
    )


@pytest.mark.parametrize(("name", "irqchip"), [*(("kvm", irqchip) for irqchip in IRQCHIPS), ("soft", "user")])
@pytest.mark.parametrize("seed", SEEDS)
def test_run_of_nonsense_ends_in_its_time(name: str, irqchip: str, seed: int) -> None:
    with open_or_skip(name) as engine:  # type: ignore[attr-defined]
        run_nonsense(engine, irqchip, seed)


def run_nonsense(engine: Engine, irqchip: str, seed: int) -> None:
    try:
        machine = Machine(
            program(seed), engine=engine, mode="long", irqchip=irqchip, cpus=1 + seed % 2, test_device=seed % 3 == 0
        )
    except FeatureUnsupported as error:
        pytest.skip(error.message)
    began = time.monotonic()
    with machine:
        if seed % 4 == 3:
            for _ in machine.exits(timeout=LIMIT_S):
                pass
            assert machine.result is not None
        else:
            machine.run(timeout=LIMIT_S)
        assert machine.interrupts is not None
        machine.interrupts.explain()
    assert time.monotonic() - began < SLOW_S
