"""32-bit code in long mode, as a 64-bit kernel runs old programs; it looks for itself before it says hello."""

from belljar.samples.sample import Line, Sample

LISTING = (
    Line("b9 80 00 00 c0", "mov ecx, 0xc0000080", "IA32_EFER"),
    Line("0f 32", "rdmsr"),
    Line("0f ba e0 0a", "bt eax, 0xa", "EFER.LMA: long mode is active ..."),
    Line("73 1b", "jae short 0x1028"),
    Line("be 2a 10 00 00", "mov esi, 0x102a", "the text"),
    Line("8a 06", "mov al, [esi]", "its next character", label="next"),
    Line("84 c0", "test al, al", "zero ends it"),
    Line("74 05", "je short 0x101d"),
    Line("e6 e9", "out 0xe9, al", "the debug console prints it"),
    Line("46", "inc esi"),
    Line("eb f5", "jmp short 0x1012"),
    Line("b8 2a 00 00 00", "mov eax, 0x2a", "the answer, 42 ...", label="done"),
    Line("a3 00 04 00 00", "mov [0x400], eax", "... and again in memory"),
    Line("f4", "hlt"),
    Line("0f 0b", "ud2", "not the mode that was promised: crash", label="wrong"),
    Line("48 65 6c 6c 6f 2c 20 77 6f 72 6c 64 21 0a 00", 'db "Hello, world!", 10, 0', label="text"),
)

SAMPLE = Sample("hello-compat", "compatibility mode, 32-bit code in long mode, prints Hello, world!", "compat", LISTING)
