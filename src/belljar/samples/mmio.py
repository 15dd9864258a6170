"""Stores and loads of every size where there is no memory: each comes back to the host, and nobody answers."""

from belljar.samples.sample import Line, Sample

LISTING = (
    Line("bf 00 00 df fe", "mov edi, 0xfedf0000", "guest-physical, among a PC's devices, but none is here"),
    Line("c6 07 11", "mov byte [rdi], 0x11"),
    Line("66 c7 47 02 22 22", "mov word [rdi+2], 0x2222"),
    Line("c7 47 04 33 33 33 33", "mov dword [rdi+4], 0x33333333"),
    Line("48 b8 44 44 44 44 44 44 44 44", "mov rax, 0x4444444444444444"),
    Line("48 89 47 08", "mov [rdi+8], rax"),
    Line("0f b6 5f 10", "movzx ebx, byte [rdi+0x10]", "all ones: 0xff"),
    Line("0f b7 4f 12", "movzx ecx, word [rdi+0x12]", "0xffff"),
    Line("8b 57 14", "mov edx, [rdi+0x14]", "0xffffffff"),
    Line("48 8b 47 18", "mov rax, [rdi+0x18]", "0xffffffffffffffff"),
    Line("f4", "hlt"),
)

SAMPLE = Sample("mmio", "stores and loads of 1, 2, 4 and 8 bytes where there is no memory", "long", LISTING)
