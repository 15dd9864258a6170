"""What connections lead to: ports at sources of the vCPUs' synthetic interrupt controllers (TLFS 11.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from belljar.soft.hypervisor.hyperv.hypercalls import Status
from belljar.soft.hypervisor.hyperv.synic import FLAGS_PER_SINT, SINTS, Message, SynIc

if TYPE_CHECKING:
    from belljar.soft.hypervisor.hyperv.partition import Partition
    from belljar.soft.hypervisor.vcpu import SoftVcpu


class MessagePort:
    """Delivers to one source; one message may wait for its slot."""

    def __init__(self, synic: SynIc, sint: int, sender: int) -> None:
        self._synic = synic
        self._sint = sint
        self._sender = sender
        self._waiting: Message | None = None
        synic.freed.append(self._freed)

    def __call__(self, message: Message) -> int:
        """Take a message; the HV_STATUS."""
        if self._waiting is not None:
            return Status.INSUFFICIENT_BUFFERS
        message = message._replace(sender=self._sender)
        if self._synic.deliver(self._sint, message) is False:
            self._waiting = message
        return Status.SUCCESS

    def _freed(self, sint: int) -> None:
        if sint == self._sint and self._waiting is not None:
            message, self._waiting = self._waiting, None
            if self._synic.deliver(sint, message) is False:
                self._waiting = message

    def close(self) -> None:
        """What waits is lost."""
        self._waiting = None
        if self._freed in self._synic.freed:
            self._synic.freed.remove(self._freed)


class Connections:
    """Makes and ends them (`belljar.engine.HypervConnections`). What cannot be is ignored, for a guest may ask for it."""

    def __init__(self, partition: Partition, vcpus: Sequence[SoftVcpu]) -> None:
        self._partition = partition
        self._vcpus = vcpus
        self._ports: dict[int, MessagePort] = {}

    def _synic(self, vcpu: int, sint: int) -> SynIc | None:
        if not 0 <= vcpu < len(self._vcpus) or not 0 <= sint < SINTS:
            return None
        part = self._vcpus[vcpu].interfaces.parts.get(SynIc.name)
        return part if isinstance(part, SynIc) else None

    def signal(self, vcpu: int, sint: int) -> None:
        """Raise a source's interrupt."""
        synic = self._synic(vcpu, sint)
        if synic is not None:
            synic.signal(sint)

    def connect_messages(self, connection: int, vcpu: int, sint: int) -> None:
        """Messages posted to `connection` go to a source."""
        synic = self._synic(vcpu, sint)
        self.disconnect_messages(connection)
        if synic is not None:
            port = MessagePort(synic, sint, connection)
            self._ports[connection] = port
            self._partition.message_ports[connection] = port

    def disconnect_messages(self, connection: int) -> None:
        """Not any more."""
        self._partition.message_ports.pop(connection, None)
        port = self._ports.pop(connection, None)
        if port is not None:
            port.close()

    def connect_events(self, connection: int, vcpu: int, sint: int) -> None:
        """Events signalled on `connection` set the flag of that number at a source."""
        synic = self._synic(vcpu, sint)
        self.disconnect_events(connection)
        if synic is None or not 0 <= connection < FLAGS_PER_SINT:
            return

        def port() -> int:
            """Set it; that it is set already is no error."""
            synic.set_flag(sint, connection)
            return Status.SUCCESS

        self._partition.event_ports[connection] = port

    def disconnect_events(self, connection: int) -> None:
        """Not any more."""
        self._partition.event_ports.pop(connection, None)
