"""The kernel's own interrupt chips as an oracle: a real-mode guest that carries out a list of accesses on them.

Each entry of the list is 8 bytes: the address of the code that does it, a port or offset, a value. What is read comes back
in the value. `take` lets the guest take at most one interrupt, whose handler logs its vector.
"""

from __future__ import annotations

import struct

from belljar.kvm import Vm
from belljar.kvm.abi.flags import KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE
from belljar.kvm.abi.run import KVM_EXIT_IO
from kvm.guest import CODE_GPA, Guest

LIST_GPA = 0x3000
STUBS_GPA = 0x2000
STUB_SIZE = 8
TAKE_PORT = 0xF9
"""An exit while interrupts are on: KVM injects what is pending when it enters again."""
LOG_GPA = 0xF000
LAPIC_GPA = 0xFEE00000
IOAPIC_GPA = 0xFEC00000
ISR_OFFSET = 0x100
IRR_OFFSET = 0x200
SVR, ICR = 0xF0, 0x300
APIC_ON = 0x1FF
TO_ITSELF = 1 << 18
"""Registers of the local APIC, its enable bit with vector FFH, a message to itself (SDM 3A 11.4.1, 11.9, 11.6.1)."""

_NEXT = bytes.fromhex(
    "8B5402"  # next: mov dx, [si+2]
    "668B4404"  # mov eax, [si+4]
    "89D7"  # mov di, dx
    "FF24"  # jmp [si]
    "66894404"  # done: mov [si+4], eax
    "83C608"  # add si, 8
    "EBEC"  # jmp next
)
_DONE = CODE_GPA + 11
_HANDLERS = {
    "out1": "EE",  # out dx, al
    "out2": "EF",  # out dx, ax
    "out4": "66EF",  # out dx, eax
    "in1": "6631C0EC",  # xor eax, eax; in al, dx
    "in2": "6631C0ED",  # in ax, dx
    "in4": "66ED",  # in eax, dx
    "lapic_store": "64668905",  # mov fs:[di], eax
    "lapic_load": "64668B05",  # mov eax, fs:[di]
    "ioapic_store": "65668905",  # mov gs:[di], eax
    "ioapic_load": "65668B05",  # mov eax, gs:[di]
    "take": "FBE6F990FA",  # sti; out 0xf9, al; nop; cli
    "end": "E6F8",  # out 0xf8, al
}
_HANDLER_SIZE = 8


def _program() -> tuple[bytes, dict[str, int]]:
    code = bytearray(_NEXT)
    addresses = {}
    for name, body in _HANDLERS.items():
        addresses[name] = CODE_GPA + len(code)
        code += bytes.fromhex(body)
        code += b"\xe9" + struct.pack("<h", _DONE - (CODE_GPA + len(code) + 3))  # jmp done
    return bytes(code), addresses


PROGRAM, ADDRESSES = _program()

# pop bx; mov [bp], bl; inc bp; push bp; mov bp, sp; and word [bp+6], 0xfdff; pop bp; iret
_LOG = bytes.fromhex("5B" "885E00" "45" "55" "89E5" "816606FFFD" "5D" "CF")  # fmt: skip


def _stubs() -> bytes:
    common = STUBS_GPA + 256 * STUB_SIZE
    code = bytearray()
    for vector in range(256):
        here = STUBS_GPA + len(code)
        stub = b"\x6a" + bytes((vector,)) + b"\xe9" + struct.pack("<h", common - (here + 5))  # push vector; jmp common
        code += stub.ljust(STUB_SIZE, b"\x90")
    return bytes(code) + _LOG


STUBS = _stubs()


class KernelChips:
    """A VM with the kernel's 8259 pair, IOAPIC and local APIC; and 8254 where asked for."""

    def __init__(self, vm: Vm, *, pit: bool = False) -> None:
        self.vm = vm
        vm.create_irqchip()
        if pit:
            vm.create_pit(1)
        self.guest = Guest(vm)
        self.vcpu = self.guest.vcpu
        self._lapic = self.vcpu.get_lapic()
        self._chips = [vm.get_irqchip(number) for number in range(3)]
        self.levels = [0] * 24
        self.guest.load(PROGRAM)
        sregs = self.vcpu.get_sregs()
        sregs.fs.base, sregs.gs.base = LAPIC_GPA, IOAPIC_GPA
        self.vcpu.set_sregs(sregs)  # once: setting CR8 with it, as it does, would clear the task priority's low half
        memory = self.guest.memory
        memory[STUBS_GPA : STUBS_GPA + len(STUBS)] = STUBS
        for vector in range(256):
            memory[4 * vector : 4 * vector + 4] = struct.pack("<HH", STUBS_GPA + STUB_SIZE * vector, 0)
        in_service, _ = self.take_two()
        self.ends_at_once = not in_service
        """This host's KVM ends what a guest takes from its local APIC as it is taken."""

    def take_two(self) -> tuple[list[int], list[int]]:
        """Send two vectors, take the higher and then, without an end of interrupt, what there is.

        What was in service after the first, and the vectors taken. All is as it was made before and after.
        """
        self.reset()
        sends = [("lapic_store", ICR, TO_ITSELF | vector) for vector in (0x44, 0x66)]
        _, taken = self.run([("lapic_store", SVR, APIC_ON), *sends, ("take", 0, 0)])
        page = self.lapic()
        in_service = [v for v in range(256) if page[ISR_OFFSET + 16 * (v // 32) + v % 32 // 8] >> v % 8 & 1]
        _, then = self.run([("take", 0, 0)])
        self.reset()
        return in_service, taken + then

    def close(self) -> None:
        self.guest.vcpu.close()

    def reset(self) -> None:
        """Everything as it was made."""
        for gsi, level in enumerate(self.levels):
            if level:
                self.line(gsi, False)
        self.vcpu.set_lapic(self._lapic)
        for chip in self._chips:
            self.vm.set_irqchip(chip)

    def line(self, gsi: int, level: bool) -> None:
        self.levels[gsi] = int(level)
        self.vm.set_irq_line(gsi, level)

    def run(
        self, operations: list[tuple[str, int, int]], *, put_in_service: bool = False
    ) -> tuple[list[int], list[int]]:
        """Carry out (name, port or offset, value)s; the values after each, and the vectors that were taken.

        Where KVM ends at once what is taken from a local APIC, `put_in_service` puts it back into service. It is for lists
        in which nothing is taken from the 8259.
        """
        values: list[int] = []
        vectors: list[int] = []
        while operations:
            until = next((i + 1 for i, operation in enumerate(operations) if operation[0] == "take"), len(operations))
            batch, operations = operations[:until], operations[until:]
            done, log = self._run(batch)
            values += done
            vectors += log
            if put_in_service and self.ends_at_once and log:
                self._put_in_service(log[0])
        return values, vectors

    def _put_in_service(self, vector: int) -> None:
        state = self.vcpu.get_lapic()
        page = bytearray(state.regs)
        at = 16 * (vector // 32) + vector % 32 // 8
        page[ISR_OFFSET + at] |= 1 << vector % 8
        # Having ended, it was sent again by a line that is still up: in service, it would have waited for its end.
        page[IRR_OFFSET + at] &= ~(1 << vector % 8)
        state.regs = bytes(page)
        self.vcpu.set_lapic(state)

    def _run(self, operations: list[tuple[str, int, int]]) -> tuple[list[int], list[int]]:
        entries = b"".join(struct.pack("<HHI", ADDRESSES[name], at, value) for name, at, value in operations)
        end = struct.pack("<HHI", ADDRESSES["end"], 0, 0)
        self.guest.memory[LIST_GPA : LIST_GPA + len(entries) + 8] = entries + end
        regs = self.vcpu.get_regs()
        regs.rip, regs.rsi, regs.rbp, regs.rflags = CODE_GPA, LIST_GPA, LOG_GPA, 2
        self.vcpu.set_regs(regs)
        self.guest.run_to(KVM_EXIT_IO)
        while self.vcpu.page.exit.io.port == TAKE_PORT:
            self.guest.run_to(KVM_EXIT_IO)
        done = self.guest.memory[LIST_GPA : LIST_GPA + len(entries)]
        log = self.guest.memory[LOG_GPA : self.vcpu.get_regs().rbp & 0xFFFF]
        return [value for _, _, value in struct.iter_unpack("<HHI", done)], list(log)

    def pic(self, slave: bool) -> dict[str, int]:
        """An 8259's state by the kernel's names."""
        chip = self.vm.get_irqchip(KVM_IRQCHIP_PIC_SLAVE if slave else KVM_IRQCHIP_PIC_MASTER).chip.pic
        return {name: getattr(chip, name) for name in PIC_FIELDS}

    def ioapic(self) -> tuple[int, int, list[int]]:
        """Selected register, id, redirection table."""
        chip = self.vm.get_irqchip(KVM_IRQCHIP_IOAPIC).chip.ioapic
        return chip.ioregsel, chip.id, list(chip.redirtbl)

    def lapic(self) -> bytes:
        """The register page."""
        return bytes(self.vcpu.get_lapic().regs)


PIC_FIELDS = (
    "irr", "imr", "isr", "priority_add", "irq_base", "read_reg_select", "special_mask", "init_state", "auto_eoi",
    "rotate_on_auto_eoi", "special_fully_nested_mode", "elcr",
)  # fmt: skip
