"""VM entries and exits on the bare processor: the checks, the controls, and what an exit tells (SDM 3C 26 to 28)."""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Iterator

import pytest

from belljar.soft.hypervisor import controls
from belljar.soft.hypervisor.events import VALID
from belljar.soft.hypervisor.mmu.tables import EPT_RWX, EptTables, PagePool
from belljar.soft.hypervisor.reasons import Reason
from belljar.soft.hypervisor.state import set_special
from belljar.soft.processor._core import HostMemory, Processor, VmcsRegion, VmxError
from belljar.soft.processor.fields import Field
from belljar.x86.state import Segment, SpecialRegisters

MEMORY = 1 << 20
CODE = 0x1000
CONTROL_FIELDS, HOST_STATE, LAUNCH_NOT_CLEAR, RESUME_NOT_LAUNCHED = 7, 8, 4, 5
RAX, RCX, RDX, RBX = 0, 1, 2, 3
MONITOR_TRAP, PREEMPTION_TIMER, EXCEPTION = 37, 52, 0


class Bench:
    """A processor with a guest of 1 MiB in 32-bit flat protected mode."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, MEMORY)
        hva = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.memory = HostMemory()
        self.hpa = hpa = self.memory.attach(hva, MEMORY)
        pool = PagePool(self.memory)
        self.tables = EptTables(self.memory, pool)
        for page in range(0, MEMORY, 4096):
            self.tables.map(page, hpa + page, level=1, rights=EPT_RWX)
        self.bitmap = pool.take()
        self.processor = Processor(self.memory)
        self.processor.vmptrld(VmcsRegion())
        controls.set_up(self.processor, self.tables.eptp, self.bitmap)
        special = SpecialRegisters(cr0=0x11)
        special.cs = Segment(selector=8, type=11, db=1, g=1, limit=0xFFFFFFFF)
        for name in ("ds", "es", "fs", "gs", "ss"):
            setattr(special, name, Segment(selector=16, type=3, db=1, g=1, limit=0xFFFFFFFF))
        set_special(self.processor, special)
        self.write(Field.GUEST_RIP, CODE)
        self.write(Field.GUEST_RFLAGS, 2)
        self.write(Field.GUEST_RSP, 0x8000)

    def write(self, field: Field, value: int) -> None:
        self.processor.vmwrite(field, value)

    def read(self, field: Field) -> int:
        return self.processor.vmread(field)

    def change(self, field: Field, bits_set: int, bits_clear: int = 0) -> None:
        self.write(field, self.read(field) & ~bits_clear | bits_set)

    def code(self, text: str) -> None:
        data = bytes.fromhex(text)
        self.map[CODE : CODE + len(data)] = data

    def enter(self, budget: int = 1000) -> int:
        return self.processor.enter(budget)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.processor.vmclear()


def test_launch_state_decides_which_instruction_enters(bench: Bench) -> None:
    bench.code("90 f4")
    with pytest.raises(VmxError) as caught:
        bench.processor.vmresume(10)
    assert caught.value.number == RESUME_NOT_LAUNCHED
    assert bench.processor.vmlaunch(10) == Reason.HLT
    with pytest.raises(VmxError) as caught:
        bench.processor.vmlaunch(10)
    assert caught.value.number == LAUNCH_NOT_CLEAR
    assert bench.processor.vmresume(10) == Reason.HLT


@pytest.mark.parametrize(
    ("field", "value", "number"),
    [
        (Field.PIN_CONTROLS, 0, CONTROL_FIELDS),
        (Field.PIN_CONTROLS, 1 << 31 | 0x16, CONTROL_FIELDS),
        (Field.PRIMARY_CONTROLS, 0, CONTROL_FIELDS),
        (Field.SECONDARY_CONTROLS, 1 << 7, CONTROL_FIELDS),  # unrestricted without EPT
        (Field.CR3_TARGET_COUNT, 5, CONTROL_FIELDS),
        (Field.VPID, 0, CONTROL_FIELDS),
        (Field.EPT_POINTER, 0x1, CONTROL_FIELDS),
        (Field.MSR_BITMAP, 0x1001, CONTROL_FIELDS),
        (Field.EXIT_CONTROLS, 0, CONTROL_FIELDS),
        (Field.EXIT_CONTROLS, 0x36FFB | 1 << 15, CONTROL_FIELDS),  # no interrupt controller to acknowledge to
        (Field.EXIT_MSR_STORE_COUNT, 1, CONTROL_FIELDS),
        (Field.EXIT_MSR_LOAD_COUNT, 1, CONTROL_FIELDS),
        (Field.ENTRY_MSR_LOAD_COUNT, 1, CONTROL_FIELDS),
        (Field.ENTRY_CONTROLS, 0, CONTROL_FIELDS),
        (Field.ENTRY_INTERRUPTION_INFO, VALID | 1 << 8, CONTROL_FIELDS),  # type 1 is reserved
        (Field.ENTRY_INTERRUPTION_INFO, VALID | 3 << 8 | 32, CONTROL_FIELDS),  # no such exception
        (Field.ENTRY_INTERRUPTION_INFO, VALID | 3 << 8 | 13, CONTROL_FIELDS),  # #GP has an error code
        (Field.ENTRY_INTERRUPTION_INFO, VALID | 4 << 8 | 13, CONTROL_FIELDS),  # INT n has a length
        (Field.HOST_CR0, 0, HOST_STATE),
        (Field.HOST_CR4, 0, HOST_STATE),
        (Field.HOST_CS_SELECTOR, 0, HOST_STATE),
        (Field.HOST_TR_SELECTOR, 3, HOST_STATE),
        (Field.HOST_RIP, 1 << 63, HOST_STATE),
        (Field.HOST_EFER, 0, HOST_STATE),
        (Field.HOST_PAT, 2, HOST_STATE),
    ],
)
def test_bad_controls_and_host_state_fail_with_their_number(
    bench: Bench, field: Field, value: int, number: int
) -> None:
    bench.code("f4")
    bench.write(field, value)
    with pytest.raises(VmxError) as caught:
        bench.enter()
    assert caught.value.number == number
    assert bench.read(Field.INSTRUCTION_ERROR) == number


@pytest.mark.parametrize(
    ("field", "value", "qualification"),
    [
        (Field.GUEST_CR0, 1 << 31, 0),  # PG without PE
        (Field.GUEST_CR4, 0, 0),  # without VMXE
        (Field.GUEST_CR3, 1 << 60, 0),
        (Field.GUEST_RFLAGS, 0, 0),
        (Field.GUEST_RFLAGS, 0x20002, 0),  # VM with segments that are not those of virtual-8086 mode
        (Field.GUEST_RIP, 1 << 32, 0),
        (Field.GUEST_CS_RIGHTS, 0xC090, 0),
        (Field.GUEST_CS_RIGHTS, 0x1C09B, 0),
        (Field.GUEST_SS_RIGHTS, 0xC09B, 0),
        (Field.GUEST_TR_RIGHTS, 0x89, 0),
        (Field.GUEST_TR_RIGHTS, 0x10000, 0),
        (Field.GUEST_LDTR_RIGHTS, 0x83, 0),
        (Field.GUEST_DS_LIMIT, 0xFFFFF000, 0),
        (Field.GUEST_GDTR_LIMIT, 0x10000, 0),
        (Field.GUEST_IDTR_BASE, 1 << 62, 0),
        (Field.GUEST_ACTIVITY, 4, 0),
        (Field.GUEST_INTERRUPTIBILITY, 3, 0),
        (Field.GUEST_INTERRUPTIBILITY, 1, 0),  # STI blocking without IF
        (Field.GUEST_PENDING_DEBUG, 1 << 5, 0),
        (Field.GUEST_EFER, 0x400, 0),
        (Field.GUEST_PAT, 3, 0),
        (Field.GUEST_DR7, 1 << 32, 0),
        (Field.GUEST_SYSENTER_ESP, 1 << 62, 0),
        (Field.VMCS_LINK_POINTER, 0, 4),
    ],
)
def test_bad_guest_state_fails_the_entry_with_reason_33(
    bench: Bench, field: Field, value: int, qualification: int
) -> None:
    bench.code("f4")
    bench.write(field, value)
    assert bench.enter() == Reason.BAD_GUEST_STATE
    assert bench.read(Field.EXIT_REASON) == 0x80000021
    assert bench.read(Field.EXIT_QUALIFICATION) == qualification
    assert bench.read(field) == value


def test_an_exit_tells_reason_qualification_length_and_leaves_rip_at_the_instruction(bench: Bench) -> None:
    bench.code("66 ef")  # out dx, ax
    bench.processor.set_gpr(RDX, 0x1234)
    assert bench.enter() == Reason.IO
    assert bench.read(Field.EXIT_REASON) == Reason.IO
    assert bench.read(Field.EXIT_QUALIFICATION) == 0x1234 << 16 | 1
    assert bench.read(Field.EXIT_INSTRUCTION_LENGTH) == 2
    assert bench.read(Field.GUEST_RIP) == CODE


def test_io_bitmaps_choose_the_ports(bench: Bench) -> None:
    a, b = bench.memory.allocate(4096), bench.memory.allocate(4096)
    bench.change(Field.PRIMARY_CONTROLS, 1 << 25, 1 << 24)
    bench.write(Field.IO_BITMAP_A, a)
    bench.write(Field.IO_BITMAP_B, b)
    bench.memory.write(a + 0x80 // 8, b"\x01")
    bench.code("e4 70 e4 80 f4")  # in al, 0x70; in al, 0x80; hlt
    assert bench.enter() == Reason.IO
    assert bench.read(Field.EXIT_QUALIFICATION) >> 16 == 0x80
    assert bench.processor.get_gpr(RAX) & 0xFF == 0xFF


def test_msr_bitmap_chooses_the_msrs(bench: Bench) -> None:
    bench.code("0f 32")  # rdmsr
    bench.processor.set_gpr(RCX, 0xC0000081)
    assert bench.enter(1) == Reason.PAUSE_BUDGET
    bench.write(Field.GUEST_RIP, CODE)
    bench.memory.write(bench.bitmap + 1024 + 0x81 // 8, b"\x02")
    assert bench.enter(1) == Reason.RDMSR


def test_cr0_shadow_is_read_and_a_change_of_it_exits(bench: Bench) -> None:
    bench.write(Field.CR0_MASK, 1 << 5)
    bench.write(Field.CR0_SHADOW, 1 << 5)
    bench.code("0f 20 c0 0f 22 c0 83 e0 df 0f 22 c0")  # mov eax, cr0; mov cr0, eax; and eax, ~0x20; mov cr0, eax
    assert bench.enter() == Reason.CR_ACCESS
    assert bench.processor.get_gpr(RAX) & 0x20 == 0
    assert bench.read(Field.GUEST_RIP) == CODE + 9
    assert bench.read(Field.GUEST_CR0) == 0x11  # the shadowed bit never reached the register


def test_cr3_targets_do_not_exit(bench: Bench) -> None:
    bench.change(Field.PRIMARY_CONTROLS, 1 << 15)
    bench.write(Field.CR3_TARGET_COUNT, 1)
    bench.write(Field.CR3_TARGET0, 0x5000)
    bench.code("b800500000 0f22d8 b800600000 0f22d8")
    assert bench.enter() == Reason.CR_ACCESS
    assert bench.read(Field.EXIT_QUALIFICATION) == 3
    assert bench.read(Field.GUEST_CR3) == 0x5000


@pytest.mark.parametrize(("mask", "match", "exits"), [(0, 0, True), (0, 1, False), (2, 2, False), (2, 0, True)])
def test_page_fault_mask_and_match(bench: Bench, mask: int, match: int, exits: bool) -> None:
    # A supervisor read of a page that is not present: error code 0.
    for index in range(256):
        entry = 0 if index == 0x20 else index << 12 | 3
        bench.map[0x11000 + 4 * index : 0x11004 + 4 * index] = entry.to_bytes(4, "little")
    bench.map[0x10000:0x10004] = (0x11003).to_bytes(4, "little")
    bench.write(Field.GUEST_CR3, 0x10000)
    bench.write(Field.GUEST_CR0, 0x80000011)
    bench.write(Field.GUEST_IDTR_LIMIT, 0)
    bench.write(Field.EXCEPTION_BITMAP, 1 << 14)
    bench.write(Field.PAGE_FAULT_MASK, mask)
    bench.write(Field.PAGE_FAULT_MATCH, match)
    bench.code("a0 34 02 02 00")  # mov al, [0x20234]
    reason = bench.enter()
    if exits:
        assert reason == EXCEPTION
        assert bench.read(Field.EXIT_INTERRUPTION_INFO) == VALID | 1 << 11 | 3 << 8 | 14
        assert bench.read(Field.EXIT_QUALIFICATION) == 0x20234
        assert bench.processor.cr2 == 0
    else:
        assert reason == Reason.TRIPLE_FAULT


@pytest.mark.parametrize(
    ("field", "bit", "code", "reason"),
    [
        (Field.PRIMARY_CONTROLS, 7, "f4", 12),  # hlt
        (Field.PRIMARY_CONTROLS, 9, "0f0138", 14),  # invlpg [eax]
        (Field.PRIMARY_CONTROLS, 12, "0f31", 16),  # rdtsc
        (Field.PRIMARY_CONTROLS, 12, "0f01f9", 51),  # rdtscp
        (Field.PRIMARY_CONTROLS, 16, "0f20d8", 28),  # mov eax, cr3
        (Field.PRIMARY_CONTROLS, 23, "0f21c0", 29),  # mov eax, dr0
        (Field.PRIMARY_CONTROLS, 30, "f390", 40),  # pause
        (Field.SECONDARY_CONTROLS, 2, "0f0100", 46),  # sgdt [eax]
        (Field.SECONDARY_CONTROLS, 6, "0f09", 54),  # wbinvd
        (Field.SECONDARY_CONTROLS, 11, "0fc7f0", 57),  # rdrand eax
        (Field.SECONDARY_CONTROLS, 16, "0fc7f8", 61),  # rdseed eax
    ],
)
def test_a_control_takes_its_instruction_and_only_then(
    bench: Bench, field: Field, bit: int, code: str, reason: int
) -> None:
    bench.code(code)
    bench.processor.set_gpr(RAX, 0x5000)
    bench.change(field, 0, 1 << bit)
    if reason != Reason.HLT:
        assert bench.enter(1) == Reason.PAUSE_BUDGET
        bench.write(Field.GUEST_RIP, CODE)
        bench.processor.set_gpr(RAX, 0x5000)
    bench.change(field, 1 << bit)
    assert bench.enter() == reason
    assert bench.read(Field.EXIT_INSTRUCTION_LENGTH) == len(code) // 2
    assert bench.read(Field.GUEST_RIP) == CODE


def test_preemption_timer_counts_instructions_exactly(bench: Bench) -> None:
    bench.change(Field.PIN_CONTROLS, 1 << 6)
    bench.write(Field.PREEMPTION_TIMER, 100)
    bench.code("40 eb fd")  # inc eax; jmp
    assert bench.enter(10**6) == PREEMPTION_TIMER
    assert bench.processor.get_gpr(RAX) == 50
    assert bench.processor.retired == 100


def test_a_loop_of_pauses_exits_when_it_has_gone_on_for_long(bench: Bench) -> None:
    controls.give_turns(bench.processor)
    bench.write(Field.PLE_GAP, 10)
    bench.write(Field.PLE_WINDOW, 90)
    bench.code("40 f3 90 eb fb")  # inc eax; pause; jmp
    assert bench.enter(10**6) == Reason.PAUSE
    assert (bench.read(Field.GUEST_RIP), bench.processor.get_gpr(RAX)) == (CODE + 1, 31)  # by 91 instructions
    bench.processor.skip_instruction()
    assert bench.enter(10**6) == Reason.PAUSE
    assert bench.processor.get_gpr(RAX) == 62


def test_pauses_that_are_far_apart_are_no_loop(bench: Bench) -> None:
    controls.give_turns(bench.processor)
    bench.write(Field.PLE_GAP, 10)
    bench.write(Field.PLE_WINDOW, 90)
    bench.code("40 f3 90" + "90" * 16 + "eb eb")  # inc eax; pause; 16 nops; jmp
    assert bench.enter(10_000) == Reason.PAUSE_BUDGET


WAITING = {
    "load": "a1 00 50 00 00  83 f8 01  75 f6  f4",  # mov eax, [0x5000]; cmp eax, 1; jne; hlt
    "pause": "f3 90  83 3d 00 50 00 00 01  75 f5  f4",  # pause; cmp dword [0x5000], 1; jne; hlt
    "two branches": "a1 00 50 00 00  85 c0  74 f7  3c 02  74 f3  f4",  # mov eax, [0x5000]; test; je; cmp al, 2; je; hlt
    "lock": "b8 02 00 00 00  87 05 00 50 00 00  83 f8 02  74 f0  f4",  # mov eax, 2; xchg eax, [0x5000]; cmp eax, 2; je; hlt
}
"""Loops that end when 1 is in memory where there was 2."""


@pytest.mark.parametrize("code", WAITING.values(), ids=WAITING)
def test_a_loop_that_waits_for_memory_comes_back_and_goes_on_when_it_changes(bench: Bench, code: str) -> None:
    controls.give_turns(bench.processor)
    bench.map[0x5000] = 2
    bench.code("b9 00 04 00 00  e2 fe  " + code)  # mov ecx, 1024; loop $; and then
    assert bench.enter(10**6) == Reason.PAUSE_WAITING
    assert bench.processor.exit_qualification == 0
    found = bench.processor.retired
    assert found < 6000
    for _ in range(3):
        assert bench.enter(10**6) == Reason.PAUSE_WAITING
        assert bench.processor.exit_qualification == 1
    assert bench.processor.retired < found + 50
    bench.processor.wait_out(True)
    assert bench.enter(1000) == Reason.PAUSE_BUDGET
    bench.processor.wait_out(False)
    bench.map[0x5000] = 1
    assert bench.enter(1000) == Reason.HLT


@pytest.mark.parametrize("code", WAITING.values(), ids=WAITING)
def test_where_waiting_is_found_does_not_hang_on_how_a_run_is_cut(code: str) -> None:
    def found(budget: int) -> int:
        bench = Bench()
        controls.give_turns(bench.processor)
        bench.map[0x5000] = 2
        bench.code("b9 00 04 00 00  e2 fe  " + code)
        while bench.enter(budget) != Reason.PAUSE_WAITING:
            assert bench.processor.retired < 6000
        bench.processor.vmclear()
        return bench.processor.retired

    assert {found(budget) for budget in (1, 2, 3, 5, 64, 100, 1000, 10**6)} == {found(10**6)}


@pytest.mark.parametrize(
    "code",
    [
        "ff 05 00 50 00 00  eb f8",  # inc dword [0x5000]; jmp
        "40  eb fd",  # inc eax; jmp
        "0f 31  31 c0  31 d2  eb f8",  # rdtsc; xor eax, eax; xor edx, edx; jmp
        "a3 00 50 00 00  a3 00 60 00 00  eb f4",  # mov [0x5000], eax; mov [0x6000], eax; jmp
        "87 05 00 50 00 00  87 05 00 60 00 00  eb f2",  # xchg with [0x5000]; xchg with [0x6000]; jmp
    ],
)
def test_a_loop_that_does_something_does_not_wait(bench: Bench, code: str) -> None:
    controls.give_turns(bench.processor)
    bench.map[0x5000] = 2
    bench.code(code)
    assert bench.enter(10_000) == Reason.PAUSE_BUDGET


def test_without_pause_loop_exiting_nobody_waits(bench: Bench) -> None:
    bench.code(WAITING["load"])
    assert bench.enter(10_000) == Reason.PAUSE_BUDGET


def test_monitor_trap_flag_exits_after_each_instruction(bench: Bench) -> None:
    bench.change(Field.PRIMARY_CONTROLS, 1 << 27)
    bench.code("40 40 40")
    for count in range(1, 4):
        assert bench.enter() == MONITOR_TRAP
        assert bench.processor.get_gpr(RAX) == count


def test_a_kick_is_an_external_interrupt_exit_before_the_next_instruction(bench: Bench) -> None:
    bench.code("eb fe")
    bench.processor.kick()
    assert bench.enter(10**9) == Reason.EXTERNAL_INTERRUPT
    assert bench.enter(1000) == Reason.PAUSE_BUDGET


def test_interrupt_window_opens_behind_the_shadow_of_sti(bench: Bench) -> None:
    bench.change(Field.PRIMARY_CONTROLS, 1 << 2)
    bench.code("90 fb 90 90 90")  # nop; sti; nop...
    assert bench.enter() == Reason.INTERRUPT_WINDOW
    assert bench.read(Field.GUEST_RIP) == CODE + 3


def test_injected_interrupt_goes_through_the_idt(bench: Bench) -> None:
    bench.map[0x3008:0x3010] = (0x00CF9B000000FFFF).to_bytes(8, "little")
    gate = 0x2000 | 8 << 16 | 0x8E00 << 32
    bench.map[0x4000 + 8 * 0x30 : 0x4008 + 8 * 0x30] = gate.to_bytes(8, "little")
    bench.write(Field.GUEST_GDTR_BASE, 0x3000)
    bench.write(Field.GUEST_GDTR_LIMIT, 0xFFF)
    bench.write(Field.GUEST_IDTR_BASE, 0x4000)
    bench.write(Field.GUEST_IDTR_LIMIT, 0xFFF)
    bench.write(Field.GUEST_RFLAGS, 0x202)
    bench.write(Field.ENTRY_INTERRUPTION_INFO, VALID | 0x30)
    bench.map[0x2000] = 0xF4
    bench.code("90")
    assert bench.enter() == Reason.HLT
    assert bench.read(Field.GUEST_RIP) == 0x2000
    assert int.from_bytes(bench.map[0x7FF4:0x7FF8], "little") == CODE
    assert not bench.read(Field.ENTRY_INTERRUPTION_INFO) & VALID


def test_ept_violation_tells_access_rights_and_addresses(bench: Bench) -> None:
    bench.tables.map(0x5000, 0, level=1, rights=1)
    bench.processor.invept()
    bench.code("a2 08 50 00 00")  # mov [0x5008], al
    assert bench.enter() == Reason.EPT_VIOLATION
    assert bench.read(Field.EXIT_QUALIFICATION) == 0x2 | 0x1 << 3 | 0x180
    assert bench.read(Field.GUEST_PHYSICAL_ADDRESS) == 0x5008
    assert bench.read(Field.GUEST_LINEAR_ADDRESS) == 0x5008


def test_a_page_moved_by_the_hypervisor_is_found_where_it_is_after_invept(bench: Bench) -> None:
    bench.map[0x5008], bench.map[0x6008] = 5, 6
    bench.code("a0 08 50 00 00  f4")  # mov al, [0x5008]; hlt
    assert bench.enter() == Reason.HLT
    assert bench.processor.get_gpr(RAX) & 0xFF == 5
    bench.tables.map(0x5000, bench.hpa + 0x6000, level=1, rights=EPT_RWX)
    bench.processor.invept()
    bench.write(Field.GUEST_RIP, CODE)
    assert bench.enter() == Reason.HLT
    assert bench.processor.get_gpr(RAX) & 0xFF == 6


def test_writable_but_unreadable_is_a_misconfiguration(bench: Bench) -> None:
    bench.tables.map(0x5000, 0, level=1, rights=2)
    bench.processor.invept()
    bench.code("a0 08 50 00 00")
    assert bench.enter() == Reason.EPT_MISCONFIG
    assert bench.read(Field.GUEST_PHYSICAL_ADDRESS) == 0x5008


def test_guest_state_is_the_same_after_a_round_trip_through_the_vmcs(bench: Bench) -> None:
    bench.code("b9 07 00 00 00 41 f4")
    assert bench.enter() == Reason.HLT
    before = {field: bench.read(field) for field in Field if field >> 10 & 3 == 2}
    bench.write(Field.GUEST_RFLAGS, bench.read(Field.GUEST_RFLAGS))  # forces it out of the processor
    assert {field: bench.read(field) for field in before} == before
    assert bench.enter() == Reason.HLT
    assert {field: bench.read(field) for field in before} == before


def read_tsc(bench: Bench) -> int:
    bench.code("0f31 f4")  # rdtsc; hlt
    bench.write(Field.GUEST_RIP, CODE)
    assert bench.enter() == Reason.HLT
    return bench.processor.get_gpr(RDX) << 32 | bench.processor.get_gpr(RAX)


def test_tsc_shows_offset_and_scaling(bench: Bench) -> None:
    bench.processor.tsc = 1_000_000
    assert bench.processor.tsc == 1_000_000
    assert read_tsc(bench) == 1_000_000
    bench.write(Field.TSC_OFFSET, 500)  # the VMCS has been entered: the offset counts from the next entry on
    bench.processor.tsc = 2_000_000
    assert read_tsc(bench) == 2_000_500
    bench.write(Field.TSC_OFFSET, (1 << 64) - 1_000)
    bench.write(Field.TSC_MULTIPLIER, 5 << 47)  # 2.5
    bench.change(Field.SECONDARY_CONTROLS, controls.Secondary.TSC_SCALING)
    bench.processor.tsc = 2_000_000
    assert read_tsc(bench) == 4_999_000


@pytest.mark.parametrize("offset_ns", [0, 10**15, -1])
def test_tsc_follows_the_hosts_clock_by_an_offset_and_not_from_when_it_is_told(bench: Bench, offset_ns: int) -> None:
    bench.processor.follow_host_clock(offset_ns)
    earliest = time.monotonic_ns() + offset_ns
    assert earliest <= bench.processor.tsc <= time.monotonic_ns() + offset_ns
    bench.processor.count_instructions()
    shown = bench.processor.tsc
    assert earliest <= shown == bench.processor.tsc


@pytest.mark.parametrize("multiplier", [1, (1 << 48) - 1, 0x1234_5678_9ABC_DEF0, (1 << 64) - 1])
@pytest.mark.parametrize("tsc", [1, 0xFFFF_FFFF, 0x8765_4321_0FED_CBA9, (1 << 64) - 2])
def test_tsc_scaling_takes_the_middle_of_the_whole_product(bench: Bench, tsc: int, multiplier: int) -> None:
    bench.write(Field.TSC_MULTIPLIER, multiplier)
    bench.change(Field.SECONDARY_CONTROLS, controls.Secondary.TSC_SCALING)
    bench.processor.tsc = tsc
    assert read_tsc(bench) == (tsc * multiplier >> 48) % (1 << 64)


def test_tsc_scaling_needs_a_multiplier(bench: Bench) -> None:
    bench.code("f4")
    bench.change(Field.SECONDARY_CONTROLS, controls.Secondary.TSC_SCALING)
    with pytest.raises(VmxError) as caught:
        bench.enter()
    assert caught.value.number == CONTROL_FIELDS
    bench.write(Field.TSC_MULTIPLIER, 1 << 48)
    assert bench.enter() == Reason.HLT


def test_without_tsc_offsetting_there_is_no_scaling(bench: Bench) -> None:
    bench.write(Field.TSC_MULTIPLIER, 3 << 48)
    bench.write(Field.TSC_OFFSET, 7)
    bench.change(Field.SECONDARY_CONTROLS, controls.Secondary.TSC_SCALING)
    bench.change(Field.PRIMARY_CONTROLS, 0, controls.Primary.TSC_OFFSET)
    bench.processor.tsc = 100
    assert read_tsc(bench) == 100
