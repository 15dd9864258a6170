"""IN, OUT, INS and OUTS (SDM 3C table 28-5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from belljar.exits import ExitReason
from belljar.soft.hypervisor.reasons import Reason
from belljar.soft.processor.fields import Field

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

SIZE_LESS_ONE: Final = 7
IS_IN: Final = 1 << 3
IS_STRING: Final = 1 << 4
IS_REPEATED: Final = 1 << 5
NOT_PLAIN_OUT: Final = IS_IN | IS_STRING
PORT_SHIFT: Final = 16
VALUE_SHIFT: Final = 32

RAX: Final = 0
RCX: Final = 1
RDI: Final = 7
MASKS: Final = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFFFFFF}
FLAG_DF: Final = 1 << 10
PAGE_SIZE: Final = 4096
AHEAD_BYTES: Final = 1024
"""How much REP INS asks of a port at once, as in KVM's emulator (struct read_cache)."""
ADDRESS_MASKS: Final = (0xFFFF, 0xFFFFFFFF, (1 << 64) - 1)
"""By the address size in the VM-exit instruction information (SDM 3C table 28-8)."""


def access(vcpu: SoftVcpu) -> ExitReason | None:
    """Any port access. It counts as done even if its device raises; a read then gives all ones."""
    found = vcpu.processor.take_port_access()
    if found & NOT_PLAIN_OUT:
        return _string(vcpu, found) if found & IS_STRING else _in(vcpu, found)
    if not vcpu.reporting:  # nobody will ask what it was
        vcpu.bus.port_write(found >> PORT_SHIFT & 0xFFFF, (found & SIZE_LESS_ONE) + 1, found >> VALUE_SHIFT)
        return None
    port, size, value = found >> PORT_SHIFT & 0xFFFF, (found & SIZE_LESS_ONE) + 1, found >> VALUE_SHIFT
    vcpu.log.port_value(port, size, True, value)
    vcpu.bus.port_write(port, size, value)
    return vcpu.report()


def _in(vcpu: SoftVcpu, found: int) -> ExitReason | None:
    processor = vcpu.processor
    port = found >> PORT_SHIFT & 0xFFFF
    size = (found & SIZE_LESS_ONE) + 1
    value = mask = MASKS[size]
    try:
        value = vcpu.bus.port_read(port, size) & mask
    finally:
        processor.set_gpr(RAX, value if size == 4 else processor.get_gpr(RAX) & ~mask | value)
        if vcpu.reporting:
            vcpu.log.port_value(port, size, False, value)
    return vcpu.report() if vcpu.reporting else None


def _string(vcpu: SoftVcpu, qualification: int) -> ExitReason | None:
    """The processor carries the instruction out, iteration by iteration, with the port behind the window."""
    port = qualification >> PORT_SHIFT
    size = (qualification & SIZE_LESS_ONE) + 1
    window = vcpu.window
    if qualification & IS_IN:
        count = _items_ahead(vcpu, size) if qualification & IS_REPEATED else 1
        window.expect(port, size, count)
    while True:
        left = len(window.ahead)
        reason = vcpu.carry_out()
        # Items stay behind when the instruction faults: the handler's accesses must not be taken for its iterations.
        if reason != Reason.PAUSE_EMULATED or len(window.ahead) in (0, left):
            break
    return vcpu.carried_out(reason)


def _items_ahead(vcpu: SoftVcpu, size: int) -> int:
    """How many items REP INS may ask for at once: upwards, and to the end of the page, as KVM does."""
    processor = vcpu.processor
    mask = ADDRESS_MASKS[processor.vmread(Field.EXIT_INSTRUCTION_INFO) >> 7 & 3]
    count = processor.get_gpr(RCX) & mask
    if processor.vmread(Field.GUEST_RFLAGS) & FLAG_DF:
        return 1
    in_page = PAGE_SIZE - processor.get_gpr(RDI) % PAGE_SIZE
    return max(min(count, in_page // size, AHEAD_BYTES // size), 1)
