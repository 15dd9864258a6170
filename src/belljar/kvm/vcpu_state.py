"""A vCPU's architectural state, each part as the kernel's own structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from errno import E2BIG, EINVAL

from belljar.errors import KvmCallFailed
from belljar.kvm import _calls
from belljar.kvm._descriptor import Capable
from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.flags import KVM_REG_SIZE_U64, KVM_REG_X86, KVM_X86_REG_TYPE_MSR
from belljar.kvm.abi.structs import (
    kvm_cpuid2,
    kvm_cpuid_entry2,
    kvm_debugregs,
    kvm_fpu,
    kvm_nested_state,
    kvm_one_reg,
    kvm_reg_list,
    kvm_regs,
    kvm_sregs,
    kvm_sregs2,
    kvm_xcrs,
    kvm_xsave,
)
from belljar.kvm.msrs import msr_entries, msr_table

ENOUGH_CPUID_ENTRIES = 256
"""More than the kernel's own limit, KVM_MAX_CPUID_ENTRIES."""

CPUID_IS_FINAL = "a vCPU that has run keeps its CPUID; or the table is impossible"


def msr_register_id(index: int) -> int:
    """The KVM_GET_ONE_REG id of an MSR (KVM_X86_REG_MSR, Linux 6.18)."""
    return KVM_REG_X86 | KVM_REG_SIZE_U64 | KVM_X86_REG_TYPE_MSR << 32 | index


class VcpuState(Capable):
    """The part of a vCPU that is about its state. While an exit is unfinished the state is that of before it.

    (api.rst section 5, the note on KVM_EXIT_IO: enter with `page.immediate_exit` set to finish it.)
    """

    # -- registers -------------------------------------------------------------------------------------------------

    def get_regs(self) -> kvm_regs:
        """General registers, RIP, RFLAGS (api.rst 4.11)."""
        regs = kvm_regs()
        self.call(ioctls.KVM_GET_REGS, regs)
        return regs

    def set_regs(self, regs: kvm_regs) -> None:
        """Set them all (api.rst 4.12)."""
        self.call(ioctls.KVM_SET_REGS, regs)

    def get_sregs(self) -> kvm_sregs:
        """Segments, descriptor tables, control registers, EFER, APIC base (api.rst 4.13)."""
        sregs = kvm_sregs()
        self.call(ioctls.KVM_GET_SREGS, sregs)
        return sregs

    def set_sregs(self, sregs: kvm_sregs) -> None:
        """Set them all (api.rst 4.14). Without a kernel APIC, CR8 is taken from `page.cr8` at the next entry instead."""
        self.call(ioctls.KVM_SET_SREGS, sregs)

    def get_sregs2(self) -> kvm_sregs2:
        """The same with the PAE page-directory pointers (api.rst 4.131)."""
        sregs = kvm_sregs2()
        self.call(ioctls.KVM_GET_SREGS2, sregs, needs=caps.KVM_CAP_SREGS2)
        return sregs

    def set_sregs2(self, sregs: kvm_sregs2) -> None:
        """Set them all (api.rst 4.132)."""
        self.call(ioctls.KVM_SET_SREGS2, sregs, needs=caps.KVM_CAP_SREGS2)

    def get_debugregs(self) -> kvm_debugregs:
        """The guest's own debug registers (api.rst 4.33)."""
        regs = kvm_debugregs()
        self.call(ioctls.KVM_GET_DEBUGREGS, regs, needs=caps.KVM_CAP_DEBUGREGS)
        return regs

    def set_debugregs(self, regs: kvm_debugregs) -> None:
        """Set the guest's own debug registers."""
        self.call(ioctls.KVM_SET_DEBUGREGS, regs, needs=caps.KVM_CAP_DEBUGREGS)

    # -- floating point and extended state ---------------------------------------------------------------------------

    def get_fpu(self) -> kvm_fpu:
        """x87 and SSE state (api.rst 4.22)."""
        fpu = kvm_fpu()
        self.call(ioctls.KVM_GET_FPU, fpu)
        return fpu

    def set_fpu(self, fpu: kvm_fpu) -> None:
        """Set x87 and SSE state."""
        self.call(ioctls.KVM_SET_FPU, fpu)

    def get_xsave(self) -> kvm_xsave:
        """The whole extended state as one XSAVE area in standard format, as long as this guest's features need.

        KVM_GET_XSAVE2 where the kernel has it, else KVM_GET_XSAVE (api.rst 4.42, 4.134).
        """
        size = self.check(caps.KVM_CAP_XSAVE2)
        if size > kvm_xsave.size:
            area = kvm_xsave.with_tail(size - kvm_xsave.size)
            self.call(ioctls.KVM_GET_XSAVE2, area)
        else:
            area = kvm_xsave()
            self.call(ioctls.KVM_GET_XSAVE, area, needs=caps.KVM_CAP_XSAVE)
        return area

    def set_xsave(self, area: kvm_xsave) -> None:
        """Set the whole extended state; as long as `get_xsave` gave it."""
        self.call(ioctls.KVM_SET_XSAVE, area, needs=caps.KVM_CAP_XSAVE)

    def get_xcrs(self) -> dict[int, int]:
        """The extended control registers by number; XCR0 is 0 (api.rst 4.44)."""
        table = kvm_xcrs()
        self.call(ioctls.KVM_GET_XCRS, table, needs=caps.KVM_CAP_XCRS)
        return {table.xcrs[slot].xcr: table.xcrs[slot].value for slot in range(table.nr_xcrs)}

    def set_xcrs(self, values: Mapping[int, int]) -> None:
        """Set extended control registers by number."""
        table = kvm_xcrs(nr_xcrs=len(values))
        for slot, (number, value) in zip(table.xcrs, values.items(), strict=False):
            slot.xcr, slot.value = number, value
        self.call(ioctls.KVM_SET_XCRS, table, needs=caps.KVM_CAP_XCRS)

    # -- CPUID -------------------------------------------------------------------------------------------------------

    def get_cpuid(self) -> list[kvm_cpuid_entry2]:
        """What the guest's CPUID says (KVM_GET_CPUID2)."""
        table = kvm_cpuid2.with_tail(ENOUGH_CPUID_ENTRIES * kvm_cpuid_entry2.size, nent=ENOUGH_CPUID_ENTRIES)
        self.call(ioctls.KVM_GET_CPUID2, table)
        return [table.entries[number] for number in range(table.nent)]

    def set_cpuid(self, entries: Sequence[kvm_cpuid_entry2]) -> None:
        """What the guest's CPUID is to say (KVM_SET_CPUID2, api.rst 4.20); before the first run.

        Once a vCPU has run, KVM takes only what it has already (since Linux 5.16; EINVAL, KvmCallFailed).
        """
        tail = b"".join(bytes(entry) for entry in entries)
        table = kvm_cpuid2.with_tail(tail, nent=len(entries))
        answer = self.attempt(ioctls.KVM_SET_CPUID2, table)
        if answer == -EINVAL and self.check(caps.KVM_CAP_EXT_CPUID):
            raise KvmCallFailed("KVM_SET_CPUID2", EINVAL, hint=CPUID_IS_FINAL)
        if answer < 0:
            raise self.failure(ioctls.KVM_SET_CPUID2, -answer, caps.KVM_CAP_EXT_CPUID)

    def enforce_paravirtual_cpuid(self) -> None:
        """Refuse paravirtual features that the guest's CPUID does not have (KVM_CAP_ENFORCE_PV_FEATURE_CPUID)."""
        self.enable(caps.KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1)

    def supported_hyperv_cpuid(self) -> list[kvm_cpuid_entry2]:
        """The Hyper-V leaves that this vCPU may be given (api.rst 4.118)."""
        table = kvm_cpuid2.with_tail(ENOUGH_CPUID_ENTRIES * kvm_cpuid_entry2.size, nent=ENOUGH_CPUID_ENTRIES)
        self.call(ioctls.KVM_GET_SUPPORTED_HV_CPUID, table, needs=caps.KVM_CAP_HYPERV_CPUID)
        return [table.entries[number] for number in range(table.nent)]

    # -- MSRs --------------------------------------------------------------------------------------------------------

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """MSRs by index (KVM_GET_MSRS, api.rst 4.18); those that the kernel refuses are left out."""
        wanted = list(indices)
        values: dict[int, int] = {}
        while wanted:
            table = msr_table([(index, 0) for index in wanted])
            count = self.call(ioctls.KVM_GET_MSRS, table)  # how many before the first that was refused
            values.update(msr_entries(table, count))
            wanted = wanted[count + 1 :]
        return values

    def set_msrs(self, values: Mapping[int, int]) -> int | None:
        """Set MSRs in order (KVM_SET_MSRS, api.rst 4.19); the index of the first that the kernel refuses, else None."""
        entries = list(values.items())
        if not entries:
            return None
        count = self.call(ioctls.KVM_SET_MSRS, msr_table(entries))
        return None if count == len(entries) else entries[count][0]

    # -- registers by id ---------------------------------------------------------------------------------------------

    def register_ids(self) -> list[int]:
        """The ids that `get_one_reg` knows (KVM_GET_REG_LIST, api.rst 4.84; x86 since Linux 6.18)."""
        head = kvm_reg_list()
        answer = self.attempt(ioctls.KVM_GET_REG_LIST, head)  # E2BIG, and how many there are
        if answer not in (0, -E2BIG):
            raise self.failure(ioctls.KVM_GET_REG_LIST, -answer, caps.KVM_CAP_ONE_REG)
        table = kvm_reg_list.with_tail(8 * head.n, n=head.n)
        self.call(ioctls.KVM_GET_REG_LIST, table, needs=caps.KVM_CAP_ONE_REG)
        return table.tail[: 8 * table.n].cast("Q").tolist()

    def get_one_reg(self, register: int) -> int:
        """A 64-bit register by id (KVM_GET_ONE_REG, api.rst 4.69; x86 since Linux 6.18)."""
        value = bytearray(8)
        request = kvm_one_reg(id=register, addr=_calls.address_of(value))
        self.call(ioctls.KVM_GET_ONE_REG, request, needs=caps.KVM_CAP_ONE_REG)
        return int.from_bytes(value, "little")

    def set_one_reg(self, register: int, value: int) -> None:
        """Set a 64-bit register by id (KVM_SET_ONE_REG, api.rst 4.68; x86 since Linux 6.18)."""
        data = bytearray(value.to_bytes(8, "little"))
        request = kvm_one_reg(id=register, addr=_calls.address_of(data))
        self.call(ioctls.KVM_SET_ONE_REG, request, needs=caps.KVM_CAP_ONE_REG)

    # -- nested virtualization -----------------------------------------------------------------------------------------

    def get_nested_state(self) -> kvm_nested_state:
        """The state of a hypervisor inside the guest (KVM_GET_NESTED_STATE, api.rst 4.114), with its data behind it."""
        largest = self.require(caps.KVM_CAP_NESTED_STATE)
        state = kvm_nested_state.with_tail(max(largest - kvm_nested_state.size, 0), total_size=largest)
        self.call(ioctls.KVM_GET_NESTED_STATE, state, needs=caps.KVM_CAP_NESTED_STATE)
        return kvm_nested_state.from_bytes(bytes(state.buffer[: max(state.total_size, kvm_nested_state.size)]))

    def set_nested_state(self, state: kvm_nested_state) -> None:
        """Set the state of a hypervisor inside the guest."""
        self.call(ioctls.KVM_SET_NESTED_STATE, state, needs=caps.KVM_CAP_NESTED_STATE)
