"""Exceptions that the host injects (KVM_SET_VCPU_EVENTS, api.rst 4.32; KVM_CAP_EXCEPTION_PAYLOAD)."""

from __future__ import annotations

from belljar.errors import CapabilityMissing, EngineError, KvmCallFailed
from belljar.kvm.abi import caps
from belljar.kvm.abi.flags import KVM_VCPUEVENT_VALID_PAYLOAD
from belljar.kvm.vcpu import Vcpu
from belljar.x86.vectors import Vector, check_exception, vector_name

DR6_FIXED = 0xFFFF0FF0
DR6_BREAKPOINTS = 0xF
DR7_GD = 1 << 13
"""SDM 3B 18.2.3, 18.2.4."""


def inject_exception(vcpu: Vcpu, vector: int, error_code: int | None, payload: int | None) -> None:
    """Make an exception pending, with its payload (`belljar.engine.Vcpu.inject_exception`)."""
    check_exception(vector, error_code, payload)
    waits = _enable_payloads(vcpu)
    events = vcpu.get_events()
    exception = events.exception
    if exception.pending or exception.injected:
        raise EngineError(
            f"vCPU {vcpu.index} is about to take {vector_name(exception.nr)} already", hint="run it further"
        )
    exception.nr = vector
    exception.has_error_code = int(error_code is not None)
    exception.error_code = error_code or 0
    if waits:
        exception.pending = 1
        events.flags |= KVM_VCPUEVENT_VALID_PAYLOAD
        events.exception_has_payload = int(payload is not None)
        events.exception_payload = payload or 0
    else:
        exception.injected = 1
        _write_payload(vcpu, vector, payload)
    try:
        vcpu.set_events(events)
    except KvmCallFailed as error:
        raise EngineError(f"KVM does not take {vector_name(vector)} for vCPU {vcpu.index}: {error}") from None


def _enable_payloads(vcpu: Vcpu) -> bool:
    """Whether the kernel keeps a payload until the exception is delivered."""
    try:
        vcpu.vm.enable(caps.KVM_CAP_EXCEPTION_PAYLOAD, 1)
    except CapabilityMissing:
        return False
    return True


def _write_payload(vcpu: Vcpu, vector: int, payload: int | None) -> None:
    """Where it cannot wait: what the delivery would change, at once."""
    if payload is None:
        return
    if vector == Vector.PF:
        special = vcpu.get_sregs()
        special.cr2 = payload
        vcpu.set_sregs(special)
        return
    debug = vcpu.get_debugregs()
    debug.dr6 = debug.dr6 & ~DR6_BREAKPOINTS | payload | DR6_FIXED
    debug.dr7 &= ~DR7_GD
    vcpu.set_debugregs(debug)
