"""`belljar run`: put a guest into a machine, run it, and end as it ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from belljar.cli import values
from belljar.cli.files import ConsoleOutput, OutputFailed, OutputFile
from belljar.cli.options import GUEST, GUEST_OPTIONS, machine_options
from belljar.cli.say import EXIT_PIPE_CLOSED, complain
from belljar.cli.spec import Command, Option
from belljar.devices.console import FileInput
from belljar.engines import ENGINES
from belljar.errors import ConfigurationError
from belljar.exits import Exit
from belljar.machine import End, Machine, RunResult
from belljar.machine.result import STATUS

TO_STDERR = "-"
"""What `--trace` without a value stands for."""

INSTRUCTIONS = "insn"

TRACE_KINDS = ("irq", "timer", "io", "mmio", "msr", "cpuid", "exit", INSTRUCTIONS)
"""As `belljar.observe.trace_kinds.KINDS`, which a run without a trace need not wait for."""

TEXT = "text"
"""`--report text` writes tables instead of JSON."""

QUIET_ENDS = (End.HALT, End.POWER_OFF, End.RESET, End.DEBUG_EXIT)
"""Ends that are the guest's own will and need no words."""

HELP = """Run GUEST, a sample's name (see `belljar samples`) or a file: raw code, ELF, a multiboot kernel.

The guest's console (ports 0xE9 and 0x3F8) is stdout and stdin; what belljar itself has to say goes to stderr.

\b
Examples:
  belljar run hello-long
  belljar run add --reg rax=2 --reg rbx=2
  belljar run spin --timeout 0.5
  belljar run boot.bin --mode real --load 0x7c00 --trace
  belljar run tick --engine soft --trace irq,timer
  belljar run kernel.elf --memory 64M --report report.json
  belljar run kernel --append "verbose root=1" --module disk.img=ro

\b
Exit status:
  0    the guest halted, powered off or asked for a reset
  N    the guest asked for it: (value written to port 0xF4 << 1 | 1) & 255
  124  the time limit or instruction limit was reached
  125  belljar could not start it, or could not write its own output
  130  Ctrl-C
  134  the guest crashed (triple fault, refused VM entry)
  135  the engine gave up (internal error)
  141  whoever read stdout went away
"""


def run(given: dict[str, Any]) -> int:
    """Run a guest; the exit status."""
    with ExitStack() as stack:
        trace_to, kinds = _trace_options(given["trace"])
        report_to, as_text, report_fd = _report_options(given["report"])
        trace, report = _open_files(trace_to, report_to, report_fd, stack)
        console = ConsoleOutput(1)
        machine = stack.enter_context(
            Machine(
                given["guest"],
                output=console,
                input=FileInput(0),
                pin=given["pin"],
                count_instructions=given["instructions"] is not None or INSTRUCTIONS in kinds,
                **machine_options(given),
            )
        )
        console.attach(machine)
        _say_engine(machine)
        tracer = None if trace is None else _Tracer(machine, trace, kinds)
        result = _run(machine, given["timeout"], given["instructions"], tracer)
        status = _status(result, console)
        if report is not None:
            _write_report(machine, result, status, report, as_text)
        return _last_words(machine, result, console, status)


def _trace_options(trace: str | None) -> tuple[str | None, frozenset[str]]:
    """Where the trace goes, and of which kinds it is, none for the exits: `KINDS` (to stderr), `KINDS:FILE` or `FILE`.

    Raises ConfigurationError for a list with words in it that are no kinds.
    """
    if trace is None:
        return None, frozenset()
    words, colon, path = trace.partition(":")
    kinds = frozenset(words.split(","))
    unknown = kinds.difference(TRACE_KINDS)
    if not unknown:
        return path if colon else TO_STDERR, kinds
    if unknown != kinds:
        raise ConfigurationError(
            f"--trace {trace}: {' and '.join(sorted(unknown)) or 'nothing'!s} is nothing that can be traced",
            hint=f"kinds: {', '.join(TRACE_KINDS)}; a file of that name is written as ./{trace}",
        )
    return trace, frozenset()


def _report_options(report: str | None) -> tuple[str | None, bool, int]:
    """Where the report goes, whether as text (`text` to stderr, or `text:FILE`) or as JSON, and what `-` stands for."""
    if report == TEXT:
        return "-", True, 2
    if report is not None and report.startswith(TEXT + ":"):
        return report.removeprefix(TEXT + ":"), True, 1
    return report, False, 1


def _open_files(
    trace: str | None, report: str | None, report_fd: int, stack: ExitStack
) -> tuple[OutputFile | None, OutputFile | None]:
    opened = []
    for path, name, fd in ((trace, "--trace", 2), (report, "--report", report_fd)):
        file = None if path is None else OutputFile(path, name, standard_fd=fd)
        if file is not None:
            stack.callback(file.close)
        opened.append(file)
    trace_file, report_file = opened
    named = trace != "-" or report != "-"  # what goes to stderr twice is there one behind the other
    if named and trace_file is not None and report_file is not None and trace_file.same_as(report_file):
        raise ConfigurationError("--trace and --report name the same file", hint="give each its own")
    return trace_file, report_file


def _run(machine: Machine, timeout: float | None, instructions: int | None, tracer: _Tracer | None) -> RunResult:
    """Run; Ctrl-C and a trace that cannot be written are ends like others, so that there still is a report."""
    started_ns = time.monotonic_ns()
    status = STATUS[End.STOPPED]
    try:
        if tracer is None:
            return machine.run(timeout=timeout, instructions=instructions)
        try:
            return machine.run(timeout=timeout, instructions=instructions, observer=tracer.observe)
        finally:
            tracer.finish()
    except KeyboardInterrupt:
        message = "interrupted (Ctrl-C)"
    except BrokenPipeError:
        message, status = "whoever read the trace went away", EXIT_PIPE_CLOSED
    except OutputFailed as error:
        message, status = error.message, error.exit_status
    return RunResult(End.STOPPED, status, message, duration_ns=time.monotonic_ns() - started_ns)


class _Tracer:
    """Gathers trace lines and writes them in pieces; on a terminal, each at once."""

    def __init__(self, machine: Machine, file: OutputFile, kinds: frozenset[str]) -> None:
        self._file = file
        self._lines: list[str] = []
        self._size = 0
        self._piece = 1 if file.is_terminal else 1 << 14
        self.observe: Callable[[Exit], None] | None = None
        self._finish: Callable[[], None] = lambda: None
        if kinds == {INSTRUCTIONS}:
            from belljar.observe.instruction_trace import write_instructions

            write_instructions(machine, self._add)
        elif kinds:
            from belljar.observe.trace_kinds import KindTrace

            trace = KindTrace(machine, kinds, self._add)
            for note in trace.notes:
                complain(f"trace of {note}")
            self.observe, self._finish = trace.observe, trace.finish
        else:
            from belljar.observe.trace import Trace

            self.observe = Trace(machine, self._add)

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= self._piece:
            self.flush()

    def finish(self) -> None:
        """Behind the run: write what is still to be told."""
        self._finish()
        self.flush()

    def flush(self) -> None:
        """Write what is there."""
        text, self._lines, self._size = "".join(self._lines), [], 0
        if text:
            self._file.write(text.encode())


def _say_engine(machine: Machine) -> None:
    """Say which engine `auto` took, and whose interrupt chips, where that was not the first choice."""
    if machine.engine_reason and machine.engine.name != next(iter(ENGINES)):
        complain(f"runs on {machine.engine.name} ({machine.engine_reason})")
    if machine.chips.reason:
        complain(machine.chips.reason)


def _status(result: RunResult, console: ConsoleOutput) -> int:
    if isinstance(console.error, BrokenPipeError):
        return EXIT_PIPE_CLOSED
    if console.error is not None:
        return OutputFailed.exit_status
    return result.status & 0xFF


def _write_report(machine: Machine, result: RunResult, status: int, file: OutputFile, as_text: bool) -> None:
    from belljar.observe.report import run_report

    report = run_report(machine, result, status=status)
    if as_text:
        from belljar.observe.report_text import report_lines

        text = "\n".join(report_lines(report))
    else:
        import json

        text = json.dumps(report, indent=2)
    file.write(text.encode("utf-8", "backslashreplace") + b"\n")


def _last_words(machine: Machine, result: RunResult, console: ConsoleOutput, status: int) -> int:
    if console.error is not None:
        if status != EXIT_PIPE_CLOSED:
            complain(f"stdout: cannot write it: {os.strerror(console.error.errno or 0)}")
        return status
    if console.dropped:
        complain(f"{console.dropped} bytes of console output were dropped: nobody read them before the run had to end")
    if result.end not in QUIET_ENDS:
        complain(result.message + _hint(machine, result))
    return status


def _hint(machine: Machine, result: RunResult) -> str:
    if result.end is End.GAVE_UP:
        if machine.engine.name != "soft" and "soft" in ENGINES:
            return " (--engine soft executes all integer instructions)"
        return " (`belljar doctor` says what this host's engine can do)"
    if result.end is End.CRASH:
        return " (--trace shows the exits before it, --report the registers)"
    return ""


COMMAND = Command(
    "run",
    "Run a guest and end as it ended.",
    HELP,
    run,
    (GUEST,),
    (
        *GUEST_OPTIONS,
        Option("--timeout", "timeout", "End the run after so long.", "SECONDS", values.seconds),
        Option(
            "--pin",
            "pin",
            "Bind the threads of vCPU 0, 1... to host CPUs by number. On soft one thread runs them all, on any of these.",
            "CPU[,CPU...]",
            values.host_cpus,
            default=(),
        ),
        Option(
            "--instructions",
            "instructions",
            "End it after exactly N instructions (not every engine can count).",
            "N",
            values.count,
        ),
        Option(
            "--trace",
            "trace",
            f"Write a line for every exit to FILE, or to stderr. With a list of kinds for those instead: "
            f"{', '.join(TRACE_KINDS)}.",
            "[FILE|KINDS[:FILE]]",
            bare=TO_STDERR,
        ),
        Option(
            "--report",
            "report",
            "Write a report of the run to FILE as JSON, also when the guest crashed; with `text:FILE`, or `text` for "
            "stderr, as tables.",
            "FILE",
        ),
    ),
)
