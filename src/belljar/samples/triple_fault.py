"""An exception that cannot be delivered, nor can the ones that follow from it: the processor gives up."""

from belljar.samples.sample import Line, Sample

LISTING = (
    Line("0f 01 1d 0b 10 00 00", "lidt [0x100b]", "from here on there are no handlers"),
    Line("31 c9", "xor ecx, ecx"),
    Line("f7 f1", "div ecx", "#DE, then #GP for its missing gate, then a double fault, then the end"),
    Line("00 00 00 00 00 00", "db 0, 0, 0, 0, 0, 0", "limit 0, base 0", label="table"),
)

SAMPLE = Sample("triple-fault", "an exception without a handler: the guest crashes", "protected", LISTING)
