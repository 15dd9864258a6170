"""The smallest useful guest: two numbers in, their sum out on the serial port. A sum above 9 is no digit."""

from belljar.samples.sample import Line, Sample

LISTING = (
    Line("ba f8 03", "mov dx, 0x3f8", "the serial port's data register"),
    Line("00 d8", "add al, bl"),
    Line("04 30", "add al, 0x30", "the number as a digit"),
    Line("ee", "out dx, al"),
    Line("b0 0a", "mov al, 0xa", "a newline"),
    Line("ee", "out dx, al"),
    Line("f4", "hlt"),
)

SAMPLE = Sample(
    "add",
    "AL + BL as a digit on the serial port: --reg rax=2 --reg rbx=2 prints 4",
    "real",
    LISTING,
    registers=({"rax": 2, "rbx": 2},),
)
