"""The structures that a vCPU is spoken to with: registers, events, debugging (<linux/kvm.h>, <asm/kvm.h>).

What the fields mean is in api.rst under the ioctl that takes the structure.
"""

from __future__ import annotations

from belljar.kvm.abi.layout import Array, Bytes, Nested, Structs, Structure, u8, u16, u32, u64


class kvm_regs(Structure):
    """KVM_GET_REGS, KVM_SET_REGS (api.rst 4.11)."""

    rax = u64()
    rbx = u64()
    rcx = u64()
    rdx = u64()
    rsi = u64()
    rdi = u64()
    rsp = u64()
    rbp = u64()
    r8 = u64()
    r9 = u64()
    r10 = u64()
    r11 = u64()
    r12 = u64()
    r13 = u64()
    r14 = u64()
    r15 = u64()
    rip = u64()
    rflags = u64()


class kvm_segment(Structure):
    """A segment register with its hidden part; `limit` in bytes."""

    base = u64()
    limit = u32()
    selector = u16()
    type = u8()
    present = u8()
    dpl = u8()
    db = u8()
    s = u8()
    l = u8()  # noqa: E741  (the manual's name)
    g = u8()
    avl = u8()
    unusable = u8()
    padding = u8()


class kvm_dtable(Structure):
    """GDTR or IDTR."""

    base = u64()
    limit = u16()
    padding = Array("H", 3)


class kvm_sregs(Structure):
    """KVM_GET_SREGS, KVM_SET_SREGS (api.rst 4.13)."""

    cs = Nested(kvm_segment)
    ds = Nested(kvm_segment)
    es = Nested(kvm_segment)
    fs = Nested(kvm_segment)
    gs = Nested(kvm_segment)
    ss = Nested(kvm_segment)
    tr = Nested(kvm_segment)
    ldt = Nested(kvm_segment)
    gdt = Nested(kvm_dtable)
    idt = Nested(kvm_dtable)
    cr0 = u64()
    cr2 = u64()
    cr3 = u64()
    cr4 = u64()
    cr8 = u64()
    efer = u64()
    apic_base = u64()
    interrupt_bitmap = Array("Q", 4)


class kvm_sregs2(Structure):
    """KVM_GET_SREGS2, KVM_SET_SREGS2 (api.rst 4.131): PDPTRs instead of the interrupt bitmap."""

    cs = Nested(kvm_segment)
    ds = Nested(kvm_segment)
    es = Nested(kvm_segment)
    fs = Nested(kvm_segment)
    gs = Nested(kvm_segment)
    ss = Nested(kvm_segment)
    tr = Nested(kvm_segment)
    ldt = Nested(kvm_segment)
    gdt = Nested(kvm_dtable)
    idt = Nested(kvm_dtable)
    cr0 = u64()
    cr2 = u64()
    cr3 = u64()
    cr4 = u64()
    cr8 = u64()
    efer = u64()
    apic_base = u64()
    flags = u64()
    pdptrs = Array("Q", 4)


class kvm_fpu(Structure):
    """KVM_GET_FPU, KVM_SET_FPU (api.rst 4.22); `fpr` is eight times 16 bytes, `xmm` sixteen times 16."""

    fpr = Bytes(128)
    fcw = u16()
    fsw = u16()
    ftwx = u8()
    pad1 = u8()
    last_opcode = u16()
    last_ip = u64()
    last_dp = u64()
    xmm = Bytes(256)
    mxcsr = u32()
    pad2 = u32()


class kvm_xsave(Structure):
    """KVM_GET_XSAVE, KVM_GET_XSAVE2, KVM_SET_XSAVE (api.rst 4.42): the XSAVE area in standard format; may be longer."""

    region = Array("I", 1024)


class kvm_xcr(Structure):
    """One extended control register."""

    xcr = u32()
    reserved = u32()
    value = u64()


class kvm_xcrs(Structure):
    """KVM_GET_XCRS, KVM_SET_XCRS (api.rst 4.44)."""

    nr_xcrs = u32()
    flags = u32()
    xcrs = Structs(kvm_xcr, 16)
    padding = Array("Q", 16)


class kvm_debugregs(Structure):
    """KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS (api.rst 4.33)."""

    db = Array("Q", 4)
    dr6 = u64()
    dr7 = u64()
    flags = u64()
    reserved = Array("Q", 9)


class kvm_msr_entry(Structure):
    """One MSR."""

    index = u32()
    reserved = u32()
    data = u64()


class kvm_msrs(Structure):
    """KVM_GET_MSRS, KVM_SET_MSRS (api.rst 4.18)."""

    nmsrs = u32()
    pad = u32()
    entries = Structs(kvm_msr_entry)


class kvm_msr_list(Structure):
    """KVM_GET_MSR_INDEX_LIST, KVM_GET_MSR_FEATURE_INDEX_LIST (api.rst 4.3): `nmsrs`, then so many 32-bit indices."""

    nmsrs = u32()


class kvm_msr_filter_range(Structure):
    """`nmsrs` MSRs from `base`; `bitmap` is the host address of one bit for each."""

    flags = u32()
    nmsrs = u32()
    base = u32()
    bitmap = u64()


class kvm_msr_filter(Structure):
    """KVM_X86_SET_MSR_FILTER (api.rst 4.97)."""

    flags = u32()
    ranges = Structs(kvm_msr_filter_range, 16)


class kvm_cpuid_entry2(Structure):
    """One CPUID leaf; `index` counts if `flags` has KVM_CPUID_FLAG_SIGNIFCANT_INDEX."""

    function = u32()
    index = u32()
    flags = u32()
    eax = u32()
    ebx = u32()
    ecx = u32()
    edx = u32()
    padding = Array("I", 3)


class kvm_cpuid2(Structure):
    """KVM_SET_CPUID2, KVM_GET_CPUID2, KVM_GET_SUPPORTED_CPUID, KVM_GET_EMULATED_CPUID (api.rst 4.20, 4.46, 4.88)."""

    nent = u32()
    padding = u32()
    entries = Structs(kvm_cpuid_entry2)


class kvm_one_reg(Structure):
    """KVM_GET_ONE_REG, KVM_SET_ONE_REG (api.rst 4.68); `addr` is where the value lies in this process."""

    id = u64()
    addr = u64()


class kvm_reg_list(Structure):
    """KVM_GET_REG_LIST (api.rst 4.84): `n`, then so many 64-bit register ids."""

    n = u64()


class kvm_exception_events(Structure):
    """The exception part of `kvm_vcpu_events`."""

    injected = u8()
    nr = u8()
    has_error_code = u8()
    pending = u8()
    error_code = u32()


class kvm_interrupt_events(Structure):
    """The interrupt part of `kvm_vcpu_events`."""

    injected = u8()
    nr = u8()
    soft = u8()
    shadow = u8()


class kvm_nmi_events(Structure):
    """The NMI part of `kvm_vcpu_events`."""

    injected = u8()
    pending = u8()
    masked = u8()
    pad = u8()


class kvm_smi_events(Structure):
    """The SMI part of `kvm_vcpu_events`."""

    smm = u8()
    pending = u8()
    smm_inside_nmi = u8()
    latched_init = u8()


class kvm_vcpu_events(Structure):
    """KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS (api.rst 4.31)."""

    exception = Nested(kvm_exception_events)
    interrupt = Nested(kvm_interrupt_events)
    nmi = Nested(kvm_nmi_events)
    sipi_vector = u32()
    flags = u32()
    smi = Nested(kvm_smi_events)
    triple_fault_pending = u8()
    reserved = Bytes(26)
    exception_has_payload = u8()
    exception_payload = u64()


class kvm_mp_state(Structure):
    """KVM_GET_MP_STATE, KVM_SET_MP_STATE (api.rst 4.38)."""

    mp_state = u32()


class kvm_lapic_state(Structure):
    """KVM_GET_LAPIC, KVM_SET_LAPIC (api.rst 4.57): the register page as hardware lays it out (SDM 3A 11.4.1)."""

    regs = Bytes(0x400)


class kvm_interrupt(Structure):
    """KVM_INTERRUPT (api.rst 4.16)."""

    irq = u32()


class kvm_signal_mask(Structure):
    """KVM_SET_SIGNAL_MASK (api.rst 4.21): `len`, then so many bytes of a kernel signal set."""

    len = u32()


class kvm_translation(Structure):
    """KVM_TRANSLATE (api.rst 4.15)."""

    linear_address = u64()
    physical_address = u64()
    valid = u8()
    writeable = u8()
    usermode = u8()
    pad = Bytes(5)


class kvm_guest_debug(Structure):
    """KVM_SET_GUEST_DEBUG (api.rst 4.87); `debugreg` is DR0 to DR7."""

    control = u32()
    pad = u32()
    debugreg = Array("Q", 8)


class kvm_tpr_access_ctl(Structure):
    """KVM_TPR_ACCESS_REPORTING."""

    enabled = u32()
    flags = u32()
    reserved = Array("I", 8)


class kvm_vapic_addr(Structure):
    """KVM_SET_VAPIC_ADDR."""

    vapic_addr = u64()


class kvm_x86_mce(Structure):
    """KVM_X86_SET_MCE (api.rst 4.106)."""

    status = u64()
    addr = u64()
    misc = u64()
    mcg_status = u64()
    bank = u8()
    pad1 = Bytes(7)
    pad2 = Array("Q", 3)


class kvm_nested_state(Structure):
    """KVM_GET_NESTED_STATE, KVM_SET_NESTED_STATE (api.rst 4.114): `size` counts this head and the data that follows."""

    flags = u16()
    format = u16()
    # `size` is the kernel's name; here it would hide the structure's own.
    total_size = u32()
    hdr = Array("Q", 15)


class kvm_enable_cap(Structure):
    """KVM_ENABLE_CAP (api.rst 4.37)."""

    cap = u32()
    flags = u32()
    args = Array("Q", 4)
    pad = Bytes(64)


class kvm_pmu_event_filter(Structure):
    """KVM_SET_PMU_EVENT_FILTER (api.rst 4.120): then `nevents` 64-bit events."""

    action = u32()
    nevents = u32()
    fixed_counter_bitmap = u32()
    flags = u32()
    pad = Array("I", 4)
