"""All structures of the KVM interface, x86, under the kernel's own names (to Linux 6.18), but for the run page.

Fields that the kernel calls `pad` or `reserved` are there where a later kernel may give them a meaning. A field that the
kernel calls `size` is `length`, `total_size` or `count` here: `size` is the structure's own.
"""

from belljar.kvm.abi.structs_vcpu import *  # noqa: F403
from belljar.kvm.abi.structs_vm import *  # noqa: F403
