# What the run loop looks at, and the sizes of its tables.

cdef enum:  # bits of cpu.events: the run loop looks between blocks
    EVENT_TIMER = 0x1       # the slice limit below is the VMX preemption timer's
    EVENT_STEP = 0x2        # one instruction at a time: TF, or a breakpoint is armed in DR7
    EVENT_SHADOW = 0x4      # one instruction, then drop the interrupt shadow
    EVENT_TRAP = 0x8        # cpu.pending_debug holds traps to deliver
    EVENT_INTERRUPT = 0x10  # something may want in: injected, virtual or window (vmx_events decides)
    EVENT_INACTIVE = 0x20   # cpu.activity is not ACTIVE
    EVENT_MTF = 0x40        # monitor trap flag: VM exit after one instruction

cdef enum:  # sizes
    PAGE_SHIFT = 12
    PART_SHIFT = 6          # of the 64 parts of a page that are told apart where code is concerned
    PAGE_SIZE = 4096
    PAGE_OFFSET = 0xFFF
    TLB_ENTRIES = 1024      # a power of two
    TLB_FETCH_ENTRIES = 256
    TLB_CONTEXTS = 3        # 0 supervisor, 1 user, 2 supervisor with SMAP lifted by AC
    BLOCK_INSNS = 48        # at most so many instructions in one block
    JUMP_BITS = 16          # log2 of the look-up table from linear addresses to blocks
    HASH_BITS = 14          # log2 of the table from physical addresses to blocks
    REPETITIONS = 4096      # of a REP instruction between two looks at the run loop
    IDLE_ROUNDS = 65536     # of the run loop without a retired instruction, after which each one costs budget
    IDLE_PATIENCE = 256     # such rounds before run_guest comes back for a moment
    WAIT_STEP = 128         # instructions after a VM exit until the run loop looks whether the guest waits for another processor
    WAIT_STEP_LIMIT = 4096  # it looks more and more seldom, down to this
    WAIT_LENGTH = 96        # for so many instructions
    WAIT_STATE = 22         # registers and flags that tell
    SLICE = 16384           # instructions between two looks at the budget: bounds the stack should tail calls fail
