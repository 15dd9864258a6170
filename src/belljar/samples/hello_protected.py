"""32-bit code in flat segments, no paging: what a multiboot loader hands to a kernel."""

from belljar.samples.sample import Line, Sample

LISTING = (
    Line("be 1b 10 00 00", "mov esi, 0x101b", "the text"),
    Line("8a 06", "mov al, [esi]", "its next character", label="next"),
    Line("84 c0", "test al, al", "zero ends it"),
    Line("74 05", "je short 0x1010"),
    Line("e6 e9", "out 0xe9, al", "the debug console prints it"),
    Line("46", "inc esi"),
    Line("eb f5", "jmp short 0x1005"),
    Line("b8 2a 00 00 00", "mov eax, 0x2a", "the answer, 42 ...", label="done"),
    Line("a3 00 04 00 00", "mov [0x400], eax", "... and again in memory"),
    Line("f4", "hlt"),
    Line("48 65 6c 6c 6f 2c 20 77 6f 72 6c 64 21 0a 00", 'db "Hello, world!", 10, 0', label="text"),
)

SAMPLE = Sample("hello-protected", "32-bit protected mode prints Hello, world!", "protected", LISTING)
