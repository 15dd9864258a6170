"""Small guests that find out what an engine can really do on this host: run, and see whether they got through.

A kernel may accept a mode and not run it, or emulate what others run natively; only running tells.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from belljar.engine import Engine
from belljar.errors import BelljarError
from belljar.exits import ExitReason
from belljar.machine import End, Machine
from belljar.observe.doctor_model import FeatureProbe, ModeProbe, SpeedProbe
from belljar.x86.cpuid import HYPERV_SIGNATURE
from belljar.x86.modes import MODES
from belljar.x86.paging import size_name

TIMEOUT = 0.5
"""Seconds that a probe may take; all but the slow ones take a thousandth of it."""

NATIVE_PER_SECOND = 50_000_000
"""LOOP instructions a second above which a processor must be executing them: an emulator does a few million."""

EXIT_STATUS = 1
"""What `GREET` and `LEAVE` make of a run: (0 << 1) | 1."""

LEAVE = b"\xb0\x00\xe6\xf4"
"""mov al, 0; out 0xf4, al: the same bytes in 16, 32 and 64-bit code, and allowed at CPL3."""

GREET = b"\xb0\x2a\xe6\xe9" + LEAVE
"""mov al, '*'; out 0xe9, al; then leave."""


def mode_probes(engine: Engine) -> list[ModeProbe]:
    """Greet from every mode with every page size at CPL0 and CPL3."""
    found = []
    for mode in MODES.values():
        sizes: list[int | None] = [*sorted(mode.page_sizes)] or [None]
        for page_size in sizes:
            for cpl in (0, 3) if mode.privileged else (0,):
                why = _try_mode(engine, mode.name, page_size, cpl)
                size = None if page_size is None else size_name(page_size)
                found.append(ModeProbe(mode.name, mode.title, size, cpl, not why, why))
    return found


def _try_mode(engine: Engine, mode: str, page_size: int | None, cpl: int) -> str:
    """Empty if it works, else why not."""
    try:
        with Machine(GREET, engine=engine, mode=mode, page_size=page_size, cpl=cpl) as machine:
            result = machine.run(timeout=TIMEOUT)
            if result.end is End.DEBUG_EXIT and machine.console == b"*":
                return ""
            return result.message
    except BelljarError as error:
        return error.message.removeprefix(f"mode {mode} does not run here: ")


def speed_probe(engine: Engine, cpl: int) -> SpeedProbe:
    """Time loops at CPL0 or CPL3 in long mode, or at CPL0 in real mode where long mode does not run."""
    for mode in ("long", "real") if cpl == 0 else ("long",):
        try:
            few, many = 1_000, 20_000
            if _loop_ns(engine, mode, cpl, many) < 1_000_000:
                many = 2_000_000  # a processor's own speed: too short to measure
            spent_ns = _loop_ns(engine, mode, cpl, many) - _loop_ns(engine, mode, cpl, few)
        except BelljarError as error:
            why = error.message
            continue
        per_second = (many - few) * 1e9 / max(spent_ns, 1)
        native = engine.name != "soft" and per_second > NATIVE_PER_SECOND
        return SpeedProbe(cpl, mode, per_second, native, "")
    return SpeedProbe(cpl, "long", None, None, why)


def _loop_ns(engine: Engine, mode: str, cpl: int, count: int) -> int:
    """How long `count` LOOPs take, set-up aside; the better of two. Raises BelljarError if they do not get through."""
    load_count = b"\x66\xb9" if mode == "real" else b"\xb9"  # mov ecx, count
    loop = b"\x67\xe2\xfd" if mode == "real" else b"\xe2\xfe"  # loop $, counting in ECX or RCX
    times = []
    for _ in range(2):
        with Machine(
            load_count + count.to_bytes(4, "little") + loop + LEAVE, engine=engine, mode=mode, cpl=cpl
        ) as machine:
            result = machine.run(timeout=TIMEOUT)
            if result.end is not End.DEBUG_EXIT:
                raise BelljarError(result.message)
            times.append(result.duration_ns)
    return min(times)


INSTRUCTIONS = (
    ("x87 arithmetic", "d9 e8 d8 c0"),  # fld1; fadd st0
    ("SSE arithmetic", "0f 58 c1"),  # addps xmm0, xmm1
    ("popcnt", "f3 0f b8 c1"),  # popcnt eax, ecx
    ("crc32", "f2 0f 38 f1 c1"),  # crc32 eax, ecx
    ("movbe", "0f 38 f0 04 24"),  # movbe eax, [rsp]
    ("cmpxchg16b", "48 83 e4 f0 48 83 ec 10 48 0f c7 0c 24"),  # and rsp, -16; sub rsp, 16; cmpxchg16b [rsp]
    ("rdtscp", "0f 01 f9"),
    ("lar", "66 b8 10 00 0f 02 c0"),  # mov ax, 0x10; lar eax, ax
    ("cpuid", "0f a2"),
    ("rdtsc", "0f 31"),
)
"""Instructions that an incomplete emulator stumbles over, with harmless operands; 64-bit code."""


WHY_NOT = {End.GAVE_UP: "the engine gives up on it", End.CRASH: "it faults"}


def instruction_probes(engine: Engine) -> list[FeatureProbe]:
    """Execute each of `INSTRUCTIONS` at CPL0 in long mode."""
    found = []
    for name, code in INSTRUCTIONS:
        try:
            with Machine(bytes.fromhex(code) + LEAVE, engine=engine, mode="long") as machine:
                result = machine.run(timeout=TIMEOUT)
        except BelljarError as error:
            found.append(FeatureProbe(f"{name} at CPL0", False, error.message))
            continue
        works = result.end is End.DEBUG_EXIT
        found.append(FeatureProbe(f"{name} at CPL0", works, "" if works else WHY_NOT.get(result.end, result.message)))
    return found


def feature_probes(engine: Engine) -> list[FeatureProbe]:
    """Use what debuggers and devices need, in real mode, which runs everywhere."""
    probes: tuple[tuple[str, Callable[[Engine], bool]], ...] = (
        ("single step", _step),
        ("execution breakpoint", _breakpoint),
        ("data watchpoint", _watchpoint),
        ("memory-mapped I/O", _mmio),
        ("several vCPUs", _several),
        ("time limit", _limit),
        ("instruction limit", _instructions),
        ("collected port writes", _batching),
        ("KVM_TRANSLATE", _translate),
        *((f"interrupts, --irqchip {which}", partial(_interrupts, which)) for which in engine.chips),
        ("kvmclock", _clock),
        ("Hyper-V, --hyperv", _hyperv),
        ("TSC scaling, --tsc-khz", _frequency),
    )
    found = []
    for name, probe in probes:
        try:
            works, detail = probe(engine), ""
        except BelljarError as error:
            works, detail = False, error.message
        found.append(FeatureProbe(name, works, detail if works or detail else "the probe guest did not get it"))
    return found


_CODE_GPA = 0x1000


def _real(engine: Engine, code: bytes, **options: object) -> Machine:
    return Machine(code, engine=engine, mode="real", load_gpa=_CODE_GPA, **options)


def _step(engine: Engine) -> bool:
    with _real(engine, b"\x90\x90\xf4") as machine:
        return machine.step().end is End.DEBUG and machine.cpu.rip == _CODE_GPA + 1


def _breakpoint(engine: Engine) -> bool:
    with _real(engine, b"\x90\x90\xf4") as machine:
        machine.add_breakpoint(_CODE_GPA + 1)
        return machine.run(timeout=TIMEOUT).end is End.DEBUG and machine.cpu.rip == _CODE_GPA + 1


def _watchpoint(engine: Engine) -> bool:
    with _real(engine, b"\xa2\x00\x05\xf4") as machine:  # mov [0x500], al; hlt
        machine.add_watchpoint(0x500)
        return machine.run(timeout=TIMEOUT).end is End.DEBUG


def _mmio(engine: Engine) -> bool:
    with _real(engine, b"\xb8\x00\xa0\x8e\xd8\xa0\x00\x00\xf4", memory=64 << 10) as machine:
        # mov ax, 0xa000; mov ds, ax; mov al, [0]; hlt: above the 64 KiB of memory
        return any(exit.reason is ExitReason.MMIO for exit in machine.exits(timeout=TIMEOUT))


def _several(engine: Engine) -> bool:
    with _real(engine, b"\xf4", cpus=2) as machine:
        return machine.run(timeout=TIMEOUT).end is End.HALT and all(cpu.halted for cpu in machine.cpus)


def _limit(engine: Engine) -> bool:
    with _real(engine, b"\xeb\xfe") as machine:  # jmp $
        return machine.run(timeout=0.01).end is End.TIMEOUT


def _instructions(engine: Engine) -> bool:
    with _real(engine, b"\x90\x90\x90\xf4") as machine:
        return machine.run(timeout=TIMEOUT, instructions=2).end is End.INSTRUCTION_LIMIT


def _batching(engine: Engine) -> bool:
    with _real(engine, b"\xb9\x00\x02\xe6\xe9\xe2\xfc\xf4") as machine:  # mov cx, 512; out 0xe9, al; loop; hlt
        machine.run(timeout=TIMEOUT)
        return machine.vm is not None and machine.vm.batched_writes() > 0


def _interrupts(which: str, engine: Engine) -> bool:
    with Machine("tick", engine=engine, irqchip=which) as machine:
        return machine.run(timeout=TIMEOUT).end is End.HALT and machine.console == b"ttt\n"


_SYSTEM_TIME = bytes.fromhex("66b9014d564b 66b801500000 6631d2 0f30 f4")
"""mov ecx, MSR_KVM_SYSTEM_TIME_NEW; mov eax, 0x5001; xor edx, edx; wrmsr; hlt."""
_SYSTEM_TIME_GPA = 0x5000
_HYPERVISOR = bytes.fromhex("66b800000040 0fa2 f4")
"""mov eax, 0x40000000; cpuid; hlt."""
_PROBED_KHZ = 1_234_000


def _clock(engine: Engine) -> bool:
    with _real(engine, _SYSTEM_TIME) as machine:
        return machine.run(timeout=TIMEOUT).end is End.HALT and machine.memory.read_u32(_SYSTEM_TIME_GPA) > 0


def _hyperv(engine: Engine) -> bool:
    with _real(engine, _HYPERVISOR, irqchip=engine.chips[0], hyperv=True) as machine:
        machine.run(timeout=TIMEOUT)
        return machine.cpu["ebx"].to_bytes(4, "little") == HYPERV_SIGNATURE[:4]


def _frequency(engine: Engine) -> bool:
    with _real(engine, b"\xf4", tsc_khz=_PROBED_KHZ) as machine:
        return machine.run(timeout=TIMEOUT).end is End.HALT


def _translate(engine: Engine) -> bool:
    with Machine(GREET, engine=engine, mode="long") as machine:
        answer = machine.cpu.translate(_CODE_GPA)
        return answer.valid and answer.gpa == _CODE_GPA
