"""The fields of a VMCS by name and encoding (SDM 3C appendix B), as far as this processor has them.

A field's existence follows from the controls that the processor supports (SDM 3C B.1): what is missing here, VMREAD and
VMWRITE refuse with VM-instruction error 12.
"""

from __future__ import annotations

from enum import IntEnum


class Field(IntEnum):
    """Full-access encodings. Bits 14:13 are the width, 11:10 the type, 9:1 the index, bit 0 would be "high half"."""

    # 16-bit control, guest-state and host-state fields (tables B-1 to B-3)
    VPID = 0x0000
    GUEST_ES_SELECTOR = 0x0800
    GUEST_CS_SELECTOR = 0x0802
    GUEST_SS_SELECTOR = 0x0804
    GUEST_DS_SELECTOR = 0x0806
    GUEST_FS_SELECTOR = 0x0808
    GUEST_GS_SELECTOR = 0x080A
    GUEST_LDTR_SELECTOR = 0x080C
    GUEST_TR_SELECTOR = 0x080E
    HOST_ES_SELECTOR = 0x0C00
    HOST_CS_SELECTOR = 0x0C02
    HOST_SS_SELECTOR = 0x0C04
    HOST_DS_SELECTOR = 0x0C06
    HOST_FS_SELECTOR = 0x0C08
    HOST_GS_SELECTOR = 0x0C0A
    HOST_TR_SELECTOR = 0x0C0C

    # 64-bit control fields (table B-4)
    IO_BITMAP_A = 0x2000
    IO_BITMAP_B = 0x2002
    MSR_BITMAP = 0x2004
    EXIT_MSR_STORE_ADDRESS = 0x2006
    EXIT_MSR_LOAD_ADDRESS = 0x2008
    ENTRY_MSR_LOAD_ADDRESS = 0x200A
    EXECUTIVE_VMCS = 0x200C
    TSC_OFFSET = 0x2010
    EPT_POINTER = 0x201A
    TSC_MULTIPLIER = 0x2032

    # 64-bit read-only data, guest-state and host-state fields (tables B-5 to B-7)
    GUEST_PHYSICAL_ADDRESS = 0x2400
    VMCS_LINK_POINTER = 0x2800
    GUEST_DEBUGCTL = 0x2802
    GUEST_PAT = 0x2804
    GUEST_EFER = 0x2806
    GUEST_PDPTE0 = 0x280A
    GUEST_PDPTE1 = 0x280C
    GUEST_PDPTE2 = 0x280E
    GUEST_PDPTE3 = 0x2810
    HOST_PAT = 0x2C00
    HOST_EFER = 0x2C02

    # 32-bit control fields (table B-8)
    PIN_CONTROLS = 0x4000
    PRIMARY_CONTROLS = 0x4002
    EXCEPTION_BITMAP = 0x4004
    PAGE_FAULT_MASK = 0x4006
    PAGE_FAULT_MATCH = 0x4008
    CR3_TARGET_COUNT = 0x400A
    EXIT_CONTROLS = 0x400C
    EXIT_MSR_STORE_COUNT = 0x400E
    EXIT_MSR_LOAD_COUNT = 0x4010
    ENTRY_CONTROLS = 0x4012
    ENTRY_MSR_LOAD_COUNT = 0x4014
    ENTRY_INTERRUPTION_INFO = 0x4016
    ENTRY_EXCEPTION_ERROR = 0x4018
    ENTRY_INSTRUCTION_LENGTH = 0x401A
    SECONDARY_CONTROLS = 0x401E
    PLE_GAP = 0x4020
    PLE_WINDOW = 0x4022

    # 32-bit read-only data fields (table B-9)
    INSTRUCTION_ERROR = 0x4400
    EXIT_REASON = 0x4402
    EXIT_INTERRUPTION_INFO = 0x4404
    EXIT_INTERRUPTION_ERROR = 0x4406
    IDT_VECTORING_INFO = 0x4408
    IDT_VECTORING_ERROR = 0x440A
    EXIT_INSTRUCTION_LENGTH = 0x440C
    EXIT_INSTRUCTION_INFO = 0x440E

    # 32-bit guest-state and host-state fields (tables B-10, B-11)
    GUEST_ES_LIMIT = 0x4800
    GUEST_CS_LIMIT = 0x4802
    GUEST_SS_LIMIT = 0x4804
    GUEST_DS_LIMIT = 0x4806
    GUEST_FS_LIMIT = 0x4808
    GUEST_GS_LIMIT = 0x480A
    GUEST_LDTR_LIMIT = 0x480C
    GUEST_TR_LIMIT = 0x480E
    GUEST_GDTR_LIMIT = 0x4810
    GUEST_IDTR_LIMIT = 0x4812
    GUEST_ES_RIGHTS = 0x4814
    GUEST_CS_RIGHTS = 0x4816
    GUEST_SS_RIGHTS = 0x4818
    GUEST_DS_RIGHTS = 0x481A
    GUEST_FS_RIGHTS = 0x481C
    GUEST_GS_RIGHTS = 0x481E
    GUEST_LDTR_RIGHTS = 0x4820
    GUEST_TR_RIGHTS = 0x4822
    GUEST_INTERRUPTIBILITY = 0x4824
    GUEST_ACTIVITY = 0x4826
    GUEST_SMBASE = 0x4828
    GUEST_SYSENTER_CS = 0x482A
    PREEMPTION_TIMER = 0x482E
    HOST_SYSENTER_CS = 0x4C00

    # natural-width control and read-only data fields (tables B-12, B-13)
    CR0_MASK = 0x6000
    CR4_MASK = 0x6002
    CR0_SHADOW = 0x6004
    CR4_SHADOW = 0x6006
    CR3_TARGET0 = 0x6008
    CR3_TARGET1 = 0x600A
    CR3_TARGET2 = 0x600C
    CR3_TARGET3 = 0x600E
    EXIT_QUALIFICATION = 0x6400
    IO_RCX = 0x6402
    IO_RSI = 0x6404
    IO_RDI = 0x6406
    IO_RIP = 0x6408
    GUEST_LINEAR_ADDRESS = 0x640A

    # natural-width guest-state and host-state fields (tables B-14, B-15)
    GUEST_CR0 = 0x6800
    GUEST_CR3 = 0x6802
    GUEST_CR4 = 0x6804
    GUEST_ES_BASE = 0x6806
    GUEST_CS_BASE = 0x6808
    GUEST_SS_BASE = 0x680A
    GUEST_DS_BASE = 0x680C
    GUEST_FS_BASE = 0x680E
    GUEST_GS_BASE = 0x6810
    GUEST_LDTR_BASE = 0x6812
    GUEST_TR_BASE = 0x6814
    GUEST_GDTR_BASE = 0x6816
    GUEST_IDTR_BASE = 0x6818
    GUEST_DR7 = 0x681A
    GUEST_RSP = 0x681C
    GUEST_RIP = 0x681E
    GUEST_RFLAGS = 0x6820
    GUEST_PENDING_DEBUG = 0x6822
    GUEST_SYSENTER_ESP = 0x6824
    GUEST_SYSENTER_EIP = 0x6826
    HOST_CR0 = 0x6C00
    HOST_CR3 = 0x6C02
    HOST_CR4 = 0x6C04
    HOST_FS_BASE = 0x6C06
    HOST_GS_BASE = 0x6C08
    HOST_TR_BASE = 0x6C0A
    HOST_GDTR_BASE = 0x6C0C
    HOST_IDTR_BASE = 0x6C0E
    HOST_SYSENTER_ESP = 0x6C10
    HOST_SYSENTER_EIP = 0x6C12
    HOST_RSP = 0x6C14
    HOST_RIP = 0x6C16

    @property
    def width(self) -> int:
        """Bytes: 2, 8, 4, or 8 for natural width (SDM 3C table 25-21)."""
        return (2, 8, 4, 8)[self >> 13]

    @property
    def read_only(self) -> bool:
        """Whether it is a VM-exit information field, which VMWRITE may not write here."""
        return self >> 10 & 3 == 1
