"""The kernel's interrupt chips as an engine offers them: made, driven, and read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from belljar.errors import CapabilityMissing, ConfigurationError, FeatureUnsupported, KvmCallFailed
from belljar.kvm.abi import caps
from belljar.kvm.abi.flags import (
    KVM_IRQCHIP_IOAPIC,
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_PIT_FLAGS_HPET_LEGACY,
    KVM_PIT_SPEAKER_DUMMY,
)
from belljar.kvm.vcpu import Vcpu
from belljar.kvm.vm import Vm
from belljar.kvm.vm_interrupts import IrqchipRoute, MsiRoute
from belljar.routes import MessageRoute, PinRoute, PinTarget
from belljar.watching import ChipRegisters, PicRegisters
from belljar.x86.local_apic import (
    DFR_FLAT,
    LAPIC_GPA,
    LVT_MASKED,
    MODE_MASK,
    MODE_SHIFT,
    SVR_ENABLED,
    XAPIC_ID_SHIFT,
    Reg,
)
from belljar.x86.msr import APIC_BASE_ENABLED, APIC_BASE_X2APIC

IDENTITY_MAP_GPA = 0xFEFF_C000
TSS_GPA = 0xFEFF_D000
"""Four pages in the hole below 4 GiB where no device is: KVM's own, on Intel processors without unrestricted guests (api.rst
4.36, 4.40)."""

PIC_PINS = 8
"""Of one 8259; the second is behind pin 2 of the first."""

IOAPIC_PINS = 24

DELIVERY = ("fixed", "lowest-priority", "smi", "reserved", "nmi", "init", "reserved", "extint")
"""82093AA data sheet 3.2.4."""

NMI_LIKE = ("smi", "nmi", "init")
"""Delivery modes that RFLAGS.IF does not hold back."""

MESSAGE_NMI = 4 << MODE_SHIFT
"""The data of a message whose delivery mode is NMI; it goes to `LAPIC_GPA`, the APIC id in bits 12 to 19 (SDM 3A 11.11)."""

EXTINT = 7
LINT_MESSAGE = 0x7FF
"""A local vector's delivery mode and vector (SDM 3A 11.5.1)."""

LOWEST_PRIORITY = 1
BROADCAST = 0xFF
"""SDM 3A 11.6.1, 11.6.2."""


class KernelChips:
    """Local APICs in the kernel, and unless `split` 8259 pair, IOAPIC and 8254. Raises FeatureUnsupported if it has none."""

    def __init__(self, vm: Vm, *, split: bool = False) -> None:
        self._vm = vm
        self._split = split
        self._nmi_routes = False  # whether a line leads to a message that is like an NMI
        self.vcpus: list[Vcpu] = []
        try:
            if vm.check(caps.KVM_CAP_SET_IDENTITY_MAP_ADDR):
                vm.set_identity_map_address(IDENTITY_MAP_GPA)
            if vm.check(caps.KVM_CAP_SET_TSS_ADDR):
                vm.set_tss_address(TSS_GPA)
            if split:
                vm.split_irqchip(IOAPIC_PINS)
            else:
                vm.create_irqchip()
                vm.create_pit(KVM_PIT_SPEAKER_DUMMY)
        except (CapabilityMissing, KvmCallFailed) as error:
            raise FeatureUnsupported(f"this host's KVM has no interrupt chips: {error}") from None

    def set_line(self, gsi: int, level: bool) -> None:
        """KVM_IRQ_LINE."""
        self._vm.set_irq_line(gsi, level)

    def signal_message(self, gpa: int, data: int) -> int:
        """KVM_SIGNAL_MSI; 0 where no local APIC takes it, or it is no interrupt message."""
        try:
            return self._vm.signal_msi(gpa, data)
        except KvmCallFailed:
            return 0

    def set_routes(self, routes: Sequence[PinRoute | MessageRoute]) -> None:
        """KVM_SET_GSI_ROUTING."""
        try:
            self._vm.set_gsi_routing([_entry(route) for route in routes])
        except KvmCallFailed as error:
            raise ConfigurationError(f"KVM refuses the interrupt routes: {error}") from None
        self._nmi_routes = any(isinstance(route, MessageRoute) and _nmi_like(route.data) for route in routes)

    def pin_target(self, chip: str, pin: int) -> PinTarget:
        """What the guest programmed a pin to, from KVM_GET_IRQCHIP."""
        return self._ioapic_target(pin) if chip == "ioapic" else self._pic_target(pin)

    def _ioapic_target(self, pin: int) -> PinTarget:
        fields = self._vm.get_irqchip(KVM_IRQCHIP_IOAPIC).chip.ioapic.redirtbl[pin]
        return PinTarget(
            fields & 0xFF,
            DELIVERY[fields >> MODE_SHIFT & MODE_MASK],
            bool(fields >> 15 & 1),
            bool(fields >> 16 & 1),
            fields >> 56,
            logical := bool(fields >> 11 & 1),
            self._reached(fields >> 56, logical, fields >> MODE_SHIFT & MODE_MASK),
        )

    def _reached(self, destination: int, logical: bool, delivery: int) -> tuple[int, ...]:
        return tuple(vcpu.index for vcpu in self.vcpus if takes(local_apic(vcpu), destination, logical, delivery))

    def _pic_target(self, pin: int) -> PinTarget:
        which = KVM_IRQCHIP_PIC_MASTER if pin < PIC_PINS else KVM_IRQCHIP_PIC_SLAVE
        pic = self._vm.get_irqchip(which).chip.pic
        masked = bool(pic.imr >> pin % PIC_PINS & 1)
        if pin >= PIC_PINS:
            masked |= bool(self._vm.get_irqchip(KVM_IRQCHIP_PIC_MASTER).chip.pic.imr >> 2 & 1)
        level = bool(pic.elcr >> pin % PIC_PINS & 1)
        return PinTarget(pic.irq_base & 0xF8 | pin % PIC_PINS, "extint", level, masked, 0, False, self.pic_cpus())

    def message_cpus(self, gpa: int, data: int) -> tuple[int, ...]:
        """Which vCPUs' local APICs a message would reach now (SDM 3A 11.11); none if the address is none of theirs."""
        if gpa >> 20 & 0xFFF != LAPIC_GPA >> 20:
            return ()
        return self._reached(gpa >> 12 & 0xFF, bool(gpa >> 2 & 1), data >> MODE_SHIFT & MODE_MASK)

    def registers(self) -> ChipRegisters:
        """KVM_GET_LAPIC of every vCPU, and KVM_GET_IRQCHIP of what is there (api.rst 4.26, 4.57)."""
        lapics = {vcpu.index: bytes(vcpu.get_lapic().regs) for vcpu in self.vcpus}
        if self._split:
            return ChipRegisters(lapics)
        ioapic = self._vm.get_irqchip(KVM_IRQCHIP_IOAPIC).chip.ioapic
        pics = (self._pic_registers(which) for which in (KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE))
        return ChipRegisters(lapics, tuple(ioapic.redirtbl[pin] for pin in range(IOAPIC_PINS)), ioapic.id, tuple(pics))

    def _pic_registers(self, which: int) -> PicRegisters:
        pic = self._vm.get_irqchip(which).chip.pic
        return PicRegisters(
            pic.irq_base & 0xF8, pic.irr, pic.isr, pic.imr, pic.elcr,
            bool(pic.auto_eoi), bool(pic.special_mask), not pic.init_state,
        )  # fmt: skip

    def pic_cpus(self) -> tuple[int, ...]:
        """Which vCPUs' local APICs let an 8259's interrupts through."""
        return tuple(vcpu.index for vcpu in self.vcpus if lint0_takes_pic(local_apic(vcpu)))

    def raise_lint0(self, index: int) -> None:
        """An edge at LINT0 as a message of what its entry says (SDM 3A 11.5.1): they have vector and mode at the same place.

        ExtINT is KVM_INTERRUPT's part.
        """
        for vcpu in self.vcpus:
            if vcpu.index != index:
                continue
            entry = _register(vcpu.get_lapic().regs, Reg.LVT_LINT0)
            if not entry & LVT_MASKED and entry >> MODE_SHIFT & MODE_MASK != EXTINT:
                self.signal_message(LAPIC_GPA | index << 12, entry & LINT_MESSAGE)

    def connect_timer(self, connected: bool) -> None:
        """KVM_SET_PIT2: an HPET in legacy mode takes the 8254's line over."""
        if self._split:
            return
        state = self._vm.get_pit()
        state.flags = state.flags & ~KVM_PIT_FLAGS_HPET_LEGACY | (0 if connected else KVM_PIT_FLAGS_HPET_LEGACY)
        self._vm.set_pit(state)

    def connect_eventfd(self, eventfd: int, gsi: int) -> None:
        """KVM_IRQFD."""
        try:
            self._vm.add_irqfd(eventfd, gsi)
        except KvmCallFailed as error:
            raise ConfigurationError(
                f"KVM does not take descriptor {eventfd} for an eventfd: {error.message}", hint="os.eventfd makes one"
            ) from None

    def send_nmi(self, index: int) -> None:
        """A message that means NMI to one vCPU's local APIC; from any thread."""
        self.signal_message(LAPIC_GPA | index << 12, MESSAGE_NMI)

    def may_send_nmi(self, vcpu: Vcpu) -> bool:
        """Whether a pin of a chip in the kernel is open for something that this vCPU takes with RFLAGS.IF=0, as for an NMI
        watchdog, or a line leads to such a message."""
        if self._nmi_routes or lint0_sends_nmi(vcpu.get_lapic().regs):
            return True
        if self._split:
            return False
        table = self._vm.get_irqchip(KVM_IRQCHIP_IOAPIC).chip.ioapic.redirtbl
        return any(not entry >> 16 & 1 and _nmi_like(entry) for entry in table)


def lint0_sends_nmi(registers: bytes) -> bool:
    """Whether the local APIC with this register page makes NMIs of what comes at LINT0 (the 8254's ticks, for one)."""
    entry = _register(registers, Reg.LVT_LINT0)
    return not entry & LVT_MASKED and _nmi_like(entry)


def _nmi_like(entry: int) -> bool:
    """Of a message's data, a redirection entry or a local vector: they have the delivery mode at the same place."""
    return DELIVERY[entry >> MODE_SHIFT & MODE_MASK] in NMI_LIKE


class LocalApicState(NamedTuple):
    """A local APIC in the kernel: its register page, and IA32_APIC_BASE."""

    registers: bytes
    base: int


def local_apic(vcpu: Vcpu) -> LocalApicState:
    """That of a vCPU, now."""
    return LocalApicState(bytes(vcpu.get_lapic().regs), vcpu.get_sregs().apic_base)


def lint0_takes_pic(lapic: LocalApicState) -> bool:
    """Whether it passes the 8259's interrupts on, as it also does when it is switched off (SDM 3A 11.4.3)."""
    entry = _register(lapic.registers, Reg.LVT_LINT0)
    if not lapic.base & APIC_BASE_ENABLED:
        return True
    return not entry & LVT_MASKED and DELIVERY[entry >> MODE_SHIFT & MODE_MASK] == "extint"


def takes(lapic: LocalApicState, destination: int, logical: bool, delivery: int) -> bool:
    """Whether a message with an 8-bit destination reaches a local APIC (SDM 3A 11.6.2, 11.12.10; 11.4.7.2: when it is off).

    255 means all in x2APIC mode, too, because KVM_X2APIC_API is not used (api.rst 7.7); nor are the ID's upper bits there.
    """
    registers = lapic.registers
    if not lapic.base & APIC_BASE_ENABLED:
        return False
    if delivery <= LOWEST_PRIORITY and not _register(registers, Reg.SVR) & SVR_ENABLED:
        return False
    if destination == BROADCAST:
        return True
    if not logical:
        return _register(registers, Reg.ID) >> XAPIC_ID_SHIFT == destination
    mine = _register(registers, Reg.LDR)
    if lapic.base & APIC_BASE_X2APIC:
        return not mine >> 16 and bool(mine & destination)
    mine >>= XAPIC_ID_SHIFT
    if _register(registers, Reg.DFR) >> 28 == DFR_FLAT >> 28:
        return bool(mine & destination)
    return mine >> 4 == destination >> 4 and bool(mine & destination & 0xF)


def _register(registers: bytes, register: Reg) -> int:
    return int.from_bytes(registers[register << 4 : (register << 4) + 4], "little")


def _entry(route: PinRoute | MessageRoute) -> IrqchipRoute | MsiRoute:
    if isinstance(route, MessageRoute):
        return MsiRoute(*route)
    if route.chip == "ioapic":
        return IrqchipRoute(route.gsi, KVM_IRQCHIP_IOAPIC, route.pin)
    if route.pin < PIC_PINS:
        return IrqchipRoute(route.gsi, KVM_IRQCHIP_PIC_MASTER, route.pin)
    return IrqchipRoute(route.gsi, KVM_IRQCHIP_PIC_SLAVE, route.pin - PIC_PINS)
