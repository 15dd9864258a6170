"""The numbers of KVM's ioctls on x86, computed as <asm-generic/ioctl.h> computes them.

An ioctl number holds a direction (2 bits), the size of its argument (14 bits), a type (8 bits, 0xAE for KVM) and a
number (8 bits). "System" calls go to the file descriptor of /dev/kvm, the others to that of a VM, a vCPU or a device
(Documentation/virt/kvm/api.rst section 4). Structures of variable length count with their fixed head only.
"""

from __future__ import annotations

KVMIO = 0xAE
"""The ioctl type of all KVM calls (<linux/kvm.h>)."""

_NONE, _WRITE, _READ = 0, 1, 2  # _IOC_NONE, _IOC_WRITE, _IOC_READ: seen from user space
_TYPE_SHIFT, _SIZE_SHIFT, _DIRECTION_SHIFT = 8, 16, 30


def _IO(number: int) -> int:
    return _NONE << _DIRECTION_SHIFT | KVMIO << _TYPE_SHIFT | number


def _IOR(number: int, size: int) -> int:
    return _READ << _DIRECTION_SHIFT | size << _SIZE_SHIFT | KVMIO << _TYPE_SHIFT | number


def _IOW(number: int, size: int) -> int:
    return _WRITE << _DIRECTION_SHIFT | size << _SIZE_SHIFT | KVMIO << _TYPE_SHIFT | number


def _IOWR(number: int, size: int) -> int:
    return (_READ | _WRITE) << _DIRECTION_SHIFT | size << _SIZE_SHIFT | KVMIO << _TYPE_SHIFT | number


# System: /dev/kvm.
KVM_GET_API_VERSION = _IO(0x00)
KVM_CREATE_VM = _IO(0x01)
KVM_GET_MSR_INDEX_LIST = _IOWR(0x02, 4)
KVM_CHECK_EXTENSION = _IO(0x03)  # VM too, with KVM_CAP_CHECK_EXTENSION_VM
KVM_GET_VCPU_MMAP_SIZE = _IO(0x04)
KVM_GET_SUPPORTED_CPUID = _IOWR(0x05, 8)
KVM_GET_EMULATED_CPUID = _IOWR(0x09, 8)
KVM_GET_MSR_FEATURE_INDEX_LIST = _IOWR(0x0A, 4)

# VM: memory.
KVM_CREATE_VCPU = _IO(0x41)
KVM_GET_DIRTY_LOG = _IOW(0x42, 16)
KVM_SET_NR_MMU_PAGES = _IO(0x44)
KVM_GET_NR_MMU_PAGES = _IO(0x45)
KVM_SET_USER_MEMORY_REGION = _IOW(0x46, 32)
KVM_SET_TSS_ADDR = _IO(0x47)
KVM_SET_IDENTITY_MAP_ADDR = _IOW(0x48, 8)
KVM_SET_USER_MEMORY_REGION2 = _IOW(0x49, 160)
KVM_CLEAR_DIRTY_LOG = _IOWR(0xC0, 24)
KVM_RESET_DIRTY_RINGS = _IO(0xC7)
KVM_SET_MEMORY_ATTRIBUTES = _IOW(0xD2, 32)
KVM_CREATE_GUEST_MEMFD = _IOWR(0xD4, 64)

# VM: interrupts and devices.
KVM_CREATE_IRQCHIP = _IO(0x60)
KVM_IRQ_LINE = _IOW(0x61, 8)
KVM_GET_IRQCHIP = _IOWR(0x62, 520)
KVM_SET_IRQCHIP = _IOR(0x63, 520)
KVM_CREATE_PIT = _IO(0x64)
KVM_GET_PIT = _IOWR(0x65, 72)
KVM_SET_PIT = _IOR(0x66, 72)
KVM_IRQ_LINE_STATUS = _IOWR(0x67, 8)
KVM_REGISTER_COALESCED_MMIO = _IOW(0x67, 16)
KVM_UNREGISTER_COALESCED_MMIO = _IOW(0x68, 16)
KVM_SET_GSI_ROUTING = _IOW(0x6A, 8)
KVM_REINJECT_CONTROL = _IO(0x71)
KVM_IRQFD = _IOW(0x76, 32)
KVM_CREATE_PIT2 = _IOW(0x77, 64)
KVM_SET_BOOT_CPU_ID = _IO(0x78)
KVM_IOEVENTFD = _IOW(0x79, 64)
KVM_XEN_HVM_CONFIG = _IOW(0x7A, 56)
KVM_SET_CLOCK = _IOW(0x7B, 48)
KVM_GET_CLOCK = _IOR(0x7C, 48)
KVM_GET_PIT2 = _IOR(0x9F, 112)
KVM_SET_PIT2 = _IOW(0xA0, 112)
KVM_SET_TSC_KHZ = _IO(0xA2)  # VM and vCPU
KVM_GET_TSC_KHZ = _IO(0xA3)  # VM and vCPU
KVM_SIGNAL_MSI = _IOW(0xA5, 32)
KVM_SET_PMU_EVENT_FILTER = _IOW(0xB2, 32)
KVM_HYPERV_EVENTFD = _IOW(0xBD, 24)
KVM_X86_SET_MSR_FILTER = _IOW(0xC6, 392)
KVM_CREATE_DEVICE = _IOWR(0xE0, 12)

# Devices; a VM, a vCPU and /dev/kvm have attributes too.
KVM_SET_DEVICE_ATTR = _IOW(0xE1, 24)
KVM_GET_DEVICE_ATTR = _IOW(0xE2, 24)
KVM_HAS_DEVICE_ATTR = _IOW(0xE3, 24)

# vCPU.
KVM_RUN = _IO(0x80)
KVM_GET_REGS = _IOR(0x81, 144)
KVM_SET_REGS = _IOW(0x82, 144)
KVM_GET_SREGS = _IOR(0x83, 312)
KVM_SET_SREGS = _IOW(0x84, 312)
KVM_TRANSLATE = _IOWR(0x85, 24)
KVM_INTERRUPT = _IOW(0x86, 4)
KVM_GET_MSRS = _IOWR(0x88, 8)  # system too: the feature MSRs
KVM_SET_MSRS = _IOW(0x89, 8)
KVM_SET_SIGNAL_MASK = _IOW(0x8B, 4)
KVM_GET_FPU = _IOR(0x8C, 416)
KVM_SET_FPU = _IOW(0x8D, 416)
KVM_GET_LAPIC = _IOR(0x8E, 1024)
KVM_SET_LAPIC = _IOW(0x8F, 1024)
KVM_SET_CPUID2 = _IOW(0x90, 8)
KVM_GET_CPUID2 = _IOWR(0x91, 8)
KVM_TPR_ACCESS_REPORTING = _IOWR(0x92, 40)
KVM_SET_VAPIC_ADDR = _IOW(0x93, 8)
KVM_GET_MP_STATE = _IOR(0x98, 4)
KVM_SET_MP_STATE = _IOW(0x99, 4)
KVM_NMI = _IO(0x9A)
KVM_SET_GUEST_DEBUG = _IOW(0x9B, 72)
KVM_X86_SETUP_MCE = _IOW(0x9C, 8)
KVM_X86_GET_MCE_CAP_SUPPORTED = _IOR(0x9D, 8)  # system
KVM_X86_SET_MCE = _IOW(0x9E, 64)
KVM_GET_VCPU_EVENTS = _IOR(0x9F, 64)
KVM_SET_VCPU_EVENTS = _IOW(0xA0, 64)
KVM_GET_DEBUGREGS = _IOR(0xA1, 128)
KVM_SET_DEBUGREGS = _IOW(0xA2, 128)
KVM_ENABLE_CAP = _IOW(0xA3, 104)  # VM and vCPU
KVM_GET_XSAVE = _IOR(0xA4, 4096)
KVM_SET_XSAVE = _IOW(0xA5, 4096)
KVM_GET_XCRS = _IOR(0xA6, 392)
KVM_SET_XCRS = _IOW(0xA7, 392)
KVM_GET_ONE_REG = _IOW(0xAB, 16)
KVM_SET_ONE_REG = _IOW(0xAC, 16)
KVM_KVMCLOCK_CTRL = _IO(0xAD)
KVM_GET_REG_LIST = _IOWR(0xB0, 8)
KVM_SMI = _IO(0xB7)
KVM_GET_NESTED_STATE = _IOWR(0xBE, 128)
KVM_SET_NESTED_STATE = _IOW(0xBF, 128)
KVM_GET_SUPPORTED_HV_CPUID = _IOWR(0xC1, 8)  # system and vCPU
KVM_GET_SREGS2 = _IOR(0xCC, 320)
KVM_SET_SREGS2 = _IOW(0xCD, 320)
KVM_GET_STATS_FD = _IO(0xCE)  # VM and vCPU
KVM_GET_XSAVE2 = _IOR(0xCF, 4096)
KVM_PRE_FAULT_MEMORY = _IOWR(0xD5, 64)


def name_of(request: int) -> str:
    """The kernel's name of an ioctl number, or the number in hexadecimal if it is none of these."""
    for name, value in globals().items():
        if value == request and name.startswith("KVM_"):
            return str(name)
    return f"ioctl {request:#x}"
