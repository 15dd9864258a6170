"""The soft engine: exact budgets, debugging without limits, devices behind every instruction, host writes seen at once."""

from __future__ import annotations

import threading
import time

import pytest

from belljar.engine_data import DebugControl, Watchpoint
from belljar.errors import ClosedError, EngineError
from belljar.exits import Debug, ExitReason, Mmio, PortIo
from belljar.machine import End, Machine
from belljar.soft.engine import SoftEngine
from belljar.x86.state import Registers, Segment, SpecialRegisters
from oracles.on_engine import PlainRegion, RecordingBus

CODE = 0x1000
DEVICE = 0x200000
MEMORY = 1 << 20


class Bench:
    """One vCPU in 64-bit mode, memory identity-mapped with 2 MiB pages, a device above it."""

    def __init__(self, engine: SoftEngine, code: str, **registers: int) -> None:
        self.vm = engine.create_vm()
        self.region = PlainRegion(0, MEMORY)
        self.vm.map(self.region)
        for at, entry in ((0x10000, 0x11007), (0x11000, 0x12007)):
            self.region.view[at : at + 8] = entry.to_bytes(8, "little")
        for index in range(8):
            self.region.view[0x12000 + 8 * index : 0x12008 + 8 * index] = (index << 21 | 0x87).to_bytes(8, "little")
        data = bytes.fromhex(code)
        self.region.view[CODE : CODE + len(data)] = data
        self.bus = RecordingBus()
        self.vcpu = self.vm.create_vcpu(0)
        special = SpecialRegisters(cr0=0x80000011, cr3=0x10000, cr4=0x20, efer=0x500)
        special.cs = Segment(selector=8, type=11, l=1, g=1, limit=0xFFFFFFFF)
        self.vcpu.set_special(special)
        self.vcpu.set_registers(Registers(rip=CODE, rsp=0x8000, **registers))


@pytest.fixture
def engine():
    with SoftEngine() as opened:
        yield opened


def test_a_budget_is_exact_and_the_run_goes_on_where_it_stopped(engine: SoftEngine) -> None:
    bench = Bench(engine, "48ffc0 e6e9 ebf9")  # again: inc rax; out 0xe9, al; jmp again
    total = 0
    for budget in (1, 2, 3, 1, 7, 100, 1, 1000):
        assert bench.vcpu.run(bench.bus, instructions=budget) is ExitReason.INSTRUCTION_LIMIT
        total += budget
        assert bench.vcpu.instructions_retired() == total
        assert bench.vcpu.get_registers().rip - CODE == (0, 3, 5)[total % 3]
    assert len(bench.bus.log) == (total + 1) // 3


def test_state_goes_in_and_out_unchanged_unreal_included(engine: SoftEngine) -> None:
    bench = Bench(engine, "f4")
    special = SpecialRegisters(cr0=0x10)
    special.ds = Segment(selector=0, limit=0xFFFFFFFF, g=1)
    registers = Registers(*range(100, 116), rip=CODE, rflags=0x202)
    bench.vcpu.set_special(special)
    bench.vcpu.set_registers(registers)
    assert bench.vcpu.get_special() == special
    assert bench.vcpu.get_registers() == registers
    assert bench.vcpu.run(bench.bus) is ExitReason.HLT
    assert bench.vcpu.get_special().ds.limit == 0xFFFFFFFF


def test_impossible_states_are_refused_or_fail_at_entry(engine: SoftEngine) -> None:
    bench = Bench(engine, "f4")
    with pytest.raises(EngineError):
        bench.vcpu.set_special(SpecialRegisters(cr4=0x2000))
    with pytest.raises(EngineError):
        bench.vcpu.set_special(SpecialRegisters(cr0=0x80000011, efer=0x100))
    bench.vcpu.set_special(SpecialRegisters(cr0=0x80000010))  # PG without PE
    assert bench.vcpu.run(bench.bus) is ExitReason.FAIL_ENTRY


DEVICE_FORMS = {
    "mov load": ("8b07", [("mmio_read", 4)]),
    "mov store": ("8907", [("mmio_write", 4)]),
    "store immediate": ("c60712", [("mmio_write", 1)]),
    "movzx": ("0fb707", [("mmio_read", 2)]),
    "movsx": ("480fbe07", [("mmio_read", 1)]),
    "alu load": ("480307", [("mmio_read", 8)]),
    "alu store": ("48010f", [("mmio_read", 8), ("mmio_write", 8)]),
    "test": ("f60701", [("mmio_read", 1)]),
    "inc": ("66ff07", [("mmio_read", 2), ("mmio_write", 2)]),
    "xchg": ("870f", [("mmio_read", 4), ("mmio_write", 4)]),
    "cmpxchg": ("f00fb10f", [("mmio_read", 4), ("mmio_write", 4)]),
    "xadd": ("0fc10f", [("mmio_read", 4), ("mmio_write", 4)]),
    "bts": ("0fba2f03", [("mmio_read", 4), ("mmio_write", 4)]),
    "shl": ("d127", [("mmio_read", 4), ("mmio_write", 4)]),
    "setcc": ("0f9407", [("mmio_write", 1)]),
    "push": ("ff37", [("mmio_read", 8)]),
    "pop": ("8f07", [("mmio_write", 8)]),
    "stos": ("ab", [("mmio_write", 4)]),
    "rep stos": ("f3aa", [("mmio_write", 1)] * 3),
    "scas": ("ae", [("mmio_read", 1)]),
    "rep movs": ("f3a4", [("mmio_write", 1)] * 3),
    "cmpxchg16b": ("480fc70f", [("mmio_read", 8)] * 2 + [("mmio_write", 8)] * 2),
}


@pytest.mark.parametrize("form", DEVICE_FORMS)
def test_every_form_of_memory_operand_reaches_a_device(engine: SoftEngine, form: str) -> None:
    code, wanted = DEVICE_FORMS[form]
    bench = Bench(engine, code + "f4", rdi=DEVICE, rsi=0x3000, rcx=3)
    seen: list[tuple[str, int]] = []

    def watch(exit) -> None:
        if isinstance(exit, Mmio):
            seen.append(("mmio_write" if exit.write else "mmio_read", exit.size))

    assert bench.vcpu.run(bench.bus, observer=watch) is ExitReason.HLT
    assert seen == wanted


def test_an_access_across_memory_and_device_is_split_where_they_meet(engine: SoftEngine) -> None:
    bench = Bench(engine, "488907 f4", rdi=MEMORY - 3, rax=0x8877665544332211)
    exits = []
    assert bench.vcpu.run(bench.bus, observer=exits.append) is ExitReason.HLT
    assert bytes(bench.region.view[MEMORY - 3 : MEMORY]) == b"\x11\x22\x33"
    assert [(each.gpa, each.data) for each in exits if isinstance(each, Mmio)] == [(MEMORY, b"\x44\x55\x66\x77\x88")]


def test_single_exits_come_one_by_one_also_from_one_instruction(engine: SoftEngine) -> None:
    bench = Bench(engine, "48010f e6e9 f4", rdi=DEVICE)
    found = []
    for _ in range(4):
        found.append((bench.vcpu.run(bench.bus, single_exit=True), type(bench.vcpu.last_exit())))
    assert [reason for reason, _ in found] == [ExitReason.MMIO, ExitReason.MMIO, ExitReason.IO, ExitReason.HLT]
    assert found[2][1] is PortIo


def test_rep_outs_and_ins_move_through_memory(engine: SoftEngine) -> None:
    bench = Bench(engine, "f36e f4", rsi=0x3000, rcx=5, rdx=0x70)
    bench.region.view[0x3000:0x3005] = b"abcde"
    exits = []
    assert bench.vcpu.run(bench.bus, observer=exits.append) is ExitReason.HLT
    assert b"".join(each.data for each in exits if isinstance(each, PortIo)) == b"abcde"
    registers = bench.vcpu.get_registers()
    assert (registers.rsi, registers.rcx) == (0x3005, 0)
    bench = Bench(engine, "f36d f4", rdi=0x3FF8, rcx=4, rdx=0x70)
    exits = []
    assert bench.vcpu.run(bench.bus, observer=exits.append) is ExitReason.HLT
    given = b"".join(each.data for each in exits if isinstance(each, PortIo))
    assert len(given) == 16
    assert bytes(bench.region.view[0x3FF8:0x4008]) == given


def test_a_hundred_breakpoints_stop_before_their_instructions(engine: SoftEngine) -> None:
    bench = Bench(engine, "90" * 200 + "f4")
    places = tuple(CODE + 2 * i for i in range(100))
    bench.vcpu.set_debug(DebugControl(breakpoints_gva=places))
    for place in places:
        assert bench.vcpu.run(bench.bus) is ExitReason.DEBUG
        stop = bench.vcpu.last_exit()
        assert isinstance(stop, Debug)
        assert stop.pc_gva == place == bench.vcpu.get_registers().rip
        bench.vcpu.set_debug(DebugControl(single_step=True))
        assert bench.vcpu.run(bench.bus) is ExitReason.DEBUG
        bench.vcpu.set_debug(DebugControl(breakpoints_gva=places))
    assert bench.vcpu.run(bench.bus) is ExitReason.HLT


def test_watchpoints_on_writes_and_reads_stop_behind_the_access(engine: SoftEngine) -> None:
    bench = Bench(engine, "8a06 90 8806 90 f4", rsi=0x3001)
    bench.vcpu.set_debug(DebugControl(watchpoints=(Watchpoint(0x3000, 4),)))
    assert bench.vcpu.run(bench.bus) is ExitReason.DEBUG
    assert bench.vcpu.get_registers().rip == CODE + 5
    assert bench.vcpu.run(bench.bus) is ExitReason.HLT
    bench = Bench(engine, "8a06 90 8806 90 f4", rsi=0x3001)
    bench.vcpu.set_debug(DebugControl(watchpoints=(Watchpoint(0x3000, 4, on_read=True),)))
    assert bench.vcpu.run(bench.bus) is ExitReason.DEBUG
    assert bench.vcpu.get_registers().rip == CODE + 2


def test_code_written_through_a_view_runs_at_the_next_entry(engine: SoftEngine) -> None:
    bench = Bench(engine, "b001 f4")
    for value in (1, 2, 3):
        bench.region.view[CODE + 1] = value  # nobody tells the engine
        bench.vcpu.set_registers(Registers(rip=CODE))
        assert bench.vcpu.run(bench.bus) is ExitReason.HLT
        assert bench.vcpu.get_registers().rax == value


def test_code_that_a_device_writes_in_the_middle_of_a_run_is_executed(engine: SoftEngine) -> None:
    bench = Bench(engine, "e6e9 b001 f4")

    class Writer(RecordingBus):
        def port_write(self, port: int, size: int, value: int) -> None:
            bench.region.view[CODE + 3] = 0x77

    assert bench.vcpu.run(Writer(), instructions=1) is ExitReason.INSTRUCTION_LIMIT
    bench.vcpu.set_registers(Registers(rip=CODE))
    assert bench.vcpu.run(Writer()) is ExitReason.HLT
    assert bench.vcpu.get_registers().rax == 0x77


def test_read_only_memory_can_be_read_and_executed_and_stores_are_the_device_s(engine: SoftEngine) -> None:
    bench = Bench(engine, "8a07 8807 ffe7", rdi=0x100000)
    rom = PlainRegion(0x100000, 4096, slot=1, readonly=True)
    rom.view[0:1] = b"\xf4"
    bench.vm.map(rom)
    exits = []
    assert bench.vcpu.run(bench.bus, observer=exits.append) is ExitReason.HLT
    assert rom.view[0] == 0xF4
    assert [(each.gpa, each.write) for each in exits if isinstance(each, Mmio)] == [(0x100000, True)]


def test_memory_taken_away_is_a_device_from_then_on(engine: SoftEngine) -> None:
    bench = Bench(engine, "8a07 ebfc", rdi=0x100000)
    extra = PlainRegion(0x100000, 4096, slot=1)
    bench.vm.map(extra)
    bench.vcpu.run(bench.bus, instructions=10)
    assert ExitReason.MMIO not in bench.vcpu.exit_counts()
    bench.vm.unmap(extra)
    bench.vcpu.run(bench.bus, instructions=2)
    assert bench.vcpu.exit_counts()[ExitReason.MMIO] == 1


def test_overlapping_and_unreachable_memory_is_refused(engine: SoftEngine) -> None:
    bench = Bench(engine, "f4")
    with pytest.raises(EngineError):
        bench.vm.map(PlainRegion(MEMORY - 4096, 8192, slot=1))
    with pytest.raises(EngineError):
        bench.vm.map(PlainRegion(1 << 46, 4096, slot=2))


def test_exceptions_of_devices_come_out_and_the_access_counts_as_done(engine: SoftEngine) -> None:
    class Broken(RecordingBus):
        def port_read(self, port: int, size: int) -> int:
            raise RuntimeError("device")

        def mmio_read(self, gpa: int, size: int) -> int:
            raise RuntimeError("device")

    for code in ("e4e9 f4", "8a07 f4"):
        bench = Bench(engine, code, rdi=DEVICE)
        with pytest.raises(RuntimeError):
            bench.vcpu.run(Broken())
        assert bench.vcpu.get_registers().rip == CODE + 2
        assert bench.vcpu.get_registers().rax & 0xFF == 0xFF
        assert bench.vcpu.run(bench.bus) is ExitReason.HLT


def test_fetching_from_a_device_finds_no_instruction(engine: SoftEngine) -> None:
    bench = Bench(engine, "ffe7", rdi=DEVICE)
    assert bench.vcpu.run(bench.bus) is ExitReason.SHUTDOWN


def test_a_fault_handler_that_faults_for_ever_still_ends_by_budget_and_by_clock(engine: SoftEngine) -> None:
    bench = Bench(engine, "0f0b")
    bench.region.view[0x6060:0x6068] = (0x2000 | 8 << 16 | 0x8E01 << 32).to_bytes(8, "little")  # #UD on IST 1
    bench.region.view[0x7008:0x7010] = (0x00209B0000000000).to_bytes(8, "little")
    bench.region.view[0x2000:0x2002] = bytes.fromhex("0f0b")
    bench.region.view[0x9024:0x902C] = (0xA000).to_bytes(8, "little")
    special = bench.vcpu.get_special()
    special.idt.base_gva, special.idt.limit = 0x6000, 0xFFF
    special.gdt.base_gva, special.gdt.limit = 0x7000, 0xF
    special.tr.base, special.tr.limit = 0x9000, 0x67
    bench.vcpu.set_special(special)
    assert bench.vcpu.run(bench.bus, instructions=1000) is ExitReason.INSTRUCTION_LIMIT
    deadline = time.monotonic_ns() + 20_000_000
    assert bench.vcpu.run(bench.bus, deadline_ns=deadline) is ExitReason.INTERRUPTED


def test_machines_in_two_threads_run_side_by_side() -> None:
    ends = []

    def one() -> None:
        with Machine("hello-long", engine="soft") as machine:
            for _ in range(20):
                ends.append(machine.run(timeout=20).end)
                machine.cpu.rip = CODE

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [End.HALT] * 80


def test_a_closed_vcpu_refuses_and_a_late_kick_is_harmless(engine: SoftEngine) -> None:
    bench = Bench(engine, "f4")
    bench.vm.close()
    bench.vcpu.kick()
    with pytest.raises(ClosedError):
        bench.vcpu.run(bench.bus)
    with pytest.raises(ClosedError):
        bench.vm.create_vcpu(1)


def test_time_stamps_are_the_same_in_every_run() -> None:
    stamps = []
    for _ in range(2):
        with Machine(bytes.fromhex("0f31 8bd8 90 0f31 f4"), engine="soft", mode="long") as machine:
            machine.run(timeout=20)
            stamps.append((machine.cpu.rbx, machine.cpu.rax))
    assert stamps[0] == stamps[1]
    assert stamps[0][1] > stamps[0][0]


def test_the_debug_exit_device_ends_the_run_at_once() -> None:
    with Machine(bytes.fromhex("b003 e6f4 ebfe"), engine="soft", mode="long") as machine:
        result = machine.run(timeout=20)
    assert (result.end, result.status) == (End.DEBUG_EXIT, 7)
