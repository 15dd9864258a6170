"""The local APIC, behaviour by behaviour (SDM 3A chapter 11)."""

from __future__ import annotations

from itertools import count

import pytest

from belljar.devices.apic_message import ApicMessage, DeliveryMode
from belljar.devices.clock import HostClock
from belljar.devices.lapic_timer import ONE_SHOT, ApicTimer
from belljar.x86.local_apic import Reg
from belljar.x86.msr import Msr
from devices.pc import Pc

BASE = 0xFEE00000
MASKED, LEVEL = 1 << 16, 1 << 15
ASSERT = 1 << 14
SELF, ALL, OTHERS = 1 << 18, 2 << 18, 3 << 18
PERIODIC, DEADLINE = 1 << 17, 2 << 17
GP = False


class Cpus:
    """Local APICs switched on, in a PC whose 8259s are masked."""

    def __init__(self, cpus: int = 4, **options: bool) -> None:
        self.pc = Pc(cpus, **options)
        self.lapics = self.pc.lapics
        self.pc.out(0x21, 0xFF)
        self.pc.out(0xA1, 0xFF)
        for number, lapic in enumerate(self.lapics):
            lapic.write(Reg.SVR, 0x1FF)
            lapic.write(Reg.LDR, 1 << 24 + number)

    def send(self, sender: int, command: int, destination: int = 0) -> None:
        self.lapics[sender].write(Reg.ICR_HIGH, destination << 24)
        self.lapics[sender].write(Reg.ICR, command | ASSERT)

    def requested(self, vector: int) -> list[int]:
        return [cpu for cpu, lapic in enumerate(self.lapics) if lapic.vectors.irr >> vector & 1]

    def x2apic(self) -> None:
        for msrs in self.pc.msrs:
            assert msrs.write_msr(Msr.IA32_APIC_BASE, msrs.lapic.base | 0x400)


def test_state_after_power_up() -> None:
    lapic = Pc(2).lapics
    page = {reg: lapic[1].read(reg) for reg in Reg if reg not in (Reg.EOI, Reg.SELF_IPI)}
    masked = (Reg.LVT_CMCI, Reg.LVT_TIMER, Reg.LVT_THERMAL, Reg.LVT_PERF, Reg.LVT_LINT0, Reg.LVT_LINT1, Reg.LVT_ERROR)
    expected = {
        Reg.ID: 1 << 24,
        Reg.VERSION: 0x60014,
        Reg.DFR: 0xFFFFFFFF,
        Reg.SVR: 0xFF,
        **dict.fromkeys(masked, MASKED),
    }
    assert page == {reg: expected.get(reg, 0) for reg in page}
    assert (lapic[0].base, lapic[1].base) == (0xFEE00900, 0xFEE00800)
    assert (lapic[0].read(Reg.LVT_LINT0), lapic[0].local.accepts_extint, lapic[1].local.accepts_extint) == (
        0x700,
        True,
        False,
    )


def test_priorities_decide_what_is_delivered_when() -> None:
    cpus = Cpus()
    lapic = cpus.lapics[0]
    for vector in (0x41, 0x93, 0x4F):
        cpus.send(0, vector | SELF)
    assert lapic.take() == 0x93
    assert (lapic.read(Reg.PPR), lapic.has_interrupt()) == (0x90, False)
    lapic.write(Reg.EOI, 0)
    lapic.write(Reg.TPR, 0x40)
    assert not lapic.has_interrupt()
    assert lapic.cr8 == 4
    woken = cpus.pc.woken[0]
    lapic.cr8 = 3
    assert cpus.pc.woken[0] == woken + 1
    assert lapic.take() == 0x4F
    assert not lapic.has_interrupt(), "0x41 is of the same class"
    lapic.write(Reg.EOI, 0)
    assert lapic.take() == 0x41
    assert lapic.read(Reg.PPR) == 0x40
    assert (lapic.read(Reg.ISR + 2), lapic.read(Reg.IRR + 2)) == (1 << 1, 0)


def test_an_apic_that_is_off_takes_no_fixed_interrupts_but_nmi_and_init() -> None:
    cpus = Cpus()
    cpus.lapics[2].write(Reg.LVT_ERROR, 0x45)
    cpus.lapics[2].write(Reg.SVR, 0xFF)
    assert cpus.lapics[2].read(Reg.LVT_ERROR) == 0x45 | MASKED
    cpus.lapics[2].write(Reg.LVT_ERROR, 0x45)
    assert cpus.lapics[2].read(Reg.LVT_ERROR) == 0x45 | MASKED, "entries stay masked"
    cpus.send(0, 0x55, 2)
    cpus.send(0, DeliveryMode.NMI << 8, 2)
    assert cpus.requested(0x55) == []
    assert cpus.lapics[2].signals.take_nmi()


@pytest.mark.parametrize(
    ("command", "destination", "reached"),
    [
        (0, 2, [2]),
        (0, 0xFF, [0, 1, 2, 3]),
        (1 << 11, 0b1010, [1, 3]),
        (1 << 11, 0xFF, [0, 1, 2, 3]),
        (SELF, 3, [1]),
        (ALL, 3, [0, 1, 2, 3]),
        (OTHERS, 3, [0, 2, 3]),
        (0, 9, []),
    ],
)
def test_ipis_reach_their_destinations(command: int, destination: int, reached: list[int]) -> None:
    cpus = Cpus()
    cpus.send(1, 0x61 | command, destination)
    assert cpus.requested(0x61) == reached


def test_clusters_are_addressed_by_their_number_and_members() -> None:
    cpus = Cpus()
    for number, lapic in enumerate(cpus.lapics):
        lapic.write(Reg.DFR, 0)
        lapic.write(Reg.LDR, (number // 2 + 1 << 4 | 1 << number % 2) << 24)
        assert lapic.read(Reg.DFR) == 0x0FFFFFFF
    cpus.send(0, 0x61 | 1 << 11, 0x23)
    assert cpus.requested(0x61) == [2, 3]
    cpus.lapics[3].write(Reg.DFR, 0x50000000)
    cpus.send(0, 0x62 | 1 << 11, 0x23)
    assert cpus.requested(0x62) == [2], "other formats match nothing"


def test_lowest_priority_picks_one_and_takes_turns_among_equals() -> None:
    cpus = Cpus()
    cpus.lapics[0].write(Reg.TPR, 0x80)
    chosen = []
    for vector in range(0x60, 0x66):
        cpus.send(0, vector | 1 << 8 | 1 << 11, 0xFF)
        chosen += cpus.requested(vector)
    assert chosen == [1, 2, 3, 1, 2, 3]
    for lapic in cpus.lapics:
        lapic.write(Reg.SVR, 0xFF)
    cpus.send(0, 0x70 | 1 << 8 | 1 << 11, 0xFF)
    assert cpus.requested(0x70) == []


def test_init_forgets_start_ups_before_it_and_resets_all_but_the_id() -> None:
    cpus = Cpus()
    lapic = cpus.lapics[3]
    cpus.send(0, DeliveryMode.STARTUP << 8 | 0x9A, 3)
    cpus.send(0, DeliveryMode.INIT << 8 | LEVEL, 3)
    assert (lapic.signals.init, lapic.signals.sipi) == (True, -1), "INIT forgets what came before"
    cpus.send(0, DeliveryMode.STARTUP << 8 | 0x12, 3)
    lapic.write(Reg.ID, 7 << 24)
    assert lapic.accept_init()
    assert not lapic.accept_init()
    assert (lapic.read(Reg.SVR), lapic.read(Reg.ID), lapic.signals.take_sipi()) == (0xFF, 7 << 24, 0x12)
    cpus.lapics[0].write(Reg.ICR_HIGH, 2 << 24)
    cpus.lapics[0].write(Reg.ICR, DeliveryMode.INIT << 8 | LEVEL)
    assert not cpus.lapics[2].signals.init, "de-assert resets nobody"


def test_smis_are_latched_once_and_one_nmi_waits_behind_another() -> None:
    cpus = Cpus()
    for _ in range(3):
        cpus.send(0, DeliveryMode.SMI << 8 | OTHERS)
        cpus.send(0, DeliveryMode.NMI << 8 | OTHERS)
    signals = cpus.lapics[1].signals
    assert (signals.take_smi(), signals.take_smi()) == (True, False)
    assert signals.take_nmi()
    signals.nmi_blocked = True
    cpus.send(0, DeliveryMode.NMI << 8 | OTHERS)
    assert (signals.take_nmi(), signals.take_nmi()) == (True, False), "one in service, one waiting"
    assert not cpus.lapics[0].signals.pending


def test_level_triggered_interrupts_are_ended_at_the_ioapic_unless_suppressed() -> None:
    for suppress in (False, True):
        cpus = Cpus(1, eoi_suppression=suppress)
        lapic, ioapic = cpus.lapics[0], cpus.pc.chips.ioapic
        assert lapic.read(Reg.VERSION) >> 24 == suppress
        ioapic.write_register(0x10 + 40, 0x71 | LEVEL)
        line = cpus.pc.chips.router.line(20, "card")
        for broadcast in (True, False) if suppress else (True,):
            lapic.write(Reg.SVR, 0x1FF if broadcast else 0x11FF)
            line(True)
            assert lapic.take() == 0x71
            assert lapic.read(Reg.TMR + 3) == 1 << 0x11
            line(False)
            lapic.write(Reg.EOI, 0)
            assert bool(ioapic.read_register(0x10 + 40) >> 14 & 1) != broadcast


def test_illegal_vectors_and_registers_are_reported_in_esr() -> None:
    cpus = Cpus()
    lapic = cpus.lapics[0]
    lapic.write(Reg.LVT_ERROR, 0xE1)
    cpus.send(0, 0x0F | SELF)
    cpus.pc.chips.deliver(ApicMessage(3, destination=0))
    assert lapic.read(Reg.ESR) == 0
    lapic.write(Reg.ESR, 0)
    assert lapic.read(Reg.ESR) == 0x60
    window = cpus.pc.windows[0]
    assert window.mmio_read(BASE + 0x50, 4) == 0
    window.mmio_write(BASE + 0x10, 4, 1)
    window.mmio_write(BASE + 0x30, 4, 1)
    lapic.write(Reg.ESR, 0)
    assert lapic.read(Reg.ESR) == 0x80
    lapic.write(Reg.ESR, 0)
    assert lapic.read(Reg.ESR) == 0
    assert lapic.take() == 0xE1
    lapic.write(Reg.LVT_ERROR, 0x05)
    cpus.send(0, 0x02 | SELF)
    assert lapic.vectors.irr & 0xFFFF == 0


def test_registers_are_32_bits_at_multiples_of_16() -> None:
    cpus = Cpus()
    window = cpus.pc.windows[1]
    window.mmio_write(BASE + 0x80, 1, 0x55)
    window.mmio_write(BASE + 0x84, 4, 0x55)
    assert window.mmio_read(BASE + 0x80, 4) == 0
    window.mmio_write(BASE + 0x80, 4, 0x1A5)
    assert (window.mmio_read(BASE + 0x80, 4), window.mmio_read(BASE + 0x80, 1)) == (0xA5, 0xA5)
    assert window.mmio_read(BASE + 0x31, 2) == 0x0600
    assert window.mmio_read(BASE + 0x32, 4) == 0


def test_the_page_moves_with_its_base_and_each_cpu_has_its_own() -> None:
    cpus = Cpus(2)
    one, two = cpus.pc.windows
    assert (one.mmio_read(BASE + 0x20, 4), two.mmio_read(BASE + 0x20, 4)) == (0, 1 << 24)
    assert cpus.pc.msrs[1].write_msr(Msr.IA32_APIC_BASE, 0xFF000800)
    assert two.mmio_read(0xFF000020, 4) == 1 << 24
    assert two.mmio_read(BASE + 0x20, 4) == 0xFFFFFFFF
    assert one.mmio_read(0xFF000020, 4) == 0, "there it sees the test device"


def test_apic_base_follows_the_manuals_diagram() -> None:
    pc = Pc(2)
    msrs, lapic = pc.msrs[1], pc.lapics[1]
    xapic, x2apic, off, invalid = (BASE | bits for bits in (0x800, 0xC00, 0, 0x400))
    for value in (invalid, xapic | 1, xapic | 1 << 9, 1 << 46):
        assert msrs.write_msr(Msr.IA32_APIC_BASE, value) is GP
    assert msrs.write_msr(Msr.IA32_APIC_BASE, x2apic)
    assert msrs.write_msr(Msr.IA32_APIC_BASE, xapic) is GP
    assert (msrs.read_msr(Msr.IA32_X2APIC_APICID), msrs.read_msr(Msr.IA32_X2APIC_LDR)) == (1, 2)
    lapic.write(Reg.SVR, 0x1FF)
    assert msrs.write_msr(Msr.IA32_APIC_BASE, off)
    assert (msrs.write_msr(Msr.IA32_APIC_BASE, x2apic), lapic.read(Reg.SVR)) == (GP, 0xFF)
    assert msrs.write_msr(Msr.IA32_APIC_BASE, xapic)
    assert msrs.read_msr(Msr.IA32_X2APIC_APICID) is None


def test_x2apic_registers_refuse_reserved_bits_and_read_only_ones() -> None:
    cpus = Cpus(2)
    cpus.x2apic()
    msrs = cpus.pc.msrs[0]
    refused = [
        (0x802, 0), (0x803, 0), (0x80A, 0), (0x80D, 0), (0x80E, 0), (0x810, 0), (0x839, 0), (0x831, 0), (0x808, 0x100),
        (0x80B, 1), (0x80F, 0x400), (0x828, 1), (0x832, 1 << 19), (0x83E, 4), (0x83F, 0x100), (0x830, 1 << 13),
        (0x808, 1 << 32), (0x840, 0), (0x8FF, 0),
    ]  # fmt: skip
    assert [msrs.write_msr(msr, value) for msr, value in refused] == [GP] * len(refused)
    assert [msrs.read_msr(msr) for msr in (0x80B, 0x80E, 0x809, 0x831, 0x83F, 0x840)] == [None] * 6
    assert msrs.write_msr(0x830, 1 << 32 | 0x66)
    assert (cpus.requested(0x66), msrs.read_msr(0x830)) == ([1], 1 << 32 | 0x66)
    assert msrs.write_msr(0x83F, 0x77)
    assert cpus.requested(0x77) == [0]
    assert msrs.write_msr(0x830, 0xFFFFFFFF << 32 | 0x88)
    assert cpus.requested(0x88) == [0, 1]
    assert msrs.write_msr(0x830, 0x00000002 << 32 | 1 << 11 | 0x99)
    assert cpus.requested(0x99) == [1]


def test_a_device_broadcast_reaches_x2apics_too() -> None:
    cpus = Cpus(2)
    cpus.x2apic()
    assert cpus.pc.chips.signal_msi(0xFEEFF000, 0x41) == 2


def test_one_shot_and_periodic_timers() -> None:
    cpus = Cpus(1)
    lapic, clock = cpus.lapics[0], cpus.pc.clock
    lapic.write(Reg.DIVIDE, 0x3)
    lapic.write(Reg.LVT_TIMER, 0x40)
    lapic.write(Reg.INITIAL_COUNT, 100_000)
    clock.advance(1_599_999)
    assert (lapic.read(Reg.CURRENT_COUNT), lapic.has_interrupt()) == (0, False)
    clock.advance(1)
    assert (lapic.take(), lapic.read(Reg.CURRENT_COUNT)) == (0x40, 0)
    lapic.write(Reg.EOI, 0)
    clock.advance(10**9)
    assert not lapic.has_interrupt()
    lapic.write(Reg.LVT_TIMER, 0x41 | PERIODIC)
    lapic.write(Reg.INITIAL_COUNT, 100_000)
    for _ in range(3):
        clock.advance(1_600_000)
        assert lapic.take() == 0x41
        lapic.write(Reg.EOI, 0)
    clock.advance(400_000)
    assert lapic.read(Reg.CURRENT_COUNT) == 75_000
    lapic.write(Reg.DIVIDE, 0xB)
    assert lapic.read(Reg.CURRENT_COUNT) == 75_000
    assert clock.next_deadline_ns() == clock.now_ns() + 75_000
    lapic.write(Reg.INITIAL_COUNT, 0)
    assert (clock.next_deadline_ns(), lapic.read(Reg.CURRENT_COUNT)) == (None, 0)


def test_a_masked_timer_counts_silently_and_loses_what_it_would_have_said() -> None:
    cpus = Cpus(1)
    lapic, clock = cpus.lapics[0], cpus.pc.clock
    lapic.write(Reg.LVT_TIMER, 0x40 | MASKED)
    lapic.write(Reg.DIVIDE, 0xB)
    lapic.write(Reg.INITIAL_COUNT, 5000)
    assert clock.next_deadline_ns() is None
    clock.advance(2000)
    assert lapic.read(Reg.CURRENT_COUNT) == 3000
    clock.advance(4000)
    lapic.write(Reg.LVT_TIMER, 0x40)
    clock.advance(10_000)
    assert not lapic.has_interrupt()


def test_a_count_that_is_over_before_it_is_seen_to_begin_interrupts() -> None:
    ticks: list[int] = []
    clock = HostClock(source=count(0, 1000).__next__)  # everybody who looks at the time finds it later
    timer = ApicTimer(clock, lambda: ticks.append(1))
    timer.set_mode(ONE_SHOT, True)
    timer.write_initial(1)
    clock.run_due()
    assert ticks == [1]
    timer.write_divide(0xB)
    clock.run_due()
    assert ticks == [1]


def test_a_counter_that_jumps_takes_no_tick_from_a_timer_that_does_not_follow_it() -> None:
    cpus = Cpus(1)
    lapic, clock = cpus.lapics[0], cpus.pc.clock
    lapic.write(Reg.LVT_TIMER, 0x40)
    lapic.write(Reg.DIVIDE, 0xB)
    lapic.write(Reg.INITIAL_COUNT, 1000)
    clock.time_ns += 1000  # due, and not run yet
    lapic.timer.rearm()
    clock.advance(0)
    assert lapic.take() == 0x40


def test_the_tsc_deadline_fires_at_its_time_and_disarms() -> None:
    cpus = Cpus(1)
    lapic, msrs, clock, tsc = cpus.lapics[0], cpus.pc.msrs[0], cpus.pc.clock, cpus.pc.tsc
    assert msrs.write_msr(Msr.IA32_TSC_DEADLINE, 1000)
    assert msrs.read_msr(Msr.IA32_TSC_DEADLINE) == 0, "ignored in other modes"
    lapic.write(Reg.LVT_TIMER, 0x40 | DEADLINE)
    lapic.write(Reg.INITIAL_COUNT, 77)
    assert lapic.read(Reg.INITIAL_COUNT) == 0
    msrs.write_msr(Msr.IA32_TSC_DEADLINE, 4000)
    assert msrs.read_msr(Msr.IA32_TSC_DEADLINE) == 4000
    clock.advance(1999)
    assert not lapic.has_interrupt()
    clock.advance(1)
    assert (tsc.read(), lapic.take(), msrs.read_msr(Msr.IA32_TSC_DEADLINE)) == (4000, 0x40, 0)
    lapic.write(Reg.EOI, 0)
    msrs.write_msr(Msr.IA32_TSC_DEADLINE, 1)
    clock.advance(0)
    assert lapic.take() == 0x40, "a deadline in the past is due at once"
    lapic.write(Reg.EOI, 0)
    msrs.write_msr(Msr.IA32_TSC_DEADLINE, 1 << 40)
    lapic.write(Reg.LVT_TIMER, 0x40)
    assert (msrs.read_msr(Msr.IA32_TSC_DEADLINE), clock.next_deadline_ns()) == (0, None)


def test_lint0_passes_the_8259_through_only_where_it_says_extint() -> None:
    cpus = Cpus(2)
    pc = cpus.pc
    for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0)):
        pc.out(port, value)
    pc.pit_line.pulse()
    assert [lapic.has_interrupt() for lapic in cpus.lapics] == [True, False]
    cpus.lapics[0].write(Reg.LVT_LINT0, 0x700 | MASKED)
    assert not cpus.lapics[0].has_interrupt()
    cpus.lapics[1].write(Reg.LVT_LINT0, 0x700)
    assert cpus.lapics[1].take() == 0x30
    pc.out(0x20, 0x20)
    pc.msrs[1].write_msr(Msr.IA32_APIC_BASE, BASE)
    pc.pit_line.pulse()
    assert cpus.lapics[1].take() == 0x30, "switched off, LINT0 is the INTR pin"


def test_lint_pins_deliver_as_their_entries_say() -> None:
    cpus = Cpus(1)
    lapic = cpus.lapics[0]
    lapic.write(Reg.LVT_LINT1, DeliveryMode.NMI << 8)
    cpus.pc.chips.nmi(0)
    assert lapic.signals.take_nmi()
    lapic.write(Reg.LVT_LINT0, 0x52 | LEVEL)
    lapic.local.set_lint(0, True)
    assert lapic.take() == 0x52
    assert lapic.read(Reg.LVT_LINT0) >> 14 & 1
    lapic.write(Reg.EOI, 0)
    assert lapic.take() == 0x52, "the level is still up"
    lapic.local.set_lint(0, False)
    lapic.write(Reg.EOI, 0)
    assert (lapic.has_interrupt(), lapic.read(Reg.LVT_LINT0)) == (False, 0x52 | LEVEL)


def test_performance_interrupts_mask_themselves() -> None:
    lapic = Cpus(1).lapics[0]
    lapic.write(Reg.LVT_PERF, DeliveryMode.NMI << 8)
    lapic.local.raise_local(Reg.LVT_PERF)
    lapic.signals.take_nmi()
    lapic.local.raise_local(Reg.LVT_PERF)
    assert (lapic.signals.nmi, lapic.read(Reg.LVT_PERF)) == (False, DeliveryMode.NMI << 8 | MASKED)
    lapic.write(Reg.LVT_CMCI, 0x66)
    lapic.local.raise_local(Reg.LVT_CMCI)
    assert lapic.take() == 0x66


def test_an_extint_message_asks_the_8259() -> None:
    cpus = Cpus(2)
    pc = cpus.pc
    pc.chips.ioapic.write_register(0x11, 1 << 24)
    pc.chips.ioapic.write_register(0x10, DeliveryMode.EXTINT << 8)
    for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0)):
        pc.out(port, value)
    cpus.lapics[0].write(Reg.LVT_LINT0, MASKED)
    pc.rtc_line.pulse()
    pc.pit_line.pulse()
    assert cpus.lapics[1].has_interrupt()
    assert [cpus.lapics[1].take(), cpus.lapics[0].has_interrupt()] == [0x30, False]
    pc.out(0x20, 0x20)


def test_messages_reach_cpus_that_are_there_only() -> None:
    cpus = Cpus(2)
    cpus.pc.chips.add_cpu(2).write(Reg.SVR, 0x1FF)
    assert cpus.pc.chips.signal_msi(0xFEEFF000, 0x41) == 3
    cpus.pc.chips.remove_cpu(1)
    assert cpus.pc.chips.signal_msi(0xFEE01000, 0x42) == 0
