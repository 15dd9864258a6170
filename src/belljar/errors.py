"""What can go wrong, one exception each.

Every error says what happened; `hint` says what to do about it. The command line prints both in one line and exits
with `exit_status`, so that a library user and a terminal user learn the same thing.
"""

from __future__ import annotations

EXIT_CANNOT_START = 125
"""The command line's status for every error raised before the guest's first instruction."""

EXIT_ENGINE_GAVE_UP = 135
"""The command line's status when the engine, not the guest, ended a run."""


class BelljarError(Exception):
    """The root of every error that belljar raises on purpose.

    `message` is one sentence without a line break; `hint`, possibly empty, says what to do next.
    """

    exit_status = EXIT_CANNOT_START

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class EngineUnavailable(BelljarError):
    """No engine, or not the one asked for, can run guests on this host."""


class KvmMissing(EngineUnavailable):
    """There is no /dev/kvm: no virtualization extensions, or the module is not loaded."""


class KvmPermissionDenied(EngineUnavailable):
    """/dev/kvm exists, and this user may not open it."""


class KvmIncompatible(EngineUnavailable):
    """/dev/kvm answers with another API version than 12, or is not KVM at all."""


class CapabilityMissing(BelljarError):
    """This kernel's KVM lacks a capability (api.rst 4.4) that the call needs."""

    def __init__(self, capability: str, *, hint: str = "") -> None:
        super().__init__(f"this host's KVM lacks {capability}", hint=hint or "`belljar doctor` lists what works here")
        self.capability = capability


class KvmCallFailed(BelljarError):
    """An ioctl of the KVM interface failed; `call` is its name, `errno` the kernel's answer."""

    def __init__(self, call: str, errno: int, *, hint: str = "") -> None:
        import os  # only on the error path

        super().__init__(f"{call} failed: {os.strerror(errno)} (errno {errno})", hint=hint)
        self.call = call
        self.errno = errno


class ClosedError(BelljarError):
    """A VM, vCPU, memory or machine was used after it was closed, or in another process after fork."""


class ModeUnsupported(BelljarError):
    """The engine refuses a CPU mode on this host; `mode` is its name, `reason` what was seen."""

    def __init__(self, mode: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"mode {mode} does not run here: {reason}", hint=hint)
        self.mode = mode
        self.reason = reason


class FeatureUnsupported(BelljarError):
    """The chosen engine cannot do what was asked for, on this host or at all."""


class ConfigurationError(BelljarError):
    """Options that are impossible, or impossible together."""


class LoadError(BelljarError):
    """A guest file cannot be loaded: empty, truncated, for another machine, or it does not fit."""


class GuestMemoryError(BelljarError):
    """A guest-physical range is not, or not wholly, backed by memory that allows the access."""

    def __init__(self, gpa: int, size: int, what: str = "is not guest memory", *, hint: str = "") -> None:
        super().__init__(f"guest-physical {gpa:#x}..{gpa + max(size, 1) - 1:#x} {what}", hint=hint)
        self.gpa = gpa
        self.size = size


class TranslationError(BelljarError):
    """A guest-virtual address has no translation now; `gva` is the address."""

    def __init__(self, gva: int, why: str, *, hint: str = "") -> None:
        super().__init__(f"guest-virtual {gva:#x} is not mapped: {why}", hint=hint)
        self.gva = gva


class EngineError(BelljarError):
    """The engine failed in the middle of a run in a way no exit reason describes."""

    exit_status = EXIT_ENGINE_GAVE_UP
