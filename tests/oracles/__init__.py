"""Independent answers to "what does this instruction do": a real CPU, KVM's emulator, Unicorn; and the cases to ask.

`worlds` lays out guest memory for each CPU mode, `cases` says what is asked and answered, `forms` enumerates the
instruction set from iced-x86's tables, `operands` and `generate` make cases of it, `on_engine` and `on_unicorn` answer them.
"""
