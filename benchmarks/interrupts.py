"""Interrupts to a halted vCPU: belljar against a C program with the same ioctls (`yardstick_irq.c`)."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from belljar.machine import Machine
from benchmarks.harness import Figure, compile_c, interleave, paired

GSI = 5
COUNT = 500
ROUNDS = 7
PAUSE_S = 300e-6
"""Between two interrupts: until the vCPU has halted again."""

CODE = bytes.fromhex(
    "c706 1400 0a10"  # mov word ptr [0x14], 0x100a: vector 5, where the 8259 brings its pin 5 after reset
    "fb"              # sti
    "f4"              # again: hlt
    "ebfd"            # jmp again
    "b020"            # handler: mov al, 0x20
    "e620"            # out 0x20, al: end of interrupt
    "e680"            # out 0x80, al
    "cf"              # iret
)  # fmt: skip


class Arrival:
    """Port 0x80: notes when the handler came."""

    ports = range(0x80, 0x81)
    port_width = 1

    def __init__(self) -> None:
        self.at_ns = 0
        self.came = threading.Lock()
        self.came.acquire()

    def port_read(self, port: int, size: int) -> int:
        """Nothing there to read."""
        return 0xFF

    def port_write(self, port: int, size: int, value: int) -> None:
        """The handler runs."""
        self.at_ns = time.monotonic_ns()
        self.came.release()


def in_python() -> float:
    """The median in nanoseconds from the signal to the device method that the handler reaches."""
    event = os.eventfd(0)
    took: list[int] = []
    try:
        with Machine(CODE, engine="kvm", irqchip="kernel") as machine:
            arrival = Arrival()
            machine.bus.attach(arrival)
            assert machine.interrupts is not None
            machine.interrupts.connect_eventfd(event, GSI)

            def signal() -> None:
                for _ in range(COUNT):
                    time.sleep(PAUSE_S)
                    began = time.monotonic_ns()
                    os.eventfd_write(event, 1)
                    if not arrival.came.acquire(timeout=10):
                        break
                    took.append(arrival.at_ns - began)
                machine.stop()

            thread = threading.Thread(target=signal)
            thread.start()
            machine.run(timeout=60)
            thread.join()
    finally:
        os.close(event)
    assert len(took) == COUNT, f"{COUNT - len(took)} interrupts were lost"
    return statistics.median(took)


def measure() -> list[Figure]:
    """The figure."""
    with tempfile.TemporaryDirectory() as folder:
        program = compile_c(Path(__file__).with_name("yardstick_irq.c"), Path(folder) / "yardstick_irq")

        def in_c() -> float:
            command = [str(program), CODE.hex(), str(GSI), str(COUNT)]
            return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

        samples = interleave({"c": in_c, "python": in_python}, ROUNDS)
    ratio = paired(samples, "python", "c", lambda a, b: a / b)
    return [Figure("irqfd interrupt to a halted vCPU / C", ratio, "x", 1.3, samples=samples)]
