"""What the parts of Hyper-V's interface have in common beside what all parts have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.soft.hypervisor.paravirt.part import Part

if TYPE_CHECKING:
    from belljar.platform import Platform
    from belljar.soft.hypervisor.hyperv.partition import Partition
    from belljar.soft.hypervisor.vcpu import SoftVcpu

UNIT_NS = 100
"""Hyper-V's unit of time."""

PAGE = 4096
PAGE_MASK = -PAGE


class HypervPart(Part):
    """A part that knows its partition and the machine."""

    def __init__(self, vcpu: SoftVcpu) -> None:
        super().__init__(vcpu)
        shared = vcpu.shared
        assert shared.partition is not None
        assert shared.platform is not None
        self.partition: Partition = shared.partition
        self.platform: Platform = shared.platform

    @classmethod
    def fits(cls, vcpu: SoftVcpu) -> bool:
        """There is no Hyper-V without local APICs."""
        return vcpu.shared.partition is not None and vcpu.shared.platform is not None
