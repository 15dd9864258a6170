"""A program at CPL3 touches what is not there; its own handler at CPL0 says so on port 0xE9."""

from belljar.samples.sample import Line, Sample, gva_of

LISTING = (
    Line("48 b8 00 00 00 00 00 70 00 00", "mov rax, 0x700000000000", "no page table maps this"),
    Line("c6 00 01", "mov byte [rax], 1", "page fault: the processor enters the handler at CPL0"),
    Line("eb fe", "jmp short 0x100d", "never reached, the handler does not return", label="hang"),
    Line("5a", "pop rdx", "the error code lies on top of the handler's stack", label="handler"),
    Line("0f 20 d3", "mov rbx, cr2", "the address that faulted"),
    Line("48 8d 35 5a 00 00 00", "lea rsi, [rel 0x1074]"),
    Line("e8 2f 00 00 00", "call 0x104e"),
    Line("49 89 d8", "mov r8, rbx"),
    Line("b9 10 00 00 00", "mov ecx, 0x10", "in 16 digits"),
    Line("e8 30 00 00 00", "call 0x105c"),
    Line("48 8d 35 52 00 00 00", "lea rsi, [rel 0x1085]"),
    Line("e8 16 00 00 00", "call 0x104e"),
    Line("49 89 d0", "mov r8, rdx"),
    Line("49 c1 c8 08", "ror r8, 8", "its lowest byte comes first"),
    Line("b9 02 00 00 00", "mov ecx, 2"),
    Line("e8 13 00 00 00", "call 0x105c"),
    Line("b0 0a", "mov al, 0xa"),
    Line("e6 e9", "out 0xe9, al"),
    Line("f4", "hlt"),
    Line("8a 06", "mov al, [rsi]", "prints the text at RSI", label="print"),
    Line("84 c0", "test al, al"),
    Line("74 07", "je short 0x105b"),
    Line("e6 e9", "out 0xe9, al"),
    Line("48 ff c6", "inc rsi"),
    Line("eb f3", "jmp short 0x104e"),
    Line("c3", "ret", label="end"),
    Line("49 c1 c0 04", "rol r8, 4", "prints the ECX highest digits of R8", label="hex"),
    Line("44 89 c0", "mov eax, r8d"),
    Line("24 0f", "and al, 0xf"),
    Line("04 30", "add al, 0x30", "0 to 9 follow '0' ..."),
    Line("3c 39", "cmp al, 0x39"),
    Line("76 02", "jbe short 0x106d"),
    Line("04 27", "add al, 0x27", "... and 10 to 15 become 'a' to 'f'"),
    Line("e6 e9", "out 0xe9, al", label="show"),
    Line("ff c9", "dec ecx"),
    Line("75 e9", "jne short 0x105c"),
    Line("c3", "ret"),
    Line("70 61 67 65 20 66 61 75 6c 74 20 61 74 20 30 78 00", 'db "page fault at 0x", 0', label="at"),
    Line("2c 20 65 72 72 6f 72 20 63 6f 64 65 20 30 78 00", 'db ", error code 0x", 0', label="code"),
)

PAGE_FAULT = 14
"""#PF (SDM 3A 6.3.1, table 6-1)."""

SAMPLE = Sample(
    "fault",
    "a page fault at CPL3, reported by the guest's own handler at CPL0",
    "long",
    LISTING,
    cpl=3,
    idt_handlers={PAGE_FAULT: gva_of(LISTING, "handler")},
)
