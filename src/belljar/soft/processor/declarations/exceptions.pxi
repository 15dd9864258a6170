# Exceptions and events on their way into the guest, and what holds them back.

cdef enum:  # exceptions (SDM 3A table 6-1)
    EXC_DE = 0
    EXC_DB = 1
    EXC_NMI = 2
    EXC_BP = 3
    EXC_OF = 4
    EXC_BR = 5
    EXC_UD = 6
    EXC_NM = 7
    EXC_DF = 8
    EXC_TS = 10
    EXC_NP = 11
    EXC_SS = 12
    EXC_GP = 13
    EXC_PF = 14
    EXC_MF = 16
    EXC_AC = 17
    EXC_MC = 18
    EXC_XM = 19

cdef enum:  # cpu.exception_kind: how a vector came to be, in the VMCS's numbers (SDM 3C table 25-17)
    KIND_EXTERNAL = 0
    KIND_NMI = 2
    KIND_HARDWARE = 3       # faults, traps and aborts of the processor
    KIND_SOFTWARE = 4       # INT n
    KIND_PRIVILEGED = 5     # INT1
    KIND_SOFTWARE_EXC = 6   # INT3, INTO

cdef enum:  # guest activity states (SDM 3C 25.4.2)
    ACTIVE = 0
    ACTIVITY_HLT = 1
    ACTIVITY_SHUTDOWN = 2
    ACTIVITY_SIPI = 3

cdef enum:  # interruptibility state (SDM 3C table 25-3)
    SHADOW_STI = 1
    SHADOW_MOV_SS = 2
    BLOCKED_SMI = 4
    BLOCKED_NMI = 8

ctypedef struct StackFrame: # one being pushed by the processor (core/frames.py)
    u64 sp                 # as it will be; bits above the mask are kept
    u64 base
    u64 mask
    u32 limit
    u32 attributes
    u32 selector           # what #SS names: 0 for the present stack
    u32 ext
    u32 size               # bytes of one push
    u32 implicit           # ACCESS_IMPLICIT: an inner level's stack
    u32 flat               # 64-bit: no segment

ctypedef struct Event:     # one under delivery through the IDT (core/delivery.py)
    u32 vector
    u32 ext                # EXT of faults on the way
    u32 software           # INT n, INT3, INTO: the gate's DPL counts
    u32 has_error
    u32 error
    u64 return_rip
    u64 rf                 # FLAG_RF if the pushed image has it
