"""Two vCPUs take turns: the byte at 0x500 says whose it is. EDI is the vCPU's own number, 0 or 1."""

from belljar.samples.sample import Line, Sample

LISTING = (
    Line("b9 05 00 00 00", "mov ecx, 5", "so many rounds"),
    Line("48 8d 1d 2f 00 00 00", "lea rbx, [rel 0x103b]"),
    Line("6b c7 06", "imul eax, edi, 6", "vCPU 0 says ping, vCPU 1 says pong"),
    Line("48 01 c3", "add rbx, rax"),
    Line("f3 90", "pause", label="turn"),
    Line("40 38 3c 25 00 05 00 00", "cmp [0x500], dil", "is it my turn?"),
    Line("75 f4", "jne short 0x1012"),
    Line("48 89 de", "mov rsi, rbx"),
    Line("8a 06", "mov al, [rsi]", label="next"),
    Line("84 c0", "test al, al"),
    Line("74 07", "je short 0x102e"),
    Line("e6 e9", "out 0xe9, al"),
    Line("48 ff c6", "inc rsi"),
    Line("eb f3", "jmp short 0x1021"),
    Line("80 34 25 00 05 00 00 01", "xor byte [0x500], 1", "now it is the other's", label="over"),
    Line("ff c9", "dec ecx"),
    Line("75 d8", "jne short 0x1012"),
    Line("f4", "hlt"),
    Line("70 69 6e 67 0a 00", 'db "ping", 10, 0', label="ping"),
    Line("70 6f 6e 67 0a 00", 'db "pong", 10, 0', label="pong"),
)

SAMPLE = Sample(
    "ping-pong",
    "two vCPUs that talk through memory: ping, pong, five times",
    "long",
    LISTING,
    cpus=2,
    registers=({"rdi": 0}, {"rdi": 1}),
)
