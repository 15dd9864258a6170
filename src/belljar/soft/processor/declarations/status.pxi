# How operations end.

# What every operation answers. Anything but NEXT unwinds to the run loop.
cdef enum:
    NEXT = 0     # done; go on with the next instruction of the block
    BRANCH = 1   # done; cpu.rip already holds the address of the next instruction; the block ends here
    FAULT = 2    # an exception waits in cpu.exception; nothing of the instruction was committed; run loop delivers
    EXIT = 3     # a VM exit was carried out (VMCS written); leave run()
    AGAIN = 4    # not finished (REP with progress, stop asked for): same RIP again after a look at events; not retired
    STOP = 5     # the instruction budget of this slice is used up; cpu.rip is exact

cdef enum:  # how a descriptor fetch can end besides NEXT, FAULT and EXIT
    OUTSIDE = 6             # the selector is null or beyond its table's limit

cdef enum:  # answers of decode_insn
    DECODED = 0
    DECODE_MORE = 1        # more bytes are needed than are available
    DECODE_LONG = 2        # over 15 bytes: #GP(0)
    DECODE_INVALID = 3     # #UD
