"""A complete binding of Linux's KVM interface on x86, usable on its own, and the engine made of it.

`Kvm` opens /dev/kvm, `Kvm.create_vm` gives a `Vm`, `Vm.create_vcpu` a `Vcpu`; each owns its file descriptor and is a
context manager. Their methods take and give the kernel's own structures, which are in `belljar.kvm.abi` with all ioctl
numbers, capabilities and flags. Not bound: memory encryption (SEV, TDX), Xen guests' attributes, other architectures.

Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from belljar.kvm.device import Device as Device
    from belljar.kvm.dirty_ring import DirtyPage as DirtyPage
    from belljar.kvm.dirty_ring import DirtyRing as DirtyRing
    from belljar.kvm.engine import KvmEngine as KvmEngine
    from belljar.kvm.msrs import MsrFilter as MsrFilter
    from belljar.kvm.msrs import MsrRange as MsrRange
    from belljar.kvm.stats import Statistic as Statistic
    from belljar.kvm.stats import Statistics as Statistics
    from belljar.kvm.system import Kvm as Kvm
    from belljar.kvm.vcpu import Vcpu as Vcpu
    from belljar.kvm.vm import Vm as Vm
    from belljar.kvm.vm_interrupts import IrqchipRoute as IrqchipRoute
    from belljar.kvm.vm_interrupts import MsiRoute as MsiRoute
    from belljar.kvm.vm_memory import GuestMemfd as GuestMemfd

_HOMES = {
    "Device": "device",
    "DirtyPage": "dirty_ring",
    "DirtyRing": "dirty_ring",
    "GuestMemfd": "vm_memory",
    "IrqchipRoute": "vm_interrupts",
    "Kvm": "system",
    "KvmEngine": "engine",
    "MsiRoute": "vm_interrupts",
    "MsrFilter": "msrs",
    "MsrRange": "msrs",
    "Statistic": "stats",
    "Statistics": "stats",
    "Vcpu": "vcpu",
    "Vm": "vm",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
