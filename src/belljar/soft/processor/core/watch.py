"""The host's own breakpoints and watchpoints: any number, invisible to the guest. While there are some, instructions run one by one."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def breakpoint_at(cpu: cython.pointer(Cpu), gva: u64) -> cython.bint:
    """Whether the host wants to stop before the instruction at a linear address."""
    low: u32 = 0
    high: u32 = cpu.breakpoint_count
    middle: u32
    while low < high:
        middle = (low + high) >> 1
        if cpu.breakpoints[middle] < gva:
            low = middle + 1
        else:
            high = middle
    return low < cpu.breakpoint_count and cpu.breakpoints[low] == gva


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def note_watched(cpu: cython.pointer(Cpu), gva: u64, size: cython.int, access: cython.int) -> cython.void:
    """Remember the first watchpoint that an access hits; the run ends after the instruction."""
    i: cython.int
    point: cython.pointer(Watchpoint)
    if cpu.watch_hit:
        return
    for i in range(cython.cast(cython.int, cpu.watchpoint_count)):
        point = cpu.watchpoints + i
        if gva < point.gva + point.size and point.gva < gva + size:
            if point.on_read or (access & ACCESS_KIND) == ACCESS_WRITE:
                cpu.watch_hit = i + 1
                return
