"""Attributes, and the in-kernel devices that are driven by them (Documentation/virt/kvm/devices)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.kvm import _calls
from belljar.kvm._descriptor import Descriptor
from belljar.kvm.abi import ioctls
from belljar.kvm.abi.structs import kvm_device_attr

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Attributes(Descriptor):
    """Something with attributes by group and number: a device, a VM, a vCPU (api.rst 4.80, 4.81)."""

    def has_attribute(self, group: int, attribute: int) -> bool:
        """Whether there is such an attribute."""
        return self.attempt(ioctls.KVM_HAS_DEVICE_ATTR, kvm_device_attr(group=group, attr=attribute)) == 0

    def get_attribute(self, group: int, attribute: int, size: int = 8) -> bytes:
        """An attribute's value, `size` bytes as the device defines them."""
        value = bytearray(size)
        request = kvm_device_attr(group=group, attr=attribute, addr=_calls.address_of(value))
        self.call(ioctls.KVM_GET_DEVICE_ATTR, request)
        return bytes(value)

    def set_attribute(self, group: int, attribute: int, value: Buffer = b"") -> None:
        """Set an attribute from bytes as the device defines them."""
        request = kvm_device_attr(group=group, attr=attribute, addr=_calls.address_of(value))
        self.call(ioctls.KVM_SET_DEVICE_ATTR, request)


class Device(Attributes):
    """An in-kernel device. Made by `Vm.create_device`."""

    what = "this device"
