"""What stands in a vCPU's place to look on: everything is the real one's but what a subclass says otherwise."""

from __future__ import annotations

from typing import Any

from belljar.engine import Vcpu


class VcpuProxy:
    """Passes on whatever is asked of it or set on it. A subclass keeps what is its own in `__dict__`."""

    _inner: Any

    def __init__(self, inner: Vcpu) -> None:
        self.__dict__["_inner"] = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._inner, name, value)
