"""The run loop: blocks, exact instruction budgets, exceptions, single steps, and what waits between instructions."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def stop_insn(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """Stands in an instruction's place when the budget ends before it."""
    return leave(cpu, insn, STOP)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def run_part(cpu: cython.pointer(Cpu), block: cython.pointer(Block), count: i64) -> cython.int:
    """Execute only the first `count` (at least 1) instructions of a block."""
    stop: cython.pointer(Insn) = cython.cast(cython.pointer(Insn), block + 1) + count
    handler: Handler
    status: cython.int
    cpu.remaining -= block.count
    if count >= block.count:
        return enter_block(cpu, block)
    handler = stop.handler
    stop.handler = stop_insn
    status = enter_block(cpu, block)
    stop.handler = handler
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def instructions_retired(cpu: cython.pointer(Cpu)) -> u64:
    """How many instructions were retired: before the one at work, or by a processor that is not running."""
    done: i64 = cpu.slice - cpu.remaining
    if cpu.slice == 0 or cpu.window != cython.NULL:  # with the window open it is one by one, and cpu.insn may be an old one
        return cpu.retired
    return cpu.retired + done - (block_of(cpu.insn).count - cpu.insn.number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def take(cpu: cython.pointer(Cpu), status: cython.int) -> cython.int:
    """What follows from a status between instructions: exceptions are delivered, exits carried out. BRANCH or EXIT."""
    if status == FAULT:
        cpu.pending_debug = 0
        status = deliver_exception(cpu)
    if status == EXIT:
        finish_exit(cpu)
        return EXIT
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fetch_failed(cpu: cython.pointer(Cpu)) -> cython.void:
    """Before an exception or exit that belongs to fetching: there is no instruction yet."""
    cpu.insn = cython.address(no_insn)
    cpu.insn_rip = cpu.rip
    cpu.next_rip = cpu.rip


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver_traps(cpu: cython.pointer(Cpu)) -> cython.int:
    """Debug traps that wait, unless MOV SS holds them back: NEXT if none, else BRANCH or EXIT."""
    bits: u64 = cpu.pending_debug
    if bits == 0 or cpu.interruptibility & SHADOW_MOV_SS:
        return NEXT
    fetch_failed(cpu)
    return take(cpu, raise_debug(cpu, bits))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def attend(cpu: cython.pointer(Cpu)) -> cython.int:
    """Between instructions, when cpu.events or cpu.kicked say so: NEXT to execute, BRANCH to look again, EXIT."""
    status: cython.int
    if cpu.pending_debug:
        status = deliver_traps(cpu)
        if status != NEXT:
            return status
    if cpu.kicked or cpu.events & (EVENT_INTERRUPT | EVENT_TIMER | EVENT_INACTIVE):
        fetch_failed(cpu)
        status = vmx_events(cpu)
        if status != NEXT:
            return take(cpu, status)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def step(cpu: cython.pointer(Cpu)) -> cython.int:
    """Execute one instruction with everything that goes with single steps, shadows and breakpoints: BRANCH or EXIT.

    cpu.stepped: bit 0 a step is under way, bit 1 (set by IRET and task switches) RF was loaded and stays,
    bit 2 (set by deliveries through the IDT) TF was cleared on the way to a handler: no trap for this instruction.
    """
    tf: u64 = cpu.rflags & FLAG_TF
    rf: u64 = cpu.rflags & FLAG_RF
    shadow: u32 = cpu.interruptibility & (SHADOW_STI | SHADOW_MOV_SS)
    status: cython.int = NEXT
    linear: u64 = cpu.rip if (cpu.mode & MODE_CODE) == 0 else (cpu.rip + cpu.base[CS]) & LOW32
    cpu.watch_hit = 0
    if cpu.breakpoint_count and breakpoint_at(cpu, linear):
        return take(cpu, request_exit(cpu, PAUSE_DEBUG, 0))
    if cpu.dr[7] & 0xFF and not rf and not shadow & SHADOW_MOV_SS:
        fetch_failed(cpu)
        status = check_code_breakpoints(cpu, linear)
    if status == NEXT:
        status = find_block(cpu)
        if status != NEXT:
            fetch_failed(cpu)
    if status != NEXT:
        return take(cpu, status)
    cpu.interruptibility &= ~cython.cast(u32, SHADOW_STI | SHADOW_MOV_SS)
    cpu.stepped = 1
    cpu.slice = cpu.remaining = 1
    status = run_part(cpu, cpu.found, 1)
    cpu.retired += cpu.slice - cpu.remaining
    cpu.slice = cpu.remaining = 0
    if status == FAULT or status == EXIT:
        cpu.stepped = 0
        if status == EXIT:
            cpu.interruptibility |= shadow
        status = take(cpu, status)
        update_mode(cpu)
        return status
    if status == AGAIN:
        cpu.rflags |= FLAG_RF  # between repetitions (SDM 3B 18.3.1.1)
    elif not cpu.stepped & 2:
        cpu.rflags &= ~cython.cast(u64, FLAG_RF)
    if cpu.stepped & 4:
        tf = 0
    cpu.stepped = 0
    if tf:
        cpu.pending_debug |= 0x4000  # DR6.BS (SDM 3B 18.2.3)
    update_mode(cpu)
    if cpu.pending_debug:
        status = deliver_traps(cpu)
        if status == EXIT:
            return EXIT
        update_mode(cpu)
    if cpu.events & EVENT_MTF:
        fetch_failed(cpu)
        status = vmx_events(cpu)
        if status != NEXT:
            return take(cpu, status)
    if cpu.watch_hit:
        return take(cpu, request_exit(cpu, PAUSE_DEBUG, cpu.watch_hit))
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def run_guest(cpu: cython.pointer(Cpu), budget: i64) -> cython.int:
    """Execute at most `budget` instructions: EXIT after a VM exit, STOP when the budget is used up. cpu.rip is exact.

    A guest that goes on without retiring anything (a handler that faults at its own first byte, a REP without end) makes
    STOP come early, so that the caller can look at its clock; and after IDLE_ROUNDS such rounds each further one is charged
    to the budget (cpu.charged), so that a budget always ends a run. Where instructions are slow (code that rewrites itself)
    STOP comes early by the clock. The guest cannot tell: it goes on as if there had been no pause.

    Where loops of PAUSEs exit, other loops that wait for somebody else end the run, too (PAUSE_WAITING, core/waiting.py).
    """
    begin: u64 = cpu.retired
    charged: u64 = cpu.charged
    idle: cython.int = 0
    laps: cython.uint = 0
    began: u64 = 0
    now: u64
    left: i64
    count: i64
    status: cython.int
    block: cython.pointer(Block)
    takes_turns: cython.bint = (
        cpu.in_guest != 0 and (cpu.secondary_controls & SECONDARY_PAUSE_LOOP) != 0 and not cpu.waits_out
    )
    while True:
        left = budget - cython.cast(i64, (cpu.retired - begin) + (cpu.charged - charged))
        if left <= 0:
            return STOP
        laps += 1
        if unlikely((laps & LAPS_PER_LOOK) == 0):
            now = clock_ns()
            if began == 0:
                began = now
            elif now - began > PATIENCE_NS:
                return STOP
        if unlikely(cpu.retired == cpu.idle_at):
            idle += 1
            cpu.idle_rounds += 1
            if cpu.idle_rounds > IDLE_ROUNDS:
                cpu.charged += 1
            if idle > IDLE_PATIENCE:
                return STOP
        else:
            cpu.idle_at = cpu.retired
            cpu.idle_rounds = 0
        if cython.cast(cython.pointer(u64), cython.address(cpu.events))[0] != 0:
            status = attend(cpu)
            if status == EXIT:
                return EXIT
            if status == BRANCH:
                continue
            if cpu.events & (EVENT_STEP | EVENT_SHADOW | EVENT_MTF):
                cpu.wait_phase = 0
                if step(cpu) == EXIT:
                    return EXIT
                continue
        status = find_block(cpu)
        if likely(status == NEXT):
            block = cpu.found
            count = left if left < SLICE else cython.cast(i64, SLICE)
            if takes_turns:
                if (cpu.wait_phase != 0 or cpu.retired >= cpu.wait_due) and may_wait(cpu, block):
                    status = run_observed(cpu, block, left)
                    if status == BRANCH and came_round(cpu, block):
                        fetch_failed(cpu)
                        return take(cpu, waits(cpu))
                    count = 0
                elif cython.cast(u64, count) > cpu.wait_due - cpu.retired:
                    count = cython.cast(i64, cpu.wait_due - cpu.retired)
            if count:
                cpu.slice = cpu.remaining = count
                status = run_part(cpu, block, count)
                cpu.retired += cpu.slice - cpu.remaining
                cpu.slice = cpu.remaining = 0
        else:
            fetch_failed(cpu)
        if status == FAULT or status == EXIT:
            if take(cpu, status) == EXIT:
                return EXIT
            if cpu.stop_on_delivery:
                return STOP
