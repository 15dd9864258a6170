"""Loops that wait for another processor, found where they do not say so with PAUSE.

A way round that ends where it began, with registers, flags and what it stored as they were, will be gone for ever unless
memory changes or an event comes. Where PAUSE loops shall exit (SDM 3C 25.6.13), such a loop makes the processor come back
with PAUSE_WAITING. No processor does this: it is for vCPUs that take turns, of which one would spend its whole turn so.

When it is looked for depends on nothing but what the guest has executed since its last VM exit, so that runs repeat.
"""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def look_for_waiting_soon(cpu: cython.pointer(Cpu)) -> cython.void:
    """After a VM exit: whoever waits for another has often just told it something."""
    cpu.wait_phase = 0
    cpu.wait_step = WAIT_STEP
    cpu.wait_due = cpu.retired + WAIT_STEP


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_plain(block: cython.pointer(Block)) -> cython.bint:
    """Whether all that a block can do is to compute, load, store and branch; and PAUSE."""
    insn: cython.pointer(Insn) = cython.cast(cython.pointer(Insn), block + 1)
    i: cython.int
    for i in range(cython.cast(cython.int, block.count)):
        if insn[i].handler == complex_insn and operations[insn[i].operation] != op_pause:
            return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def may_wait(cpu: cython.pointer(Cpu), block: cython.pointer(Block)) -> cython.bint:
    """Whether to run the block under observation; begins to look where it is time to, and gives up where it is no use."""
    if cpu.wait_phase == 0:
        cpu.wait_phase = 1
        cpu.wait_stores = 0
        cpu.wait_begin = cpu.retired
        cpu.wait_due = cpu.retired + cpu.wait_step
        if cpu.wait_step < WAIT_STEP_LIMIT:
            cpu.wait_step *= 2
    if is_plain(block) and cpu.retired - cpu.wait_begin <= WAIT_LENGTH and cpu.wait_stores <= 1:
        return True
    cpu.wait_phase = 0
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def run_observed(cpu: cython.pointer(Cpu), block: cython.pointer(Block), left: i64) -> cython.int:
    """Run one block, or the beginning of it, and note what it stores. As `run_part`."""
    writes: cython.pointer(TlbEntry) = cpu.tlb_write
    status: cython.int
    cpu.slice = cpu.remaining = left if left < block.count else cython.cast(i64, block.count)
    cpu.tlb_write = cpu.tlb_none
    cpu.noting_stores = 1
    status = run_part(cpu, block, cpu.slice)
    cpu.noting_stores = 0
    cpu.tlb_write = writes
    cpu.retired += cpu.slice - cpu.remaining
    cpu.slice = cpu.remaining = 0
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def note_store(cpu: cython.pointer(Cpu), place: cython.pointer(u8), size: cython.int) -> cython.void:
    """A store that is about to be made while a block is observed; one can be compared afterwards, more cannot."""
    cpu.wait_stores += 1
    if size > 8 or size & (size - 1) or place == cpu.bounce:
        cpu.wait_stores = 2
    elif cpu.wait_stores == 1:
        cpu.wait_place = place
        cpu.wait_size = size
        cpu.wait_old = load(place, size)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def came_round(cpu: cython.pointer(Cpu), block: cython.pointer(Block)) -> cython.bint:
    """After an observed block has run to its end: whether nothing has changed since the guest was here."""
    i: cython.int
    same: cython.bint = True
    now: u64[WAIT_STATE]
    if block.tail != 0:
        return False  # it does not end with a branch: where it ends tells nothing of the guest
    for i in range(16):
        now[i] = cpu.gpr[i]
    now[16] = cpu.flag_result
    now[17] = cpu.flag_zero
    now[18] = cpu.flag_x
    now[19] = cpu.flag_y
    now[20] = cpu.flag_z
    now[21] = cpu.rflags
    if cpu.wait_phase == 2 and cpu.rip == cpu.wait_rip:
        for i in range(WAIT_STATE):
            same = same and now[i] == cpu.wait_state[i]
        if cpu.wait_stores == 1:
            same = same and load(cpu.wait_place, cpu.wait_size) == cpu.wait_old
        if same and cpu.wait_stores <= 1:
            return True
    elif cpu.wait_phase == 2:
        return False
    cpu.wait_phase = 2
    cpu.wait_rip = cpu.rip
    cpu.wait_stores = 0
    for i in range(WAIT_STATE):
        cpu.wait_state[i] = now[i]
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def waits(cpu: cython.pointer(Cpu)) -> cython.int:
    """The guest waits: come back, and look again as soon as it goes on. The qualification is 1 if it has done nothing else since."""
    again: cython.bint = cpu.wait_begin == cpu.waited_at
    cpu.wait_phase = 0
    cpu.wait_step = WAIT_STEP
    cpu.wait_due = cpu.waited_at = cpu.retired
    return request_exit(cpu, PAUSE_WAITING, 1 if again else 0)
