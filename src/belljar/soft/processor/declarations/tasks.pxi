# Task switches (SDM 3A chapter 8).

cdef enum:  # where a task switch comes from, as the exit qualification has it (SDM 3C table 28-2)
    TASK_CALL = 0
    TASK_IRET = 1
    TASK_JMP = 2
    TASK_GATE = 3

ctypedef struct TaskUndo:  # the old task, until nothing can exit any more (core/tasks.py)
    u64 gpr[8]
    u64 rflags
    u64 base[8]
    Segment segment[8]
    u64 cr0
    u64 cr3
    u64 dr7
    u64 pending_debug
    u64 insn_rip
    u64 next_rip
    u32 cpl

ctypedef struct TaskImage: # what a TSS holds of a task (core/tasks.py)
    u64 cr3
    u64 rip
    u64 flags
    u64 gpr[8]
    u64 selector[6]        # ES CS SS DS FS GS
    u64 ldt
    u64 trap
