"""The GDT that belljar gives its guests: one layout of selectors for every mode, ordered for SYSCALL and SYSENTER.

SYSCALL takes CS from STAR[47:32] and SS from the slot after it; SYSRET takes the three slots from STAR[63:48]: code32,
data, code64 (SDM 2B, SYSCALL and SYSRET). SYSENTER_CS = KERNEL_CODE fits SYSENTER and SYSEXIT in the same way, which is
why user data is there twice.
"""

from __future__ import annotations

from functools import lru_cache

from belljar.x86.descriptors import code_segment, data_segment, encode_segment

KERNEL_CODE = 0x08
"""64-bit code in the long modes, 32-bit code in the others."""
KERNEL_DATA = 0x10
USER_CODE32 = 0x18
USER_DATA = 0x20
USER_CODE64 = 0x28
"""Only in the long modes; null in the others."""
USER_DATA_SYSEXIT = 0x30
"""User data again, where a 64-bit SYSEXIT looks for it."""
KERNEL_CODE32 = 0x38
KERNEL_CODE16 = 0x40
KERNEL_DATA16 = 0x48
USER_CODE16 = 0x50
USER_DATA16 = 0x58
FIRST_TSS = 0x60
"""The TSS of vCPU 0; the others follow, 16 bytes apart in the long modes, 8 in the others."""

STAR = (USER_CODE32 | 3) << 48 | KERNEL_CODE << 32
"""IA32_STAR for this GDT."""

_CODE16_LIMIT = 0xFFFF


@lru_cache(maxsize=16)
def gdt_bytes(*, long_mode: bool, code16_base: int = 0) -> bytes:
    """The descriptors up to FIRST_TSS. `code16_base` is the base of the two 16-bit code segments, which span 64 KiB.

    All other segments are flat: base 0, 4 GiB.
    """
    user_data = data_segment(32, dpl=3)
    descriptors = (
        encode_segment(code_segment(64 if long_mode else 32)),
        encode_segment(data_segment(32)),
        encode_segment(code_segment(32, dpl=3)),
        encode_segment(user_data),
        encode_segment(code_segment(64, dpl=3)) if long_mode else bytes(8),
        encode_segment(user_data),
        encode_segment(code_segment(32)),
        encode_segment(code_segment(16, base=code16_base, limit=_CODE16_LIMIT)),
        encode_segment(data_segment(16)),
        encode_segment(code_segment(16, dpl=3, base=code16_base, limit=_CODE16_LIMIT)),
        encode_segment(data_segment(16, dpl=3)),
    )
    return bytes(8) + b"".join(descriptors)
