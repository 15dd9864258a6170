"""The run loop of a KVM vCPU, compiled: everything that happens between two exits of a guest.

Between entering KVM_RUN and calling a device's method nothing is allocated but the numbers handed to it. Exits are told
apart by number; an exit object is built elsewhere, and only when somebody asked to see it.

How a run is ended from outside: `kick` sets a flag and the run page's `immediate_exit`, then sends the running thread a
real-time signal, whose handler sets `immediate_exit` again and does nothing else. Whenever the signal comes, be it just
before KVM_RUN is entered, KVM_RUN returns EINTR. Deadlines work in the same way, by a POSIX timer that signals the
thread. The signal is the first real-time signal from SIGRTMIN+4 on that has no handler when the first vCPU runs.

A write that KVM collects in its ring (`_batcher`) reaches the bus before the exit that follows it is served; while there may be
such writes, a timer looks after them every 20 ms.
"""

# ruff: noqa: F821  (the C names come from _loop.pxd)

import cython
from cython.cimports.cpython.buffer import PyBuffer_FillInfo
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.cpython.exc import PyErr_CheckSignals
from cython.cimports.cpython.long import PyLong_AsUnsignedLongLongMask
from cython.cimports.libc.errno import EAGAIN, EFAULT, EINTR, errno
from cython.cimports.libc.string import memcpy, memset

from belljar.errors import ClosedError, EngineError, KvmCallFailed
from belljar.exits import ExitReason
from belljar.kvm.exit_reasons import COMPLETED_LATER, REASON_BY_EXIT

RING_OFFSET = cython.declare(cython.size_t, 2 * 4096)  # KVM_COALESCED_MMIO_PAGE_OFFSET
BATCH_TICK_NS = cython.declare(cython.longlong, 20_000_000)
# A Python signal handler's flag may be raised just before KVM_RUN is entered: the main thread looks again so often.
SIGNAL_TICK_NS = cython.declare(cython.longlong, 100_000_000)
# With the kernel's interrupt chips HLT is no exit: whether a vCPU sleeps for good must be looked after, at first often.
FIRST_SLEEP_TICK_NS = cython.declare(cython.longlong, 500_000)
LAST_SLEEP_TICK_NS = cython.declare(cython.longlong, 50_000_000)
# KVM_RUN fails, and yet there is an exit (api.rst section 5); headers before Linux 6.8 lack it.
EXIT_MEMORY_FAULT = cython.declare(cython.uint, 39)
NEVER = cython.declare(cython.longlong, 0x7FFF_FFFF_FFFF_FFFF)

kick_signal = cython.declare(cython.int, 0)
reasons = cython.declare(cython.int[64])
completes = cython.declare(cython.bint[64])


def _fill_tables() -> None:
    number: cython.int
    for number in range(EXITS):
        reasons[number] = REASON_BY_EXIT.get(number, ExitReason.UNKNOWN)
        completes[number] = number in COMPLETED_LATER


_fill_tables()


def signal_number() -> int:
    """The signal that ends a run; installed on the first call. Raises EngineError if all real-time signals are taken."""
    global kick_signal
    if kick_signal == 0:
        kick_signal = belljar_install(SIGRTMIN + 4)
        if kick_signal == 0:
            raise EngineError(
                "every real-time signal of this process has a handler already", hint="one must be left free"
            )
    return kick_signal


@cython.cclass
class RunLoop:
    """One vCPU's shared page and the loop around KVM_RUN. Its buffer is the whole mapping of the vCPU.

    `pending`: the kernel owes the rest of an instruction, done by the next entry. `reason`: the last ExitReason.
    """

    def __cinit__(self, index: cython.int, fd: cython.int, size: cython.size_t, batcher: WriteBatcher = None):
        self.index = index
        self.fd = fd
        self.size = size
        self.reason = REASON_INTERRUPTED
        self.page = belljar_map(fd, size)
        if self.page == cython.NULL:
            raise KvmCallFailed("mmap of the vCPU's run page", errno)
        self.batcher = batcher
        if batcher is not None and size > RING_OFFSET:
            self.ring = cython.cast(
                cython.pointer(kvm_coalesced_mmio_ring), cython.cast(cython.p_char, self.page) + RING_OFFSET
            )

    def __dealloc__(self):
        self.unmap()

    def __getbuffer__(self, buffer: cython.pointer(cython.Py_buffer), flags: cython.int):
        if self.page == cython.NULL or self.closing:
            raise ClosedError("this vCPU is closed")
        PyBuffer_FillInfo(buffer, self, self.page, self.size, 0, flags)
        self.exports += 1

    def __releasebuffer__(self, buffer: cython.pointer(cython.Py_buffer)):
        self.exports -= 1
        if self.closing and not self.running:
            self.unmap()

    def unmap(self):
        """Let go of the timer and, unless somebody looks at it, of the page."""
        if self.timer_tid:
            timer_delete(self.timer)
            self.timer_tid = 0
        if self.page != cython.NULL and self.exports == 0:
            munmap(self.page, self.size)
            self.page = cython.NULL
            self.ring = cython.NULL
        return 0

    @property
    def hva(self) -> int:
        """The host-virtual address of the shared page. Raises ClosedError."""
        if self.page == cython.NULL or self.closing:
            raise ClosedError("this vCPU is closed")
        return cython.cast(cython.ulong, self.page)

    @property
    def busy(self) -> bool:
        """Whether another thread is in `run`."""
        return self.running and self.thread != pthread_self()

    def came_back(self, reason: cython.int, exit) -> None:
        """A run ended without the kernel."""
        self.reason, self.exit = reason, exit
        self.counts[reason] += 1

    def exit_counts(self) -> list:
        """How often each ExitReason came, by its number."""
        return [self.counts[number] for number in range(REASONS)]

    # The fields of the run page that belljar's own interrupt chips look at for each interrupt: `kvm_run` has them all, at
    # the price of three calls a field.

    def check(self):
        """Raises ClosedError if the page is gone; closed in the middle of a run, it stays until the end of that."""
        if self.page == cython.NULL:
            raise ClosedError("this vCPU is closed")
        return 0

    @property
    def task_priority(self) -> int:
        """CR8. Without a kernel APIC, KVM_RUN takes it from here, whatever KVM_SET_SREGS said (api.rst section 5)."""
        self.check()
        return self.page.cr8

    @task_priority.setter
    def task_priority(self, cr8: cython.ulonglong) -> None:
        """For the next entry; nothing once this is closed."""
        if self.page != cython.NULL:
            self.page.cr8 = cr8

    @property
    def apic_base(self) -> int:
        """IA32_APIC_BASE as the guest last left it."""
        self.check()
        return self.page.apic_base

    @apic_base.setter
    def apic_base(self, value: cython.ulonglong) -> None:
        """Until the next entry, with which the kernel writes it."""
        if self.page != cython.NULL:
            self.page.apic_base = value

    def ready_for_interrupt(self) -> bool:
        """Whether the guest takes an interrupt, as far as is known."""
        self.check()
        return self.page.ready_for_interrupt_injection != 0

    def flags_change(self) -> None:
        """Whether the guest takes an interrupt is not known before the next entry."""
        self.check()
        self.page.ready_for_interrupt_injection = 0

    def request_interrupt_window(self, wanted: cython.bint) -> None:
        """Whether KVM_RUN is to return as soon as the guest takes an interrupt."""
        self.check()
        self.page.request_interrupt_window = wanted

    def interrupt(self, vector: cython.uint) -> int:
        """Have the next entry deliver an interrupt (KVM_INTERRUPT, api.rst 4.16); 0 or an errno.

        From the second on it goes with KVM_RUN, if `syncs_events`: a call less, which costs as much as entering the guest.
        """
        refused: cython.int = 0
        self.check()
        if self.told:
            self.told = False
            belljar_queue(self.page, vector)
        else:
            refused = self.inject(vector)
            if self.syncs_events:
                belljar_ask_for_events(self.page)
        if refused == 0:
            self.page.ready_for_interrupt_injection = 0
        return refused

    def inject(self, vector):
        """KVM_INTERRUPT."""
        number: kvm_interrupt
        number.irq = vector
        return errno if ioctl(self.fd, KVM_INTERRUPT, cython.address(number)) < 0 else 0

    def events_may_change(self) -> None:
        """Somebody is about to look at a vCPU's state, or to change it: what the run page says of its events is past."""
        vector: cython.int
        self.told = False
        if self.page == cython.NULL:
            return
        vector = belljar_unqueue(self.page)
        if vector >= 0:
            self.inject(vector)

    def kick(self) -> None:
        """Make the current run, or else the next one, return INTERRUPTED. From any thread."""
        # A kick that the run has not seen yet needs no second signal, and real-time signals queue: a flood of them would
        # use up what the user may have pending, and with it every timer's place.
        if self.page == cython.NULL or self.kicked:
            return
        self.kicked = True
        belljar_immediate_exit(self.page, 1)
        if self.running:  # it cannot stop running before this thread lets go of the GIL
            pthread_kill(self.thread, kick_signal)

    def close(self, release) -> None:
        """Unmap the page and call `release`, which closes the vCPU; if a run is under way, end it and leave both to it."""
        if self.closing:
            return
        self.closing = True
        if self.running:
            self.release = release
            self.kick()
            return
        self.unmap()
        release()

    def forget(self) -> None:
        """In the child after fork: let go of the parent's vCPU. What still looks at the page sees a private copy of nothing."""
        self.timer_tid = 0  # POSIX timers stay with the parent
        self.closing = True
        self.running = False
        if self.page != cython.NULL:
            belljar_replace(self.page, self.size)
            self.unmap()

    def complete(self) -> None:
        """Have the kernel finish a pending instruction without running on (immediate_exit, api.rst section 5).

        What `exit` says must have been taken from the page before. If finishing gives a new exit, the next `run` serves it.
        """
        status: cython.int
        if not self.pending or self.stashed:
            return
        if self.page == cython.NULL or self.closing:
            raise ClosedError("this vCPU is closed")
        belljar_immediate_exit(self.page, 1)
        with cython.nogil:
            status = ioctl(self.fd, KVM_RUN, 0)
        belljar_immediate_exit(self.page, self.kicked)
        if status == 0:
            self.stashed = True
            return
        if errno != EINTR:
            raise KvmCallFailed("KVM_RUN", errno)
        self.pending = False

    def run(self, bus, deadline_ns=None, single_exit: cython.bint = False, observer=None) -> int:
        """Run until something ends it; the number of the ExitReason. `observer` is called without arguments after each exit."""
        previous: cython.pointer(kvm_run)
        was_blocked: cython.int = self.begin()
        self.deadline_ns = NEVER if deadline_ns is None else deadline_ns
        self.watched = single_exit or observer is not None
        if self.watched and self.batcher is not None:
            self.batcher.observers += 1
        previous = belljar_set_current(self.page)
        try:
            self.reason = self.go(bus, single_exit, observer)
        finally:
            self.end(was_blocked, previous)
        return self.reason

    def begin(self):
        """This thread runs the vCPU from now on; whether the signal was blocked in it."""
        if self.page == cython.NULL or self.closing:
            raise ClosedError("this vCPU is closed")
        if self.running:
            raise EngineError(f"vCPU {self.index} is running already", hint="a vCPU runs on one thread at a time")
        if kick_signal == 0:
            signal_number()
        self.thread = pthread_self()
        self.running = True
        return belljar_unblock(kick_signal)

    def end(self, was_blocked, previous):
        """Nobody runs the vCPU any more; what `close` has left for now is done."""
        if self.armed:
            belljar_timer_set(self.timer, 0, 0)
            self.armed = False
        belljar_set_current(previous)
        if was_blocked == 1:
            belljar_block(kick_signal)
        if self.watched and self.batcher is not None:
            self.batcher.observers -= 1
        self.running = False
        if self.closing:
            self.unmap()
            release, self.release = self.release, None
            if release is not None:
                release()
        return 0

    def arm(self):
        """Have this thread signalled when there is next something to look at, if ever."""
        wait: cython.longlong = NEVER
        tid: cython.int = belljar_tid()
        if self.deadline_ns != NEVER:
            wait = self.deadline_ns - belljar_now()
            if wait < 1:
                wait = 1
        if self.batcher is not None and self.batcher.active and wait > BATCH_TICK_NS:
            wait = BATCH_TICK_NS
        if self.sleeps and wait > self.tick_ns:
            wait = self.tick_ns
        if belljar_first_thread and wait > SIGNAL_TICK_NS:
            wait = SIGNAL_TICK_NS
        if wait == NEVER:
            return 0
        if self.timer_tid != tid:
            if self.timer_tid:
                timer_delete(self.timer)
                self.timer_tid = 0
            if belljar_timer_create(cython.address(self.timer), kick_signal, tid) < 0:
                raise EngineError("no timer to limit a run with", hint="raise the limit on pending signals (ulimit -i)")
            self.timer_tid = tid
        belljar_timer_set(self.timer, wait, BATCH_TICK_NS)
        self.armed = True
        return 0

    def go(self, bus, single, observer):
        """The loop: KVM_RUN and what follows from its exits, until one ends the run."""
        page: cython.pointer(kvm_run) = self.page
        status: cython.int
        error: cython.int = 0
        number: cython.uint
        reason: cython.int
        # Looked up once a run, and only if there is an exit for them.
        port_read = port_write = mmio_read = mmio_write = None
        priority: cython.ulonglong = page.cr8
        if self.batcher is not None and self.watched and self.batcher.active:
            self.batcher.suspend()
        self.tick_ns = FIRST_SLEEP_TICK_NS
        self.arm()
        if self.kicked or self.deadline_ns <= belljar_now():
            belljar_immediate_exit(page, 1)
        while True:
            self.exit = None
            if self.stashed:
                self.stashed = False
                status = 0
            else:
                page.exit_reason = 0
                with cython.nogil:
                    status = ioctl(self.fd, KVM_RUN, 0)
                    error = errno
                self.pending = False
                self.told = self.syncs_events and belljar_told_events(page)
            if self.ring != cython.NULL and self.batcher.waiting(self.ring):
                self.collect(bus, status)
            number = page.exit_reason
            if status < 0:
                if number == EXIT_MEMORY_FAULT and error in (EFAULT, EHWPOISON):
                    self.counts[REASON_MEMORY_FAULT] += 1
                    return REASON_MEMORY_FAULT
                reason = self.interrupted(error)
                if reason == GO_ON:
                    continue
                if reason == REASON_HLT and observer is not None:
                    self.reason = reason
                    observer()
                return reason
            if number == KVM_EXIT_IO:
                reason = REASON_IO
                self.pending = True
                self.counts[REASON_IO] += 1
                if port_write is None:
                    port_read, port_write = bus.port_read, bus.port_write
                self.serve_port(port_read, port_write, bus)
            elif number == KVM_EXIT_MMIO:
                reason = REASON_MMIO
                self.pending = True
                self.counts[REASON_MMIO] += 1
                if mmio_write is None:
                    mmio_read, mmio_write = bus.mmio_read, bus.mmio_write
                self.serve_memory(mmio_read, mmio_write)
            elif number == KVM_EXIT_SET_TPR:  # the new CR8 is in the page already, where the next entry takes it from
                if self.tells_priority:
                    self.counts[REASON_INTERRUPTED] += 1
                    return REASON_INTERRUPTED
                continue
            else:
                reason = reasons[number] if number < EXITS else REASON_UNKNOWN
                self.pending = number < EXITS and completes[number]
                self.counts[reason] += 1
            if observer is not None and not (REASON_RDMSR <= reason <= REASON_HYPERCALL):
                self.reason = reason
                observer()
            if single or (reason != REASON_IO and reason != REASON_MMIO):
                return reason
            if page.cr8 > priority:
                priority = page.cr8
            if (page.request_interrupt_window and page.ready_for_interrupt_injection) or (
                self.tells_priority and page.cr8 < priority
            ):  # not all hosts look at every entry, nor tell every change
                self.counts[REASON_INTERRUPTED] += 1
                return REASON_INTERRUPTED

    def collect(self, bus, status):
        """Have collected writes delivered before the exit that came after them; should the bus raise, the exit is kept."""
        try:
            self.batcher.drain(self.ring, bus)
        except BaseException:
            self.stashed = status == 0
            raise
        return 0

    def interrupted(self, error):
        """KVM_RUN came back without an exit: find out whether the run is over. GO_ON if not."""
        belljar_immediate_exit(self.page, 0)
        if error != EINTR and error != EAGAIN and not self.closing:  # closing takes the guest's memory away, too
            raise EngineError(str(KvmCallFailed("KVM_RUN", error)), hint="`dmesg` may say why")
        PyErr_CheckSignals()
        if self.kicked or self.deadline_ns <= belljar_now():
            self.kicked = False
            self.counts[REASON_INTERRUPTED] += 1
            return REASON_INTERRUPTED
        if self.sleeps:
            if self.fell_asleep():
                self.counts[REASON_HLT] += 1
                return REASON_HLT
            if error == EINTR and self.tick_ns < LAST_SLEEP_TICK_NS:
                self.tick_ns *= 2
        self.arm()
        return GO_ON

    def fell_asleep(self):
        """Whether the vCPU has, since it last did, come to wait for INIT or SIPI, or halted with interrupts off."""
        state: kvm_mp_state
        before: cython.bint = self.asleep
        self.asleep = False
        if self.page.if_flag or ioctl(self.fd, KVM_GET_MP_STATE, cython.address(state)) < 0:
            return False
        self.asleep = state.mp_state in (KVM_MP_STATE_HALTED, KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED)
        return self.asleep and not before

    def serve_port(self, read, write, bus):
        """KVM_EXIT_IO of one item."""
        page: cython.pointer(kvm_run) = self.page
        data: cython.pointer(cython.uchar)
        size: cython.int = page.io.size
        port: cython.int = page.io.port
        number: cython.uint = 0
        data = cython.cast(cython.pointer(cython.uchar), page) + page.io.data_offset
        if page.io.count != 1:
            return self.serve_port_block(bus, data)
        if page.io.direction == KVM_EXIT_IO_OUT:
            memcpy(cython.address(number), data, size)
            write(port, size, number)
            if size == 1 and self.batcher is not None and self.batcher.count and self.batcher.note(port):
                self.arm()
            return 0
        # Should `read` raise, the guest is left with what an absent device answers.
        memset(data, 0xFF, size)
        number = cython.cast(cython.uint, PyLong_AsUnsignedLongLongMask(read(port, size)))
        memcpy(data, cython.address(number), size)
        return 0

    def serve_port_block(self, bus, data):
        """KVM_EXIT_IO of several items (REP INS, REP OUTS)."""
        page: cython.pointer(kvm_run) = self.page
        size: cython.int = page.io.size
        count: cython.uint = page.io.count
        length: cython.Py_ssize_t = size * count
        if page.io.direction == KVM_EXIT_IO_OUT:
            bus.port_write_block(
                page.io.port, size, PyBytes_FromStringAndSize(cython.cast(cython.p_char, data), length)
            )
            return 0
        memset(data, 0xFF, length)
        answer: bytes = bus.port_read_block(page.io.port, size, count)
        if len(answer) != length:
            raise ValueError(f"port_read_block answered {len(answer)} bytes to {count} items of {size}")
        memcpy(data, PyBytes_AS_STRING(answer), length)
        return 0

    def serve_memory(self, read, write):
        """KVM_EXIT_MMIO."""
        page: cython.pointer(kvm_run) = self.page
        number: cython.ulonglong = 0
        size: cython.uint = page.mmio.len if page.mmio.len <= 8 else 8
        gpa: cython.ulonglong = page.mmio.phys_addr
        if page.mmio.is_write:
            memcpy(cython.address(number), cython.cast(cython.p_void, page.mmio.data), size)
            write(gpa, size, number)
            return 0
        memset(cython.cast(cython.p_void, page.mmio.data), 0xFF, 8)
        number = PyLong_AsUnsignedLongLongMask(read(gpa, size))
        memcpy(cython.cast(cython.p_void, page.mmio.data), cython.address(number), 8)
        return 0
