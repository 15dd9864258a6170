"""16-bit code with no protection at all: how every x86 processor starts."""

from belljar.samples.sample import Line, Sample

LISTING = (
    Line("be 19 10", "mov si, 0x1019", "the text"),
    Line("8a 04", "mov al, [si]", "its next character", label="next"),
    Line("84 c0", "test al, al", "zero ends it"),
    Line("74 05", "je short 0x100e"),
    Line("e6 e9", "out 0xe9, al", "the debug console prints it"),
    Line("46", "inc si"),
    Line("eb f5", "jmp short 0x1003"),
    Line("66 b8 2a 00 00 00", "mov eax, 0x2a", "the answer, 42 ...", label="done"),
    Line("66 a3 00 04", "mov [0x400], eax", "... and again in memory"),
    Line("f4", "hlt"),
    Line("48 65 6c 6c 6f 2c 20 77 6f 72 6c 64 21 0a 00", 'db "Hello, world!", 10, 0', label="text"),
)

SAMPLE = Sample("hello-real", "16-bit real mode prints Hello, world!", "real", LISTING)
