"""The page that a vCPU shares with the kernel: `struct kvm_run` and what KVM_RUN reports in it (api.rst section 5)."""

from __future__ import annotations

from belljar.kvm.abi.layout import Array, Bytes, Nested, Structure, u8, u16, u32, u64
from belljar.kvm.abi.structs import kvm_regs, kvm_sregs, kvm_vcpu_events

# Where the parts of a vCPU's mapping begin, in pages of 4096 bytes (<asm/kvm.h>).
KVM_PIO_PAGE_OFFSET = 1
KVM_COALESCED_MMIO_PAGE_OFFSET = 2
KVM_DIRTY_LOG_PAGE_OFFSET = 64

# Exit reasons (`kvm_run.exit_reason`).
KVM_EXIT_UNKNOWN = 0
KVM_EXIT_EXCEPTION = 1
KVM_EXIT_IO = 2
KVM_EXIT_HYPERCALL = 3
KVM_EXIT_DEBUG = 4
KVM_EXIT_HLT = 5
KVM_EXIT_MMIO = 6
KVM_EXIT_IRQ_WINDOW_OPEN = 7
KVM_EXIT_SHUTDOWN = 8
KVM_EXIT_FAIL_ENTRY = 9
KVM_EXIT_INTR = 10
KVM_EXIT_SET_TPR = 11
KVM_EXIT_TPR_ACCESS = 12
KVM_EXIT_NMI = 16
KVM_EXIT_INTERNAL_ERROR = 17
KVM_EXIT_SYSTEM_EVENT = 24
KVM_EXIT_IOAPIC_EOI = 26
KVM_EXIT_HYPERV = 27
KVM_EXIT_X86_RDMSR = 29
KVM_EXIT_X86_WRMSR = 30
KVM_EXIT_DIRTY_RING_FULL = 31
KVM_EXIT_AP_RESET_HOLD = 32
KVM_EXIT_X86_BUS_LOCK = 33
KVM_EXIT_XEN = 34
KVM_EXIT_NOTIFY = 37
KVM_EXIT_MEMORY_FAULT = 39

KVM_EXIT_IO_IN = 0
KVM_EXIT_IO_OUT = 1

KVM_INTERNAL_ERROR_EMULATION = 1
KVM_INTERNAL_ERROR_SIMUL_EX = 2
KVM_INTERNAL_ERROR_DELIVERY_EV = 3
KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4
KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES = 1 << 0

KVM_SYSTEM_EVENT_SHUTDOWN = 1
KVM_SYSTEM_EVENT_RESET = 2
KVM_SYSTEM_EVENT_CRASH = 3
KVM_SYSTEM_EVENT_WAKEUP = 4
KVM_SYSTEM_EVENT_SUSPEND = 5
KVM_SYSTEM_EVENT_SEV_TERM = 6

KVM_MSR_EXIT_REASON_INVAL = 1 << 0
KVM_MSR_EXIT_REASON_UNKNOWN = 1 << 1
KVM_MSR_EXIT_REASON_FILTER = 1 << 2

KVM_NOTIFY_CONTEXT_INVALID = 1 << 0
KVM_MEMORY_EXIT_FLAG_PRIVATE = 1 << 3

# `kvm_run.flags`.
KVM_RUN_X86_SMM = 1 << 0
KVM_RUN_X86_BUS_LOCK = 1 << 1
KVM_RUN_X86_GUEST_MODE = 1 << 2

# `kvm_run.kvm_valid_regs` and `kvm_run.kvm_dirty_regs`.
KVM_SYNC_X86_REGS = 1 << 0
KVM_SYNC_X86_SREGS = 1 << 1
KVM_SYNC_X86_EVENTS = 1 << 2


class kvm_run_hw(Structure):
    """KVM_EXIT_UNKNOWN."""

    hardware_exit_reason = u64()


class kvm_run_fail_entry(Structure):
    """KVM_EXIT_FAIL_ENTRY."""

    hardware_entry_failure_reason = u64()
    cpu = u32()


class kvm_run_ex(Structure):
    """KVM_EXIT_EXCEPTION."""

    exception = u32()
    error_code = u32()


class kvm_run_io(Structure):
    """KVM_EXIT_IO; `data_offset` from the start of the run page."""

    direction = u8()
    # `size` is the kernel's name; here it would hide the structure's own.
    item_size = u8()
    port = u16()
    count = u32()
    data_offset = u64()


class kvm_run_debug(Structure):
    """KVM_EXIT_DEBUG: `struct kvm_debug_exit_arch`."""

    exception = u32()
    pad = u32()
    pc = u64()
    dr6 = u64()
    dr7 = u64()


class kvm_run_mmio(Structure):
    """KVM_EXIT_MMIO."""

    phys_addr = u64()
    data = Bytes(8)
    len = u32()
    is_write = u8()


class kvm_run_hypercall(Structure):
    """KVM_EXIT_HYPERCALL; `flags` bit 0: the guest was in 64-bit mode (called `longmode` before Linux 6.6)."""

    nr = u64()
    args = Array("Q", 6)
    ret = u64()
    flags = u64()


class kvm_run_tpr_access(Structure):
    """KVM_EXIT_TPR_ACCESS."""

    rip = u64()
    is_write = u32()
    pad = u32()


class kvm_run_internal(Structure):
    """KVM_EXIT_INTERNAL_ERROR."""

    suberror = u32()
    ndata = u32()
    data = Array("Q", 16)


class kvm_run_emulation_failure(Structure):
    """KVM_EXIT_INTERNAL_ERROR with suberror KVM_INTERNAL_ERROR_EMULATION."""

    suberror = u32()
    ndata = u32()
    flags = u64()
    insn_size = u8()
    insn_bytes = Bytes(15)


class kvm_run_system_event(Structure):
    """KVM_EXIT_SYSTEM_EVENT."""

    type = u32()
    ndata = u32()
    data = Array("Q", 16)


class kvm_run_eoi(Structure):
    """KVM_EXIT_IOAPIC_EOI."""

    vector = u8()


class kvm_run_msr(Structure):
    """KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR; `error` 1 makes the instruction raise #GP."""

    error = u8()
    pad = Bytes(7)
    reason = u32()
    index = u32()
    data = u64()


class kvm_hyperv_exit(Structure):
    """KVM_EXIT_HYPERV: `type` 1 SynIC, 2 hypercall, 3 debugger; `u` as the kernel lays it out for each."""

    type = u32()
    pad1 = u32()
    u = Array("Q", 6)


class kvm_xen_exit(Structure):
    """KVM_EXIT_XEN: a hypercall of a Xen guest."""

    type = u32()
    pad = u32()  # the kernel's union begins at a multiple of 8
    longmode = u32()
    cpl = u32()
    input = u64()
    result = u64()
    params = Array("Q", 6)


class kvm_run_notify(Structure):
    """KVM_EXIT_NOTIFY."""

    flags = u32()


class kvm_run_memory_fault(Structure):
    """KVM_EXIT_MEMORY_FAULT; KVM_RUN itself fails with EFAULT or EHWPOISON."""

    flags = u64()
    gpa = u64()
    # `size` is the kernel's name; here it would hide the structure's own.
    length = u64()


class kvm_run_exit(Structure, union=True):
    """The part of the run page that depends on the exit reason."""

    hw = Nested(kvm_run_hw)
    fail_entry = Nested(kvm_run_fail_entry)
    ex = Nested(kvm_run_ex)
    io = Nested(kvm_run_io)
    debug = Nested(kvm_run_debug)
    mmio = Nested(kvm_run_mmio)
    hypercall = Nested(kvm_run_hypercall)
    tpr_access = Nested(kvm_run_tpr_access)
    internal = Nested(kvm_run_internal)
    emulation_failure = Nested(kvm_run_emulation_failure)
    system_event = Nested(kvm_run_system_event)
    eoi = Nested(kvm_run_eoi)
    hyperv = Nested(kvm_hyperv_exit)
    msr = Nested(kvm_run_msr)
    xen = Nested(kvm_xen_exit)
    notify = Nested(kvm_run_notify)
    memory_fault = Nested(kvm_run_memory_fault)
    padding = Bytes(256)


class kvm_sync_regs(Structure):
    """Registers that KVM_RUN hands over in the run page (api.rst section 6, KVM_CAP_SYNC_REGS)."""

    regs = Nested(kvm_regs)
    sregs = Nested(kvm_sregs)
    events = Nested(kvm_vcpu_events)


class kvm_run_sync(Structure, union=True):
    """`kvm_sync_regs` in the room the kernel keeps for it."""

    regs = Nested(kvm_sync_regs)
    padding = Bytes(2048)


class kvm_run(Structure):
    """The start of a vCPU's mapping. `exit` stands for the kernel's unnamed union."""

    request_interrupt_window = u8()
    immediate_exit = u8()
    padding1 = Bytes(6)
    exit_reason = u32()
    ready_for_interrupt_injection = u8()
    if_flag = u8()
    flags = u16()
    cr8 = u64()
    apic_base = u64()
    exit = Nested(kvm_run_exit)
    kvm_valid_regs = u64()
    kvm_dirty_regs = u64()
    s = Nested(kvm_run_sync)
