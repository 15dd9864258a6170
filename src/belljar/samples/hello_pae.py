"""32-bit code behind three levels of 64-bit page-table entries; it looks for itself before it says hello."""

from belljar.samples.sample import Line, Sample

LISTING = (
    Line("0f 20 c0", "mov eax, cr0"),
    Line("0f ba e0 1f", "bt eax, 0x1f", "CR0.PG: paging is on ..."),
    Line("73 24", "jae short 0x102d"),
    Line("0f 20 e0", "mov eax, cr4"),
    Line("0f ba e0 05", "bt eax, 5", "... and so is CR4.PAE: 64-bit entries"),
    Line("73 1b", "jae short 0x102d"),
    Line("be 2f 10 00 00", "mov esi, 0x102f", "the text"),
    Line("8a 06", "mov al, [esi]", "its next character", label="next"),
    Line("84 c0", "test al, al", "zero ends it"),
    Line("74 05", "je short 0x1022"),
    Line("e6 e9", "out 0xe9, al", "the debug console prints it"),
    Line("46", "inc esi"),
    Line("eb f5", "jmp short 0x1017"),
    Line("b8 2a 00 00 00", "mov eax, 0x2a", "the answer, 42 ...", label="done"),
    Line("a3 00 04 00 00", "mov [0x400], eax", "... and again in memory"),
    Line("f4", "hlt"),
    Line("0f 0b", "ud2", "not the mode that was promised: crash", label="wrong"),
    Line("48 65 6c 6c 6f 2c 20 77 6f 72 6c 64 21 0a 00", 'db "Hello, world!", 10, 0', label="text"),
)

SAMPLE = Sample("hello-pae", "32-bit PAE paging prints Hello, world!", "pae", LISTING)
