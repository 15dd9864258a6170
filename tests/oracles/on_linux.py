"""Answers from the real CPU through a Linux process: the case runs natively at CPL 3 under ptrace, as 64 or 32-bit code.

For hosts whose KVM does not run 32-bit user code on the CPU, and for those that have no KVM. The kernel tells a fault as
a signal, so error codes beyond what `siginfo` holds are not known. System calls are caught before they happen.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct

from belljar.x86.state import GENERAL_REGISTERS

from .cases import PAGE, RF, Case, Outcome, Stop, Stuck, Unsupported, differences, prefixes
from .forms import words
from .worlds import FILLER, FLAT, READ_ONLY, STACK, World, world

PTRACE_TRACEME, PTRACE_GETREGS, PTRACE_SETREGS = 0, 12, 13
PTRACE_SYSEMU, PTRACE_SETOPTIONS, PTRACE_GETSIGINFO = 31, 0x4200, 0x4202
PTRACE_O_EXITKILL = 1 << 20
SI_KERNEL = 0x80
USER_CODE = {64: 0x33, 32: 0x23, 16: 0x07}
USER_DATA = {64: 0x2B, 32: 0x2B, 16: 0x0F}
"""Linux's selectors (arch/x86/include/asm/segment.h); for 16 bits the first two entries of an LDT of the child's own."""
SYS_MODIFY_LDT = 154
LDT_ENTRIES = [(0, 2), (1, 0)]
"""Entry number and contents (2 code, 0 data) of the 16-bit segments (modify_ldt(2))."""
REGISTER_ORDER = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip",
    "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
"""struct user_regs_struct (sys/user.h)."""
MAP_SHARED, MAP_FIXED, MAP_FIXED_NOREPLACE = 1, 0x10, 0x100000
TIMER_SECONDS = 0.05

STICKY = 1 << 21 | 1 << 14
"""Flags (ID, NT) that a case may set and ptrace does not clear again."""
_SANE = {STACK + 0x800: (0x202).to_bytes(8, "little")}
CLEANERS = {bits: Case(b"\x66\x9d" if bits == 16 else b"\x9d", {"rax": bits}, 0x202, _SANE) for bits in (16, 32, 64)}
"""POPF of all the flags."""

UNSUITED = {
    **dict.fromkeys(
        words("RDTSC RDTSCP RDRAND RDSEED CPUID RDPMC RDPID RDPKRU WRPKRU"), "its answer is a property of the host"
    ),
    **dict.fromkeys(words("SGDT SIDT SLDT STR SMSW LAR LSL VERR VERW"), "it reads the host's own tables"),
    **dict.fromkeys(
        words("LDS LES LFS LGS LSS CALL_FAR JMP_FAR RETF IRET IRETD IRETQ"), "it loads the host's descriptors"
    ),
    **dict.fromkeys(
        words("SYSCALL SYSRET SYSRETQ SYSENTER SYSEXIT SYSEXITQ INT INT1 INT3 INTO BOUND"), "the host's kernel takes it"
    ),
    **dict.fromkeys(words("IN OUT INSB INSW INSD OUTSB OUTSW OUTSD CLI STI"), "I/O and interrupts belong to the host"),
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mmap.restype = ctypes.c_void_p


class LinuxOracle:
    """One traced child that has nothing but the world's windows to offer, and lives until `close`."""

    def __init__(self, world_name: str) -> None:
        if world_name not in ("long-user", "compat-user", "compat16-user"):
            raise Unsupported(f"a Linux process cannot be {world_name}")
        self.world: World = world(world_name)
        self.windows = (*self.world.windows, (READ_ONLY, PAGE))
        self.fd = os.memfd_create("oracle")
        os.ftruncate(self.fd, len(self.world.memory))
        self.map = mmap.mmap(self.fd, len(self.world.memory))
        self.view = memoryview(self.map)
        self.view[:] = self.world.memory
        self.child = 0
        self._spawn()

    def __enter__(self) -> LinuxOracle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child and free the memory."""
        self._end_child()
        self.view.release()
        self.map.close()
        os.close(self.fd)

    def _end_child(self) -> None:
        if self.child:
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            self.child = 0

    def _spawn(self) -> None:
        """Fork a child that maps the windows at their own addresses and stops."""
        self.child = os.fork()
        if self.child == 0:
            self._become_traced()
        _, status = os.waitpid(self.child, 0)
        if not os.WIFSTOPPED(status):
            self.child = 0
            raise Unsupported(f"this host refuses a traced process with low addresses or an LDT (status {status:#x})")
        _libc.ptrace(PTRACE_SETOPTIONS, self.child, None, PTRACE_O_EXITKILL)
        self.registers = (ctypes.c_uint64 * len(REGISTER_ORDER))()
        self._ptrace(PTRACE_GETREGS, self.registers)
        self.base = dict(zip(REGISTER_ORDER, self.registers, strict=True))

    def _become_traced(self) -> None:
        """In the child: never returns."""
        try:
            for start, size in self.windows:
                protection = mmap.PROT_READ | (0 if start == READ_ONLY else mmap.PROT_WRITE)
                protection |= mmap.PROT_EXEC if start == self.windows[0][0] else 0
                if _libc.mmap(start, size, protection, MAP_SHARED | MAP_FIXED_NOREPLACE, self.fd, start) != start:
                    os._exit(2)
            for entry, contents in LDT_ENTRIES if self.world.bits == 16 else ():
                # not seg_32bit, contents, limit_in_pages, useable
                segment = struct.pack("<IIII", entry, 0, 0xFFFFF, contents << 1 | 1 << 4 | 1 << 6)
                if _libc.syscall(SYS_MODIFY_LDT, 1, segment, len(segment)) != 0:
                    os._exit(3)
            if _libc.ptrace(PTRACE_TRACEME, 0, None, None) == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(1)

    def _ptrace(self, request: int, data: object) -> None:
        if _libc.ptrace(request, self.child, None, ctypes.addressof(data)) < 0:  # type: ignore[arg-type]
            raise OSError(ctypes.get_errno(), "ptrace")

    def _refuse(self, case: Case) -> None:
        if case.mnemonic in UNSUITED:
            raise Unsupported(f"a Linux process: {case.mnemonic}: {UNSUITED[case.mnemonic]}")
        if "SREG" in case.note or any(f"{kind}_{s}S" in case.note for kind in "DWQ" for s in "CDESFG"):
            raise Unsupported("a Linux process: segment registers hold the host's selectors")
        if case.note.startswith("RESERVEDNOP") and "_0F0D" in case.note:
            raise Unsupported("a Linux process: 0F 0D with a register is #UD on AMD's CPUs and does nothing on Intel's")
        if case.note.startswith("MOVSXD_R16"):
            raise Unsupported("a Linux process: MOVSXD to 16 bits loads 16 on Intel's CPUs and 32 on AMD's")
        if self.world.bits != 64 and {0x64, 0x65} & prefixes(case.code):
            raise Unsupported("a Linux process: FS and GS have no base in 32-bit code")

    def ask(self, case: Case) -> Outcome:
        """Run one case. Raises Unsupported for what a process may not do, Stuck past the budget."""
        self._refuse(case)
        before = self._prepare(case)
        status = self._run()
        if not os.WIFSTOPPED(status):
            self.child = 0
            self._spawn()
            raise Unsupported("a Linux process: the case ended the process")
        stopped_by = os.WSTOPSIG(status)
        if stopped_by == signal.SIGALRM:
            raise Stuck(f"{case!r} ran into its budget")
        self._ptrace(PTRACE_GETREGS, self.registers)
        got = dict(zip(REGISTER_ORDER, self.registers, strict=True))
        stop, vector, cr2 = self._explain(stopped_by)
        values = tuple(got[name] for name in GENERAL_REGISTERS)
        if self.world.bits != 64:
            values = (*(value & 0xFFFFFFFF for value in values[:8]), *(0,) * 8)
        rip = got["rip"]
        if (
            vector == 13
            and any(start <= rip < start + size for start, size in self.windows)
            and self.view[rip] == FILLER
        ):
            stop, vector = Stop.HALT, None
        outcome = Outcome(stop, values, rip, got["eflags"], vector, None, cr2, (), (), self._changes(before), ())
        if got["eflags"] & STICKY and case is not CLEANERS[self.world.bits]:
            self.ask(CLEANERS[self.world.bits])
        return outcome

    def _prepare(self, case: Case) -> list[bytes]:
        view, start = self.view, self.world.state.registers
        for begin, size in self.windows:
            view[begin : begin + size] = self.world.memory[begin : begin + size]
        offset = start.rip if case.offset is None else case.offset
        view[offset : offset + len(case.code)] = case.code
        for address, data in case.memory.items():
            view[address : address + len(data)] = data
        values = dict(self.base)
        values.update({name: getattr(start, name) for name in GENERAL_REGISTERS})
        values.update(case.registers)
        code, data_selector = USER_CODE[self.world.bits], USER_DATA[self.world.bits]
        values.update(rip=offset, eflags=case.rflags, cs=code, ss=data_selector, orig_rax=(1 << 64) - 1)
        if self.world.bits != 64:
            values.update(ds=USER_DATA[32], es=USER_DATA[32])
        else:
            values.update(fs_base=FLAT["fs"], gs_base=FLAT["gs"])
        self.registers[:] = [values[name] for name in REGISTER_ORDER]
        self._ptrace(PTRACE_SETREGS, self.registers)
        return [bytes(view[begin : begin + size]) for begin, size in self.windows]

    def _run(self) -> int:
        """Let the child run to its next signal or system call; a child that runs on is stopped by an alarm of our own."""
        if _libc.ptrace(PTRACE_SYSEMU, self.child, None, None) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        previous = signal.signal(signal.SIGALRM, lambda *_: os.kill(self.child, signal.SIGALRM))
        signal.setitimer(signal.ITIMER_REAL, TIMER_SECONDS)
        try:
            return os.waitpid(self.child, 0)[1]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    def _explain(self, stopped_by: int) -> tuple[Stop, int | None, int | None]:
        """The exception behind a signal (arch/x86/kernel/traps.c, arch/x86/mm/fault.c)."""
        information = ctypes.create_string_buffer(128)
        self._ptrace(PTRACE_GETSIGINFO, information)
        _, _, code = struct.unpack_from("<iii", information.raw)
        address = struct.unpack_from("<Q", information.raw, 16)[0]
        if stopped_by == signal.SIGSEGV:
            return (Stop.FAULT, 13, None) if code == SI_KERNEL else (Stop.FAULT, 14, address)
        vectors = {signal.SIGFPE: 0, signal.SIGILL: 6, signal.SIGBUS: 17 if code == 1 else 12}
        if stopped_by not in vectors:
            raise Unsupported(f"a Linux process: stopped by signal {stopped_by}")
        return Stop.FAULT, vectors[stopped_by], None

    def _changes(self, before: list[bytes]) -> dict[int, bytes]:
        changed = {}
        for (start, size), old in zip(self.windows, before, strict=True):
            new = bytes(self.view[start : start + size])
            if new != old:
                pages = range(0, size, PAGE)
                changed.update({start + p: new[p : p + PAGE] for p in pages if new[p : p + PAGE] != old[p : p + PAGE]})
        return changed


KERNEL_HALF = 0xFFFF_8000_0000_0000
EFFECTIVE_REACH = max(FLAT["fs"], FLAT["gs"]) + 64
"""How far above the start of the upper half an access by FS or GS can be whose offset alone is below it."""


def offset_not_canonical(cr2: int | None) -> bool:
    """Whether an access by FS or GS that faults at `cr2` may have had an offset that is not canonical.

    AMD's CPUs raise #GP for such an offset, whatever base is added; Intel's manual wants the linear address canonical
    (SDM 1 3.3.7.1), and the offset is none.
    """
    return cr2 is not None and KERNEL_HALF <= cr2 < KERNEL_HALF + EFFECTIVE_REACH


def like_process(case: Case, expected: Outcome, got: Outcome) -> list[str]:
    """Compare with what a process can tell: everything but error codes and selectors."""
    found = differences(case, expected, got, ignore_flags=RF)
    faults = (expected.vector, got.vector)
    if faults == (13, 12) or (faults == (13, 14) and offset_not_canonical(got.cr2)):
        # Some kernels report #SS as they do #GP.
        return [text for text in found if not text.startswith("vector")]
    return found
