"""Hyper-V's hypercalls (TLFS 3): how they are called, and the few that there are.

A handler gets the partition, the vCPU and the call; what it returns is the HV_STATUS.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from belljar.soft.hypervisor.answers import RAX, RBX, RCX, RDX, RSI, in_64_bit_mode
from belljar.soft.hypervisor.events import inject
from belljar.soft.hypervisor.hyperv.partition import CONNECTIONS
from belljar.soft.hypervisor.hyperv.synic import MAX_PAYLOAD, Message
from belljar.soft.hypervisor.paravirt import memory
from belljar.soft.processor.fields import Field
from belljar.x86.vectors import Vector

if TYPE_CHECKING:
    from belljar.exits import ExitReason
    from belljar.soft.hypervisor.hyperv.partition import Partition
    from belljar.soft.hypervisor.vcpu import SoftVcpu

RDI, R8 = 7, 8
LOW32 = 0xFFFF_FFFF
CR0_PE = 1


class Status(IntEnum):
    """HV_STATUS_* (TLFS, appendix)."""

    SUCCESS = 0
    INVALID_HYPERCALL_CODE = 2
    INVALID_HYPERCALL_INPUT = 3
    INVALID_ALIGNMENT = 4
    INSUFFICIENT_MEMORY = 11
    INVALID_PORT_ID = 17
    INVALID_CONNECTION_ID = 18
    INSUFFICIENT_BUFFERS = 19


class Code(IntEnum):
    """HvCall*."""

    NOTIFY_LONG_SPIN_WAIT = 0x08
    POST_MESSAGE = 0x5C
    SIGNAL_EVENT = 0x5D


class Call(NamedTuple):
    """The hypercall input value (TLFS 3.7), and the addresses of input and output, or the input itself if it is `fast`."""

    control: int
    input: int
    output: int

    @property
    def code(self) -> int:
        """Which call."""
        return self.control & 0xFFFF

    @property
    def fast(self) -> bool:
        """Whether the input is in registers."""
        return bool(self.control >> 16 & 1)

    @property
    def simple(self) -> bool:
        """Whether it has neither a variable header nor repetitions."""
        return not self.control >> 17 & 0x3FF and not self.control >> 32 & 0xFFF and not self.control >> 48 & 0xFFF


POST_MESSAGE = Struct("<IIII")
"""HV_INPUT_POST_MESSAGE, before the payload: connection, reserved, message type, payload size."""

INPUT_ALIGNMENT = 8
FLAG_NUMBER_SHIFT = 32


def notify_long_spin_wait(partition: Partition, vcpu: SoftVcpu, call: Call) -> int:
    """HvCallNotifyLongSpinWait: a hint; every vCPU gets its turn anyway."""
    return Status.SUCCESS if call.simple else Status.INVALID_HYPERCALL_INPUT


def post_message(partition: Partition, vcpu: SoftVcpu, call: Call) -> int:
    """HvCallPostMessage: to the port that the connection leads to."""
    if call.fast:
        return Status.INVALID_HYPERCALL_CODE
    if not call.simple:
        return Status.INVALID_HYPERCALL_INPUT
    if call.input % INPUT_ALIGNMENT:
        return Status.INVALID_ALIGNMENT
    data = memory.read(vcpu.mmu, call.input, POST_MESSAGE.size + MAX_PAYLOAD)
    if data is None:
        return Status.INSUFFICIENT_MEMORY
    connection, _, kind, size = POST_MESSAGE.unpack_from(data)
    if size > MAX_PAYLOAD or not kind or kind >> 31:
        return Status.INVALID_HYPERCALL_INPUT
    port = partition.message_ports.get(connection % CONNECTIONS)
    if port is None:
        return Status.INVALID_CONNECTION_ID
    return port(Message(kind, data[POST_MESSAGE.size : POST_MESSAGE.size + size]))


def signal_event(partition: Partition, vcpu: SoftVcpu, call: Call) -> int:
    """HvCallSignalEvent: to the port that the connection leads to; there are no ports with more than one flag."""
    if not call.simple:
        return Status.INVALID_HYPERCALL_INPUT
    parameter = call.input
    if not call.fast:
        if parameter % INPUT_ALIGNMENT:
            return Status.INVALID_ALIGNMENT
        data = memory.read(vcpu.mmu, parameter, 8)
        if data is None:
            return Status.INSUFFICIENT_MEMORY
        parameter = int.from_bytes(data, "little")
    if parameter >> FLAG_NUMBER_SHIFT & 0xFFFF:
        return Status.INVALID_PORT_ID
    if parameter >= CONNECTIONS:
        return Status.INVALID_HYPERCALL_INPUT
    port = partition.event_ports.get(parameter)
    return Status.INVALID_CONNECTION_ID if port is None else port()


HANDLERS: dict[int, Callable[[Partition, SoftVcpu, Call], int]] = {
    Code.NOTIFY_LONG_SPIN_WAIT: notify_long_spin_wait,
    Code.POST_MESSAGE: post_message,
    Code.SIGNAL_EVENT: signal_event,
}
"""The table: call code -> handler."""


def hypercall(partition: Partition, vcpu: SoftVcpu) -> ExitReason | None:
    """Serve a VMCALL; #UD outside CPL0 and in real mode (TLFS 3.8)."""
    processor = vcpu.processor
    if processor.vmread(Field.GUEST_SS_RIGHTS) >> 5 & 3 or not processor.vmread(Field.GUEST_CR0) & CR0_PE:
        inject(processor, Vector.UD)
        return None
    get = processor.get_gpr
    wide = in_64_bit_mode(processor)
    if wide:
        call = Call(get(RCX), get(RDX), get(R8))
    else:
        low = [get(register) & LOW32 for register in (RDX, RAX, RBX, RCX, RDI, RSI)]
        call = Call(*(low[i] << 32 | low[i + 1] for i in range(0, 6, 2)))
    handler = HANDLERS.get(call.code)
    status = Status.INVALID_HYPERCALL_CODE if handler is None else handler(partition, vcpu, call)
    processor.set_gpr(RAX, status)
    if not wide:
        processor.set_gpr(RDX, 0)
    processor.skip_instruction()
    return None
