"""How a run ended, and the exit status that says so."""

from __future__ import annotations

from enum import Enum

from belljar.exits import Exit
from belljar.records import dataclass


class End(Enum):
    """Why a run is over."""

    HALT = "halt"
    POWER_OFF = "power-off"
    RESET = "reset"
    DEBUG_EXIT = "debug-exit"
    TIMEOUT = "timeout"
    INSTRUCTION_LIMIT = "instruction-limit"
    STOPPED = "stopped"
    CRASH = "crash"
    GAVE_UP = "gave-up"
    DEBUG = "debug"


STATUS = {
    End.HALT: 0,
    End.POWER_OFF: 0,
    End.RESET: 0,
    End.DEBUG: 0,
    End.TIMEOUT: 124,
    End.INSTRUCTION_LIMIT: 124,
    End.STOPPED: 130,
    End.CRASH: 134,
    End.GAVE_UP: 135,
}
"""The process exit status for each end; DEBUG_EXIT brings its own. 124 is what timeout(1) gives, 130 what a shell gives
for Ctrl-C, 134 for an abort."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What `Machine.run` returns. `vcpu` is who ended it, `exit` its last exit where one tells more, `message` one sentence."""

    end: End
    status: int
    message: str
    vcpu: int | None = None
    exit: Exit | None = None
    duration_ns: int = 0

    @property
    def crashed(self) -> bool:
        """Whether the guest died of its own fault."""
        return self.end is End.CRASH
