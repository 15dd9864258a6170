"""Writes that KVM collects: all of them, in order, in time, and only when nobody wants to see each one."""

from __future__ import annotations

import threading

import pytest

from belljar.exits import Exit, ExitReason, PortIo
from belljar.kvm.engine import KvmEngine
from belljar.kvm.engine_vcpu import KvmVcpu
from kvm.guest import deadline
from kvm.machines import RecordingBus, Small

PORT = 0xE9
BEFORE_BATCHING = 64

COUNT_UP = b"\xe6\xe9\x40\xe2\xfb"  # again: out 0xe9, al; inc ax; loop again


def counted(number: int) -> bytes:
    return bytes(value & 0xFF for value in range(number))


@pytest.fixture
def batching(kvm: KvmEngine) -> KvmEngine:
    if not kvm.coalesces_ports:
        pytest.skip("this host's KVM lacks KVM_CAP_COALESCED_PIO")
    return kvm


@pytest.mark.parametrize("number", [1, 63, 64, 65, 66, 233, 234, 235, 1000, 20000])
def test_nothing_is_lost_or_reordered(batching: KvmEngine, number: int) -> None:
    with Small(batching, COUNT_UP + b"\xf4", rcx=number) as small:
        small.vm.batch_writes(PORT)
        assert small.vcpu.run(small.bus, deadline_ns=deadline()) is ExitReason.HLT
        assert small.bus.output == counted(number)
        exits = small.vcpu.exit_counts()[ExitReason.IO]
        assert exits + small.vm.batched_writes() == number
        if number <= BEFORE_BATCHING:
            assert exits == number  # a short greeting is an exit a byte
        if number >= 1000:
            assert exits < number / 4


def test_everything_has_arrived_when_the_guest_crashes_right_after(batching: KvmEngine) -> None:
    crash = b"\x0f\x01\xd0"  # xgetbv: an internal error where CPL0 is emulated, #UD and a triple fault where it is not
    with Small(batching, COUNT_UP + crash, rcx=500) as small:
        special = small.vcpu.get_special()
        special.idt.limit = 0
        small.vcpu.set_special(special)
        small.vm.batch_writes(PORT)
        assert small.vcpu.run(small.bus, deadline_ns=deadline()) in (ExitReason.INTERNAL_ERROR, ExitReason.SHUTDOWN)
        assert small.bus.output == counted(500)


def test_what_a_spinning_guest_printed_is_delivered_meanwhile(batching: KvmEngine) -> None:
    """Nothing but the timer brings it: the guest makes no further exit."""

    class Waiting(RecordingBus):
        complete = threading.Event()

        def port_write_block(self, port: int, size: int, data: bytes) -> None:
            super().port_write_block(port, size, data)
            if len(self.output) == 100:
                self.complete.set()

    with Small(batching, COUNT_UP + b"\xeb\xfe", rcx=100) as small:
        small.vm.batch_writes(PORT)
        bus = Waiting()
        thread = threading.Thread(target=lambda: small.vcpu.run(bus, deadline_ns=deadline()))
        thread.start()
        try:
            assert bus.complete.wait(5)
        finally:
            small.vcpu.kick()
            thread.join()
        assert bus.output == counted(100)


def test_other_ports_keep_their_place_in_the_order(batching: KvmEngine) -> None:
    # again: out 0xe9, al; out 0x80, al; inc ax; loop again; hlt
    with Small(batching, b"\xe6\xe9\xe6\x80\x40\xe2\xf9\xf4", rcx=300) as small:
        small.vm.batch_writes(PORT)
        assert small.vcpu.run(small.bus, deadline_ns=deadline()) is ExitReason.HLT
        assert small.bus.output == b"".join(bytes([value & 0xFF] * 2) for value in range(300))
        assert small.vm.batched_writes() > 200


def test_two_batched_ports_stay_in_order(batching: KvmEngine) -> None:
    with Small(batching, b"\xe6\xe9\xe6\x80\x40\xe2\xf9\xf4", rcx=300) as small:
        small.vm.batch_writes(PORT)
        small.vm.batch_writes(0x80)
        assert small.vcpu.run(small.bus, deadline_ns=deadline()) is ExitReason.HLT
        assert small.bus.output == b"".join(bytes([value & 0xFF] * 2) for value in range(300))
        blocks = [call for call in small.bus.calls if call[0] == "outs"]
        assert {call[1] for call in blocks} == {PORT, 0x80}


def test_wider_writes_are_never_batched(batching: KvmEngine) -> None:
    with Small(batching, b"\xe7\xe9\x40\xe2\xfb\xf4", rcx=200) as small:  # out 0xe9, ax
        small.vm.batch_writes(PORT)
        small.vcpu.run(small.bus, deadline_ns=deadline())
        assert small.vm.batched_writes() == 0
        assert len(small.bus.calls) == 200


def test_ports_nobody_named_are_never_batched(batching: KvmEngine) -> None:
    with Small(batching, COUNT_UP + b"\xf4", rcx=200) as small:
        small.vm.batch_writes(0x3F8)
        small.vcpu.run(small.bus, deadline_ns=deadline())
        assert small.vm.batched_writes() == 0


def test_observer_sees_each_byte(batching: KvmEngine) -> None:
    with Small(batching, COUNT_UP + b"\xf4", rcx=300) as small:
        small.vm.batch_writes(PORT)
        seen: list[Exit] = []
        assert small.vcpu.run(small.bus, deadline_ns=deadline(), observer=seen.append) is ExitReason.HLT
        assert len([exit for exit in seen if isinstance(exit, PortIo)]) == 300
        assert small.vm.batched_writes() == 0


def test_observing_begins_and_ends_with_its_run(batching: KvmEngine) -> None:
    with Small(batching, COUNT_UP + b"\xf4", rcx=300) as small:
        small.vm.batch_writes(PORT)
        small.vcpu.run(small.bus, deadline_ns=deadline())
        batched = small.vm.batched_writes()
        assert batched > 200
        for options in ({"observer": lambda exit: None}, {"single_exit": True}):
            small.restart(COUNT_UP + b"\xf4", rcx=100)
            while small.vcpu.run(small.bus, deadline_ns=deadline(), **options) is ExitReason.IO:  # type: ignore[arg-type]
                pass
            assert small.vm.batched_writes() == batched
        small.restart(COUNT_UP + b"\xf4", rcx=300)
        small.vcpu.run(small.bus, deadline_ns=deadline())
        assert small.vm.batched_writes() > batched
        assert small.bus.output == counted(300) + counted(100) * 2 + counted(300)


def test_exception_in_the_middle_of_a_batch_loses_nothing_after_it(batching: KvmEngine) -> None:
    class Failing(RecordingBus):
        failed = False

        def port_write_block(self, port: int, size: int, data: bytes) -> None:
            super().port_write_block(port, size, data)
            if not self.failed:
                self.failed = True
                raise OSError("the terminal has gone")

    with Small(batching, COUNT_UP + b"\xf4", rcx=500) as small:
        small.vm.batch_writes(PORT)
        bus = Failing()
        with pytest.raises(OSError, match="terminal"):
            small.vcpu.run(bus, deadline_ns=deadline())
        assert small.vcpu.run(bus, deadline_ns=deadline()) is ExitReason.HLT
        assert bus.output == counted(500)


def test_more_ports_than_can_be_watched_are_single(batching: KvmEngine) -> None:
    with Small(batching, COUNT_UP + b"\xf4", rcx=200) as small:
        for port in range(0x100, 0x110):
            small.vm.batch_writes(port)
        small.vm.batch_writes(PORT)
        small.vcpu.run(small.bus, deadline_ns=deadline())
        assert small.bus.output == counted(200)
        assert small.vm.batched_writes() == 0


def test_two_vcpus_writing_at_once_lose_nothing(batching: KvmEngine) -> None:
    """The ring is one for the whole VM; each vCPU's own bytes stay in order."""

    class Split(RecordingBus):
        def __init__(self) -> None:
            super().__init__()
            self.by_kind: dict[int, list[int]] = {0: [], 1: []}

        def port_write(self, port: int, size: int, value: int) -> None:
            self.by_kind[value >> 7].append(value & 0x7F)

        def port_write_block(self, port: int, size: int, data: bytes) -> None:
            for value in data:
                self.by_kind[value >> 7].append(value & 0x7F)

    # again: mov al, bl; and al, 0x7f; or al, bh; out 0xe9, al; inc bl; loop again; hlt
    code = b"\x88\xd8\x24\x7f\x08\xf8\xe6\xe9\xfe\xc3\xe2\xf4\xf4"
    with Small(batching, code, rcx=3000) as small:
        second = small.add_vcpu(1, rcx=3000, rbx=0x8000)
        small.vm.batch_writes(PORT)
        bus = Split()
        reasons: dict[int, ExitReason] = {}

        def run(vcpu: KvmVcpu) -> None:
            reasons[vcpu.index] = vcpu.run(bus, deadline_ns=deadline())

        threads = [threading.Thread(target=run, args=(vcpu,)) for vcpu in (small.vcpu, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert reasons == {0: ExitReason.HLT, 1: ExitReason.HLT}
        for kind in (0, 1):
            assert bus.by_kind[kind] == [value & 0x7F for value in range(3000)]
