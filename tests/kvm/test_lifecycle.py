"""Opening and closing: each failure its own error, each descriptor closed once, and nothing of the parent's after fork."""

from __future__ import annotations

import gc
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from belljar.errors import (
    CapabilityMissing,
    ClosedError,
    EngineUnavailable,
    KvmCallFailed,
    KvmIncompatible,
    KvmMissing,
    KvmPermissionDenied,
)
from belljar.kvm import Kvm, Vm
from belljar.kvm._descriptor import Descriptor
from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.run import KVM_EXIT_HLT
from belljar.kvm.engine import KvmEngine
from kvm.guest import HLT, SPIN, Guest
from kvm.machines import Small

NOBODY = 65534


def in_child(action: Callable[[], object]) -> str:
    """What `action` answers, or the name of what it raises, in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                answer = str(action())
            except BaseException as error:
                answer = type(error).__name__
            os.write(writing, answer.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def kvm_descriptors() -> list[str]:
    """The open files that are KVM's: /dev/kvm, VMs, vCPUs."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # the one that the listing itself had open
            continue
    return [name for name in names if "kvm" in name]


def kvm_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("kvm-vcpu")


def test_missing_device_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(KvmMissing) as caught:
        Kvm(str(tmp_path / "kvm"))
    assert "kvm_intel" in caught.value.hint
    assert isinstance(caught.value, EngineUnavailable)


@pytest.mark.parametrize("path", ["/dev/null", "/etc/hostname", "/"])
def test_what_is_not_kvm_is_refused(path: str) -> None:
    with pytest.raises(KvmIncompatible):
        Kvm(path)


def test_refused_permission_says_what_to_do(system: Kvm) -> None:
    if os.getuid() != 0 or os.stat(system.path).st_mode & (stat.S_IROTH | stat.S_IWOTH):
        pytest.skip("only root can become a user who may not open /dev/kvm, and only if not everybody may")

    def open_as_nobody() -> str:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            Kvm()
        except KvmPermissionDenied as error:
            return error.hint
        return "opened"

    assert "usermod" in in_child(open_as_nobody)


def test_failed_opening_leaves_no_descriptor() -> None:
    before = open_descriptors()
    for path in ("/dev/null", "/nothing"):
        with pytest.raises(EngineUnavailable):
            Kvm(path)
    assert open_descriptors() == before


def test_descriptor_is_closed_exactly_once(system: Kvm) -> None:
    vm = system.create_vm()
    number = vm.fd
    vm.close()
    with open("/dev/null") as other:
        assert other.fileno() == number  # the kernel gives the lowest free number
        vm.close()
        assert other.read() == ""
    assert vm.closed


@pytest.mark.parametrize(
    "use",
    [
        lambda vm: vm.fd,
        lambda vm: vm.fileno(),
        lambda vm: vm.create_vcpu(0),
        lambda vm: vm.check(0),
        lambda vm: vm.set_memory_region(0, 0, 0, 0),
    ],
)
def test_use_after_close_is_an_error(system: Kvm, use: Callable[[Vm], object]) -> None:
    vm = system.create_vm()
    vm.close()
    with pytest.raises(ClosedError, match="is closed"):
        use(vm)


def test_closed_vcpu_refuses_everything(guest: Guest) -> None:
    vcpu = guest.vcpu
    page = vcpu.page
    assert page.exit_reason == 0
    vcpu.close()
    vcpu.close()
    assert vcpu.closed
    for use in (vcpu.run, vcpu.get_regs, lambda: vcpu.page, lambda: vcpu.mapping, lambda: vcpu.loop.hva):
        with pytest.raises(ClosedError):
            use()


def test_run_page_outlives_the_vcpu_for_those_who_look_at_it(guest: Guest) -> None:
    guest.load(HLT)
    guest.run_to(KVM_EXIT_HLT)
    page = guest.vcpu.page
    guest.vcpu.close()
    assert page.exit_reason == KVM_EXIT_HLT
    assert kvm_mappings() == 1
    del page
    assert kvm_mappings() == 0


def test_machines_come_and_go_without_a_trace(system: Kvm) -> None:
    before = open_descriptors(), kvm_mappings()
    for _ in range(20):
        with system.create_vm() as vm, Guest(vm) as guest:
            guest.load(HLT)
            guest.run_to(KVM_EXIT_HLT)
            with vm.statistics(), guest.vcpu.statistics():
                pass
    assert (open_descriptors(), kvm_mappings()) == before


def test_programs_started_from_here_inherit_nothing(guest: Guest) -> None:
    vm = guest.vm
    owners: list[Descriptor] = [vm.kvm, vm, guest.vcpu, vm.statistics(), guest.vcpu.statistics()]
    if vm.check(caps.KVM_CAP_GUEST_MEMFD):
        owners.append(vm.create_guest_memfd(4096))
    for owner in owners:
        assert not os.get_inheritable(owner.fd), owner
    for owner in owners[3:]:
        owner.close()


def test_forgotten_objects_are_closed(system: Kvm) -> None:
    before = open_descriptors()
    vm = system.create_vm()
    vm.create_vcpu(0)
    del vm
    gc.collect()
    assert open_descriptors() == before


def test_child_after_fork_has_nothing_of_the_parents(guest: Guest) -> None:
    guest.load(HLT)
    view = guest.vcpu.mapping
    for use in (
        guest.vcpu.run,
        guest.vcpu.get_regs,
        lambda: guest.vcpu.page,
        lambda: guest.vm.check(0),
        guest.vm.kvm.create_vm,
    ):
        assert in_child(use) == "ClosedError"
    assert len(kvm_descriptors()) == 3
    assert in_child(kvm_descriptors) == "[]"
    assert in_child(kvm_mappings) == "0"
    assert in_child(lambda: bytes(view[:16])) == str(bytes(16))  # no fault, and nothing of the parent's
    assert in_child(guest.vcpu.close) == "None"
    guest.run_to(KVM_EXIT_HLT)  # the parent's is untouched


def test_child_can_open_kvm_anew(guest: Guest) -> None:
    def run_one() -> int:
        with Kvm() as system, system.create_vm() as vm, Guest(vm) as own:
            own.load(HLT)
            return own.vcpu.run()

    assert in_child(run_one) == str(KVM_EXIT_HLT)


def test_failed_call_names_itself_and_its_errno(vm: Vm) -> None:
    with pytest.raises(KvmCallFailed, match="KVM_SET_USER_MEMORY_REGION") as caught:
        vm.set_memory_region(0, 1, 4096, 0)  # not a multiple of a page
    assert caught.value.errno == 22
    assert caught.value.hint


def test_lacking_capability_has_its_name(vm: Vm) -> None:
    lacking = next((number for number in caps.all_capabilities().values() if not vm.check(number)), None)
    assert lacking is not None, "a host that has everything, Xen and SGX among it"
    with pytest.raises(CapabilityMissing) as caught:
        vm.require(lacking)
    assert caught.value.capability == caps.name_of(lacking)


def test_unknown_ioctl_is_a_failed_call(vm: Vm) -> None:
    with pytest.raises(KvmCallFailed, match="0xae7f"):
        vm.call(ioctls.KVMIO << 8 | 0x7F)


def test_repr_tells_open_from_closed(system: Kvm) -> None:
    vm = system.create_vm()
    assert repr(vm) == f"<Vm fd {vm.fd}>"
    vm.close()
    assert repr(vm) == "<Vm closed>"


def test_deadline_ends_a_childs_run_after_runs_of_the_parents(kvm: KvmEngine) -> None:
    def spin() -> str:
        with KvmEngine() as engine, Small(engine, SPIN) as small:
            return small.vcpu.run(small.bus, deadline_ns=time.monotonic_ns() + 5_000_000).name

    assert spin() == "INTERRUPTED"
    assert in_child(spin) == "INTERRUPTED"
