"""A timer interrupts three times: 8254 to IOAPIC to local APIC to the handler at vector 0x40. Needs interrupt chips."""

from belljar.samples.sample import Line, Sample, gva_of

LISTING = (
    Line("b0 ff", "mov al, 0xff"),
    Line("e6 21", "out 0x21, al", "both 8259s masked: the interrupt takes the other way"),
    Line("e6 a1", "out 0xa1, al"),
    Line("bb 00 00 e0 fe", "mov ebx, 0xfee00000"),
    Line("c7 83 f0 00 00 00 ff 01 00 00", "mov dword [rbx+0xf0], 0x1ff", "local APIC on, spurious vector 0xff"),
    Line("bd 00 00 c0 fe", "mov ebp, 0xfec00000"),
    Line("c7 45 00 15 00 00 00", "mov dword [rbp], 0x15", "IOAPIC, pin 2, where a PC's timer is:"),
    Line("c7 45 10 00 00 00 00", "mov dword [rbp+0x10], 0", "to the local APIC 0,"),
    Line("c7 45 00 14 00 00 00", "mov dword [rbp], 0x14"),
    Line("c7 45 10 40 00 00 00", "mov dword [rbp+0x10], 0x40", "vector 0x40, fixed, edge, open"),
    Line("b0 34", "mov al, 0x34"),
    Line("e6 43", "out 0x43, al", "8254: counter 0, rate generator"),
    Line("31 c0", "xor eax, eax"),
    Line("e6 40", "out 0x40, al"),
    Line("b0 10", "mov al, 0x10"),
    Line("e6 40", "out 0x40, al", "every 0x1000 of its ticks: 3.4 ms"),
    Line("b9 03 00 00 00", "mov ecx, 3"),
    Line("fb", "sti", label="wait"),
    Line("f4", "hlt", "sleep until the interrupt"),
    Line("fa", "cli"),
    Line("85 c9", "test ecx, ecx"),
    Line("75 f9", "jne short 0x1047", "three times"),
    Line("c7 45 10 40 00 01 00", "mov dword [rbp+0x10], 0x10040", "the pin masked"),
    Line("b0 0a", "mov al, 0xa"),
    Line("e6 e9", "out 0xe9, al"),
    Line("f4", "hlt", "interrupts are off: asleep for good"),
    Line("b0 74", "mov al, 0x74", "the handler", label="handler"),
    Line("e6 e9", "out 0xe9, al", "prints 't'"),
    Line("ff c9", "dec ecx"),
    Line("c7 83 b0 00 00 00 00 00 00 00", "mov dword [rbx+0xb0], 0", "end of interrupt"),
    Line("48 cf", "iretq"),
)

VECTOR = 0x40

SAMPLE = Sample(
    "tick",
    "a timer's interrupt wakes it three times",
    "long",
    LISTING,
    idt_handlers={VECTOR: gva_of(LISTING, "handler")},
    needs_chips=True,
)
