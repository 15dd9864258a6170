"""A file descriptor with an owner: closed exactly once, of no use after fork, every failure an error with a name."""

from __future__ import annotations

import os
from errno import EINVAL, ENOTTY, ENXIO, EOPNOTSUPP, errorcode
from types import TracebackType
from typing import TYPE_CHECKING
from weakref import WeakSet

from belljar.errors import CapabilityMissing, ClosedError, KvmCallFailed
from belljar.kvm import _calls
from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.layout import Structure
from belljar.kvm.abi.structs import kvm_enable_cap

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

_living: WeakSet[Descriptor] = WeakSet()

HINTS = {
    "EBUSY": "something of this kind exists already, or the vCPU is running",
    "EFAULT": "an address handed to the kernel is not mapped in this process",
    "EINVAL": "the kernel refuses a value; `dmesg` may say which",
    "EIO": "the VM belongs to another process, or the kernel gave it up (KVM_BUG_ON)",
    "EEXIST": "there is one with this number or place already",
    "ENOMEM": "the host is out of memory, or out of room for locked memory",
    "EMFILE": "too many open files: raise `ulimit -n`",
    "ENFILE": "too many open files on this host",
    "ENOTTY": "this kernel does not know the call",
    "EPERM": "this user may not",
}
"""What to do about an errno of the KVM interface, by name."""


def hint_for(number: int) -> str:
    """What to do about an errno, or nothing."""
    return HINTS.get(errorcode.get(number, ""), "")


class Descriptor:
    """Owns one file descriptor. A context manager; `close` may be repeated; what is used after it raises ClosedError.

    In a child after `os.fork` the descriptors are closed at once (they would keep the parent's VM alive) and the objects
    raise ClosedError.
    """

    what = "this descriptor"

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._forked = False
        _living.add(self)

    @property
    def fd(self) -> int:
        """The file descriptor's number; it stays this object's. Raises ClosedError."""
        if self._fd < 0:
            raise self._closed_error()
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether it was closed, or belongs to the parent of this process."""
        return self._fd < 0

    def fileno(self) -> int:
        """The same as `fd`, for select and friends."""
        return self.fd

    def close(self) -> None:
        """Give the descriptor back. Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def after_fork(self) -> None:
        """In the child: let go of what is the parent's."""
        self._forked = True
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else f'fd {self._fd}'}>"

    def call(self, request: int, argument: int | Structure | Buffer = 0, *, needs: int | None = None) -> int:
        """ioctl(2): the kernel's answer, never negative. `needs` is the capability (KVM_CAP_*) that the call stands on.

        Raises ClosedError, CapabilityMissing if the kernel lacks `needs`, KvmCallFailed.
        """
        answer = self.attempt(request, argument)
        if answer < 0:
            raise self.failure(request, -answer, needs)
        return answer

    def attempt(self, request: int, argument: int | Structure | Buffer = 0) -> int:
        """The same as `call`, but a refusal is the negative errno. Raises ClosedError."""
        if self._fd < 0:
            raise self._closed_error()
        if isinstance(argument, Structure):
            argument = argument.buffer
        return _calls.ioctl(self._fd, request, argument)

    def failure(self, request: int, errno: int, needs: int | None = None) -> KvmCallFailed | CapabilityMissing:
        """The error for a refused call."""
        if needs is not None and errno in (EINVAL, ENOTTY, ENXIO, EOPNOTSUPP) and not self.check(needs):
            return CapabilityMissing(caps.name_of(needs))
        return KvmCallFailed(ioctls.name_of(request), errno, hint=hint_for(errno))

    def check(self, capability: int) -> int:
        """What KVM answers for a KVM_CAP_* number; 1 where this kind of object cannot be asked."""
        return 1

    def _closed_error(self) -> ClosedError:
        if self._forked:
            return ClosedError(f"{self.what} belongs to the parent process", hint="open KVM again after fork")
        return ClosedError(f"{self.what} is closed")


class Capable(Descriptor):
    """A descriptor whose capabilities can be asked for and turned on: the system, a VM, a vCPU."""

    def check(self, capability: int) -> int:
        """What KVM_CHECK_EXTENSION (api.rst 4.4) answers for a KVM_CAP_* number: 0 if the capability is lacking."""
        return self.call(ioctls.KVM_CHECK_EXTENSION, capability)

    def require(self, capability: int) -> int:
        """The same as `check`, but raises CapabilityMissing for 0."""
        answer = self.check(capability)
        if answer == 0:
            raise CapabilityMissing(caps.name_of(capability))
        return answer

    def enable(self, capability: int, *arguments: int, flags: int = 0) -> None:
        """Turn on a capability (KVM_ENABLE_CAP, api.rst 4.37); up to four arguments. Raises CapabilityMissing.

        Asked for first: some kernels take the request for a capability that they lack, and do nothing.
        """
        self.require(capability)
        request = kvm_enable_cap(cap=capability, flags=flags, args=(*arguments, 0, 0, 0, 0)[:4])
        self.call(ioctls.KVM_ENABLE_CAP, request, needs=capability)


def _after_fork() -> None:
    for descriptor in list(_living):
        descriptor.after_fork()


os.register_at_fork(after_in_child=_after_fork)
