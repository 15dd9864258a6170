"""The device with which the KVM unit tests set up Hyper-V's connections (QEMU's hyperv-testdev): one port, 0x3000.

A write of 32 bits is a command: source (SINT) in bits 7 to 0, vCPU in 15 to 8, what to do in 23 to 16, connection above.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from belljar.platform import HypervConnections

PORT = 0x3000


class Command(IntEnum):
    """HV_TEST_DEV_*."""

    SINT_ROUTE_CREATE = 1
    SINT_ROUTE_DESTROY = 2
    SINT_ROUTE_SET_SINT = 3
    MSG_CONN_CREATE = 4
    MSG_CONN_DESTROY = 5
    EVT_CONN_CREATE = 6
    EVT_CONN_DESTROY = 7


class HypervTestDevice:
    """The port. Routes are remembered; a source without one is not raised."""

    __test__ = False
    ports = range(PORT, PORT + 4)
    port_width = 4

    def __init__(self, connections: HypervConnections) -> None:
        self._connections = connections
        self._routes: set[tuple[int, int]] = set()

    def port_read(self, port: int, size: int) -> int:
        """All ones: it can only be written."""
        return (1 << 8 * size) - 1

    def port_write(self, port: int, size: int, value: int) -> None:
        """A command; unknown ones do nothing."""
        if port != PORT or size != 4:
            return
        sint, vcpu, command, connection = value.to_bytes(4, "little")
        connections = self._connections
        if command == Command.SINT_ROUTE_CREATE:
            self._routes.add((vcpu, sint))
        elif command == Command.SINT_ROUTE_DESTROY:
            self._routes.discard((vcpu, sint))
        elif command == Command.SINT_ROUTE_SET_SINT:
            if (vcpu, sint) in self._routes:
                connections.signal(vcpu, sint)
        elif command == Command.MSG_CONN_CREATE:
            connections.connect_messages(connection, vcpu, sint)
        elif command == Command.MSG_CONN_DESTROY:
            connections.disconnect_messages(connection)
        elif command == Command.EVT_CONN_CREATE:
            connections.connect_events(connection, vcpu, sint)
        elif command == Command.EVT_CONN_DESTROY:
            connections.disconnect_events(connection)

    def state(self) -> dict[str, Any]:
        """The routes."""
        return {"routes": sorted(self._routes)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._routes = {(vcpu, sint) for vcpu, sint in state["routes"]}
