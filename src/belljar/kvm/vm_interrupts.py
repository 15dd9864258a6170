"""A VM's interrupts and doorbells: chips, lines, routing, MSIs, event file descriptors, collected writes."""

from __future__ import annotations

from collections.abc import Sequence

from belljar.errors import ConfigurationError
from belljar.kvm._descriptor import Capable
from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.flags import (
    KVM_IOEVENTFD_FLAG_DATAMATCH,
    KVM_IOEVENTFD_FLAG_DEASSIGN,
    KVM_IOEVENTFD_FLAG_PIO,
    KVM_IRQ_ROUTING_IRQCHIP,
    KVM_IRQ_ROUTING_MSI,
    KVM_IRQFD_FLAG_DEASSIGN,
    KVM_IRQFD_FLAG_RESAMPLE,
)
from belljar.kvm.abi.structs import (
    kvm_coalesced_mmio_zone,
    kvm_ioeventfd,
    kvm_irq_level,
    kvm_irq_routing,
    kvm_irq_routing_entry,
    kvm_irqchip,
    kvm_irqfd,
    kvm_msi,
    kvm_pit_config,
    kvm_pit_state2,
    kvm_reinject_control,
)
from belljar.records import dataclass


@dataclass(frozen=True, slots=True)
class IrqchipRoute:
    """GSI to a pin of an in-kernel chip (KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE or KVM_IRQCHIP_IOAPIC)."""

    gsi: int
    chip: int
    pin: int


@dataclass(frozen=True, slots=True)
class MsiRoute:
    """GSI to a message-signalled interrupt: where it is written, and the 32-bit data (SDM 3A 11.11)."""

    gsi: int
    gpa: int
    data: int


def routing_entry(route: IrqchipRoute | MsiRoute | kvm_irq_routing_entry) -> kvm_irq_routing_entry:
    """A route as the kernel takes it."""
    if isinstance(route, kvm_irq_routing_entry):
        return route
    entry = kvm_irq_routing_entry(gsi=route.gsi)
    if isinstance(route, IrqchipRoute):
        entry.type = KVM_IRQ_ROUTING_IRQCHIP
        entry.u.irqchip.irqchip = route.chip
        entry.u.irqchip.pin = route.pin
    else:
        entry.type = KVM_IRQ_ROUTING_MSI
        entry.u.msi.address_lo = route.gpa & 0xFFFF_FFFF
        entry.u.msi.address_hi = route.gpa >> 32
        entry.u.msi.data = route.data
    return entry


class VmInterrupts(Capable):
    """The part of a VM that is about interrupts and doorbells."""

    # -- chips ---------------------------------------------------------------------------------------------------

    def create_irqchip(self) -> None:
        """8259 pair, IOAPIC and a local APIC for each vCPU, in the kernel; before any vCPU is made (api.rst 4.24)."""
        self.call(ioctls.KVM_CREATE_IRQCHIP, needs=caps.KVM_CAP_IRQCHIP)

    def split_irqchip(self, pins: int = 24) -> None:
        """Only the local APICs in the kernel, `pins` routes kept for an IOAPIC elsewhere (KVM_CAP_SPLIT_IRQCHIP)."""
        self.enable(caps.KVM_CAP_SPLIT_IRQCHIP, pins)

    def use_x2apic_ids(self, flags: int) -> None:
        """KVM_X2APIC_API_* flags: 32-bit APIC ids in routes and states (KVM_CAP_X2APIC_API, api.rst section 7)."""
        self.enable(caps.KVM_CAP_X2APIC_API, flags)

    def get_irqchip(self, chip: int) -> kvm_irqchip:
        """The state of one in-kernel chip: KVM_IRQCHIP_PIC_MASTER, _SLAVE or _IOAPIC (api.rst 4.26)."""
        state = kvm_irqchip(chip_id=chip)
        self.call(ioctls.KVM_GET_IRQCHIP, state, needs=caps.KVM_CAP_IRQCHIP)
        return state

    def set_irqchip(self, state: kvm_irqchip) -> None:
        """Set the state of the chip that `state.chip_id` names (api.rst 4.27)."""
        self.call(ioctls.KVM_SET_IRQCHIP, state, needs=caps.KVM_CAP_IRQCHIP)

    def create_pit(self, flags: int = 0) -> None:
        """The 8254 in the kernel, after `create_irqchip`; KVM_PIT_SPEAKER_DUMMY answers port 0x61 too (api.rst 4.71)."""
        self.call(ioctls.KVM_CREATE_PIT2, kvm_pit_config(flags=flags), needs=caps.KVM_CAP_PIT2)

    def get_pit(self) -> kvm_pit_state2:
        """The state of the in-kernel 8254 (api.rst 4.72)."""
        state = kvm_pit_state2()
        self.call(ioctls.KVM_GET_PIT2, state, needs=caps.KVM_CAP_PIT_STATE2)
        return state

    def set_pit(self, state: kvm_pit_state2) -> None:
        """Set the state of the in-kernel 8254 (api.rst 4.73)."""
        self.call(ioctls.KVM_SET_PIT2, state, needs=caps.KVM_CAP_PIT_STATE2)

    def reinject_pit(self, enabled: bool) -> None:
        """Whether ticks that the guest could not take yet are made up for (KVM_REINJECT_CONTROL, api.rst 4.99)."""
        request = kvm_reinject_control(pit_reinject=int(enabled))
        self.call(ioctls.KVM_REINJECT_CONTROL, request, needs=caps.KVM_CAP_REINJECT_CONTROL)

    # -- lines and messages ----------------------------------------------------------------------------------------

    def set_irq_line(self, gsi: int, level: bool) -> None:
        """Raise or lower an interrupt line (KVM_IRQ_LINE, api.rst 4.25)."""
        self.call(ioctls.KVM_IRQ_LINE, kvm_irq_level(irq=gsi, level=int(level)), needs=caps.KVM_CAP_IRQCHIP)

    def set_irq_line_status(self, gsi: int, level: bool) -> int:
        """The same, and what became of it: 0 ignored (masked), -1 or more than 0 otherwise, as KVM_IRQ_LINE_STATUS says."""
        request = kvm_irq_level(irq=gsi, level=int(level))
        self.call(ioctls.KVM_IRQ_LINE_STATUS, request, needs=caps.KVM_CAP_IRQ_INJECT_STATUS)
        return int.from_bytes(request.irq.to_bytes(4, "little"), "little", signed=True)

    def set_gsi_routing(self, routes: Sequence[IrqchipRoute | MsiRoute | kvm_irq_routing_entry]) -> None:
        """Replace all routes of all GSIs (KVM_SET_GSI_ROUTING, api.rst 4.52)."""
        entries = b"".join(bytes(routing_entry(route)) for route in routes)
        table = kvm_irq_routing.with_tail(entries, nr=len(routes))
        self.call(ioctls.KVM_SET_GSI_ROUTING, table, needs=caps.KVM_CAP_IRQ_ROUTING)

    def signal_msi(self, gpa: int, data: int, *, device: int | None = None) -> int:
        """Deliver a message-signalled interrupt (KVM_SIGNAL_MSI, api.rst 4.71): more than 0 delivered, 0 blocked by the guest."""
        request = kvm_msi(address_lo=gpa & 0xFFFF_FFFF, address_hi=gpa >> 32, data=data)
        if device is not None:
            request.flags, request.devid = 1, device  # KVM_MSI_VALID_DEVID
        return self.call(ioctls.KVM_SIGNAL_MSI, request, needs=caps.KVM_CAP_SIGNAL_MSI)

    # -- event file descriptors --------------------------------------------------------------------------------------

    def add_irqfd(self, eventfd: int, gsi: int, *, resample: int | None = None) -> None:
        """Raise `gsi` whenever `eventfd` is signalled (KVM_IRQFD, api.rst 4.75).

        With `resample`, another eventfd, the line stays up until the guest's end of interrupt, which signals that one.
        """
        if eventfd < 0:
            raise ConfigurationError(f"descriptor {eventfd} is no eventfd")
        request = kvm_irqfd(fd=eventfd, gsi=gsi)
        if resample is not None:
            request.flags, request.resamplefd = KVM_IRQFD_FLAG_RESAMPLE, resample
        needs = caps.KVM_CAP_IRQFD if resample is None else caps.KVM_CAP_IRQFD_RESAMPLE
        self.call(ioctls.KVM_IRQFD, request, needs=needs)

    def remove_irqfd(self, eventfd: int, gsi: int) -> None:
        """Undo `add_irqfd`."""
        request = kvm_irqfd(fd=eventfd, gsi=gsi, flags=KVM_IRQFD_FLAG_DEASSIGN)
        self.call(ioctls.KVM_IRQFD, request, needs=caps.KVM_CAP_IRQFD)

    def add_ioeventfd(
        self, eventfd: int, *, gpa: int | None = None, port: int | None = None, size: int = 0, value: int | None = None
    ) -> None:
        """Signal `eventfd` on a guest's write to a guest-physical address, or to a port, instead of an exit (api.rst 4.59).

        One of `gpa` and `port`. `size` is 0 (any), 1, 2, 4 or 8 bytes; with `value`, only writes of it. Raises
        ConfigurationError for another size, or neither or both places.
        """
        self._ioeventfd(eventfd, gpa, port, size, value, 0)

    def remove_ioeventfd(
        self, eventfd: int, *, gpa: int | None = None, port: int | None = None, size: int = 0, value: int | None = None
    ) -> None:
        """Undo `add_ioeventfd`; every argument as it was."""
        self._ioeventfd(eventfd, gpa, port, size, value, KVM_IOEVENTFD_FLAG_DEASSIGN)

    def _ioeventfd(
        self, eventfd: int, gpa: int | None, port: int | None, size: int, value: int | None, flags: int
    ) -> None:
        if size not in (0, 1, 2, 4, 8):
            raise ConfigurationError(f"an ioeventfd takes writes of 1, 2, 4 or 8 bytes, or 0 for any, not {size}")
        where = _gpa_or_port(gpa, port)
        if port is not None:
            flags |= KVM_IOEVENTFD_FLAG_PIO
        if value is not None:
            flags |= KVM_IOEVENTFD_FLAG_DATAMATCH
        request = kvm_ioeventfd(addr=where, len=size, fd=eventfd, flags=flags, datamatch=value or 0)
        needs = caps.KVM_CAP_IOEVENTFD if size else caps.KVM_CAP_IOEVENTFD_ANY_LENGTH
        self.call(ioctls.KVM_IOEVENTFD, request, needs=needs)

    # -- collected writes --------------------------------------------------------------------------------------------

    def add_coalesced_zone(self, *, gpa: int | None = None, port: int | None = None, size: int) -> None:
        """Collect the guest's writes to `size` bytes instead of an exit each (api.rst 4.116).

        `Vcpu.coalesced_writes` takes them. One of `gpa` and `port`, else ConfigurationError.
        """
        self._zone(ioctls.KVM_REGISTER_COALESCED_MMIO, gpa, port, size)

    def remove_coalesced_zone(self, *, gpa: int | None = None, port: int | None = None, size: int) -> None:
        """Undo `add_coalesced_zone`."""
        self._zone(ioctls.KVM_UNREGISTER_COALESCED_MMIO, gpa, port, size)

    def _zone(self, request: int, gpa: int | None, port: int | None, size: int) -> None:
        zone = kvm_coalesced_mmio_zone(addr=_gpa_or_port(gpa, port), length=size, pio=int(port is not None))
        needs = caps.KVM_CAP_COALESCED_MMIO if port is None else caps.KVM_CAP_COALESCED_PIO
        self.call(request, zone, needs=needs)


def _gpa_or_port(gpa: int | None, port: int | None) -> int:
    if gpa is not None and port is None:
        return gpa
    if port is None or gpa is not None:
        raise ConfigurationError("a guest's writes are told by a guest-physical address or by a port, one of the two")
    return port
