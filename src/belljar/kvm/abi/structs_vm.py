"""The structures that a VM is spoken to with: memory, interrupts, clocks, devices, statistics (<linux/kvm.h>).

What the fields mean is in api.rst under the ioctl that takes the structure.
"""

from __future__ import annotations

from belljar.kvm.abi.layout import Array, Bytes, Nested, Structs, Structure, s32, s64, u8, u16, u32, u64


class kvm_userspace_memory_region(Structure):
    """KVM_SET_USER_MEMORY_REGION (api.rst 4.35)."""

    slot = u32()
    flags = u32()
    guest_phys_addr = u64()
    memory_size = u64()
    userspace_addr = u64()


class kvm_userspace_memory_region2(Structure):
    """KVM_SET_USER_MEMORY_REGION2 (api.rst 4.140)."""

    slot = u32()
    flags = u32()
    guest_phys_addr = u64()
    memory_size = u64()
    userspace_addr = u64()
    guest_memfd_offset = u64()
    guest_memfd = u32()
    pad1 = u32()
    pad2 = Array("Q", 14)


class kvm_dirty_log(Structure):
    """KVM_GET_DIRTY_LOG (api.rst 4.8)."""

    slot = u32()
    padding1 = u32()
    dirty_bitmap = u64()


class kvm_clear_dirty_log(Structure):
    """KVM_CLEAR_DIRTY_LOG (api.rst 4.117)."""

    slot = u32()
    num_pages = u32()
    first_page = u64()
    dirty_bitmap = u64()


class kvm_dirty_gfn(Structure):
    """One entry of a vCPU's dirty ring (KVM_CAP_DIRTY_LOG_RING, api.rst section 8); `offset` in pages from the slot's start."""

    flags = u32()
    slot = u32()
    offset = u64()


class kvm_memory_attributes(Structure):
    """KVM_SET_MEMORY_ATTRIBUTES (api.rst 4.141)."""

    address = u64()
    # `size` is the kernel's name; here it would hide the structure's own.
    length = u64()
    attributes = u64()
    flags = u64()


class kvm_create_guest_memfd(Structure):
    """KVM_CREATE_GUEST_MEMFD (api.rst 4.142)."""

    # `size` is the kernel's name; here it would hide the structure's own.
    length = u64()
    flags = u64()
    reserved = Array("Q", 6)


class kvm_pre_fault_memory(Structure):
    """KVM_PRE_FAULT_MEMORY (api.rst 4.143); the kernel moves `gpa` and `length` on as it goes."""

    gpa = u64()
    # `size` is the kernel's name; here it would hide the structure's own.
    length = u64()
    flags = u64()
    padding = Array("Q", 5)


class kvm_irq_level(Structure):
    """KVM_IRQ_LINE, KVM_IRQ_LINE_STATUS (api.rst 4.25)."""

    irq = u32()
    level = u32()


class kvm_pic_state(Structure):
    """One 8259 (KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE)."""

    last_irr = u8()
    irr = u8()
    imr = u8()
    isr = u8()
    priority_add = u8()
    irq_base = u8()
    read_reg_select = u8()
    poll = u8()
    special_mask = u8()
    init_state = u8()
    auto_eoi = u8()
    rotate_on_auto_eoi = u8()
    special_fully_nested_mode = u8()
    init4 = u8()
    elcr = u8()
    elcr_mask = u8()


class kvm_ioapic_state(Structure):
    """The IOAPIC (KVM_IRQCHIP_IOAPIC); `redirtbl` holds its 24 redirection entries as the 82093AA lays them out."""

    base_address = u64()
    ioregsel = u32()
    id = u32()
    irr = u32()
    pad = u32()
    redirtbl = Array("Q", 24)


class kvm_irqchip_union(Structure, union=True):
    """The chip's own part of `kvm_irqchip`."""

    dummy = Bytes(512)
    pic = Nested(kvm_pic_state)
    ioapic = Nested(kvm_ioapic_state)


class kvm_irqchip(Structure):
    """KVM_GET_IRQCHIP, KVM_SET_IRQCHIP (api.rst 4.26)."""

    chip_id = u32()
    pad = u32()
    chip = Nested(kvm_irqchip_union)


class kvm_pit_config(Structure):
    """KVM_CREATE_PIT2 (api.rst 4.71)."""

    flags = u32()
    pad = Array("I", 15)


class kvm_pit_channel_state(Structure):
    """One counter of the 8254."""

    count = u32()
    latched_count = u16()
    count_latched = u8()
    status_latched = u8()
    status = u8()
    read_state = u8()
    write_state = u8()
    write_latch = u8()
    rw_mode = u8()
    mode = u8()
    bcd = u8()
    gate = u8()
    count_load_time = s64()


class kvm_pit_state2(Structure):
    """KVM_GET_PIT2, KVM_SET_PIT2 (api.rst 4.72)."""

    channels = Structs(kvm_pit_channel_state, 3)
    flags = u32()
    reserved = Array("I", 9)


class kvm_reinject_control(Structure):
    """KVM_REINJECT_CONTROL (api.rst 4.99)."""

    pit_reinject = u8()
    reserved = Bytes(31)


class kvm_irq_routing_irqchip(Structure):
    """A GSI that leads to an interrupt chip's pin."""

    irqchip = u32()
    pin = u32()


class kvm_irq_routing_msi(Structure):
    """A GSI that becomes a message-signalled interrupt."""

    address_lo = u32()
    address_hi = u32()
    data = u32()
    devid = u32()


class kvm_irq_routing_hv_sint(Structure):
    """A GSI that becomes a Hyper-V synthetic interrupt."""

    vcpu = u32()
    sint = u32()


class kvm_irq_routing_xen_evtchn(Structure):
    """A GSI that becomes a Xen event channel."""

    port = u32()
    vcpu = u32()
    priority = u32()


class kvm_irq_routing_union(Structure, union=True):
    """Where a routing entry leads, by its type."""

    irqchip = Nested(kvm_irq_routing_irqchip)
    msi = Nested(kvm_irq_routing_msi)
    hv_sint = Nested(kvm_irq_routing_hv_sint)
    xen_evtchn = Nested(kvm_irq_routing_xen_evtchn)
    pad = Array("I", 8)


class kvm_irq_routing_entry(Structure):
    """One route of a GSI."""

    gsi = u32()
    type = u32()
    flags = u32()
    pad = u32()
    u = Nested(kvm_irq_routing_union)


# The union holds 64-bit members of other architectures, which do not change x86's layout: 48 bytes an entry.


class kvm_irq_routing(Structure):
    """KVM_SET_GSI_ROUTING (api.rst 4.52)."""

    nr = u32()
    flags = u32()
    entries = Structs(kvm_irq_routing_entry)


class kvm_msi(Structure):
    """KVM_SIGNAL_MSI (api.rst 4.71)."""

    address_lo = u32()
    address_hi = u32()
    data = u32()
    flags = u32()
    devid = u32()
    pad = Bytes(12)


class kvm_irqfd(Structure):
    """KVM_IRQFD (api.rst 4.75)."""

    fd = u32()
    gsi = u32()
    flags = u32()
    resamplefd = u32()
    pad = Bytes(16)


class kvm_ioeventfd(Structure):
    """KVM_IOEVENTFD (api.rst 4.59)."""

    datamatch = u64()
    addr = u64()
    len = u32()
    fd = s32()
    flags = u32()
    pad = Bytes(36)


class kvm_coalesced_mmio_zone(Structure):
    """KVM_REGISTER_COALESCED_MMIO, KVM_UNREGISTER_COALESCED_MMIO (api.rst 4.116)."""

    addr = u64()
    # `size` is the kernel's name; here it would hide the structure's own.
    length = u32()
    pio = u32()


class kvm_coalesced_mmio(Structure):
    """One collected write."""

    phys_addr = u64()
    len = u32()
    pio = u32()
    data = Bytes(8)


class kvm_coalesced_mmio_ring(Structure):
    """The ring of collected writes, one page, shared by all vCPUs of a VM: full when `last` is just behind `first`."""

    first = u32()
    last = u32()
    coalesced_mmio = Structs(kvm_coalesced_mmio)


class kvm_clock_data(Structure):
    """KVM_GET_CLOCK, KVM_SET_CLOCK (api.rst 4.29); nanoseconds."""

    clock = u64()
    flags = u32()
    pad0 = u32()
    realtime = u64()
    host_tsc = u64()
    pad = Array("I", 4)


class kvm_create_device(Structure):
    """KVM_CREATE_DEVICE (api.rst 4.79)."""

    type = u32()
    fd = u32()
    flags = u32()


class kvm_device_attr(Structure):
    """KVM_SET_DEVICE_ATTR, KVM_GET_DEVICE_ATTR, KVM_HAS_DEVICE_ATTR (api.rst 4.80)."""

    flags = u32()
    group = u32()
    attr = u64()
    addr = u64()


class kvm_hyperv_eventfd(Structure):
    """KVM_HYPERV_EVENTFD (api.rst 4.113)."""

    conn_id = u32()
    fd = s32()
    flags = u32()
    padding = Array("I", 3)


class kvm_xen_hvm_config(Structure):
    """KVM_XEN_HVM_CONFIG (api.rst 4.28)."""

    flags = u32()
    msr = u32()
    blob_addr_32 = u64()
    blob_addr_64 = u64()
    blob_size_32 = u8()
    blob_size_64 = u8()
    pad2 = Bytes(30)


class kvm_stats_header(Structure):
    """What a statistics file begins with (api.rst 4.133)."""

    flags = u32()
    name_size = u32()
    num_desc = u32()
    id_offset = u32()
    desc_offset = u32()
    data_offset = u32()


class kvm_stats_desc(Structure):
    """One statistic; `name_size` bytes of name follow."""

    flags = u32()
    exponent_u16 = u16()
    # `size` is the kernel's name; here it would hide the structure's own.
    count = u16()
    offset = u32()
    bucket_size = u32()
