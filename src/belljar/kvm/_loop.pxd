# The C side of _loop.py: what it takes from the system's headers, and the layout of its classes.

from belljar.kvm._batcher cimport WriteBatcher, kvm_coalesced_mmio_ring
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE 1
    #endif
    #include <errno.h>
    #include <pthread.h>
    #include <signal.h>
    #include <string.h>
    #include <sys/ioctl.h>
    #include <sys/mman.h>
    #include <time.h>
    #include <unistd.h>
    #include <linux/kvm.h>

    #ifndef sigev_notify_thread_id
    #define sigev_notify_thread_id _sigev_un._tid
    #endif

    /* The run page of the vCPU that this thread is running, or NULL. The initial-exec model makes it safe to read in a
       signal handler (no lazy allocation). */
    static __thread struct kvm_run *belljar_current __attribute__((tls_model("initial-exec")));

    /* A signal sent to end KVM_RUN may come just before KVM_RUN is entered; this makes it end all the same
       (api.rst, immediate_exit). */
    static void belljar_on_kick(int signal) {
        struct kvm_run *run = belljar_current;
        (void)signal;
        if (run) *(volatile __u8 *)&run->immediate_exit = 1;
    }

    static struct kvm_run *belljar_set_current(struct kvm_run *run) {
        struct kvm_run *previous = belljar_current;
        belljar_current = run;
        __asm__ volatile("" ::: "memory");
        return previous;
    }

    /* This thread's number, asked for once; in a child after fork() it is another, and 0 until then. */
    static __thread pid_t belljar_own_tid __attribute__((tls_model("initial-exec")));
    static __thread int belljar_first_thread __attribute__((tls_model("initial-exec")));
    static void belljar_new_process(void) { belljar_own_tid = 0; }

    static pid_t belljar_tid(void) {
        if (!belljar_own_tid) {
            belljar_own_tid = gettid();
            belljar_first_thread = belljar_own_tid == getpid();
        }
        return belljar_own_tid;
    }

    /* Installs the handler on the first real-time signal from `first` on that nobody uses; 0 if there is none left. */
    static int belljar_install(int first) {
        struct sigaction old, action;
        memset(&action, 0, sizeof action);
        action.sa_handler = belljar_on_kick;  /* no SA_RESTART: KVM_RUN must come back */
        sigemptyset(&action.sa_mask);
        for (int number = first; number <= SIGRTMAX; number++) {
            if (sigaction(number, NULL, &old) || (old.sa_flags & SA_SIGINFO) || old.sa_handler != SIG_DFL) continue;
            if (!sigaction(number, &action, NULL)) {
                pthread_atfork(NULL, NULL, belljar_new_process);
                return number;
            }
        }
        return 0;
    }

    /* Lets `number` through in this thread; the answer says whether it was blocked, or is -1. */
    static int belljar_unblock(int number) {
        sigset_t set, old;
        sigemptyset(&set);
        sigaddset(&set, number);
        if (pthread_sigmask(SIG_UNBLOCK, &set, &old)) return -1;
        return sigismember(&old, number);
    }

    static void belljar_block(int number) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, number);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
    }

    static int belljar_timer_create(timer_t *timer, int number, pid_t tid) {
        struct sigevent event;
        memset(&event, 0, sizeof event);
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = number;
        event.sigev_notify_thread_id = tid;
        return timer_create(CLOCK_MONOTONIC, &event, timer);
    }

    /* Fires after `first` nanoseconds and every `interval` from then on; both 0: never. */
    static int belljar_timer_set(timer_t timer, long long first, long long interval) {
        struct itimerspec spec;
        spec.it_value.tv_sec = first / 1000000000LL;
        spec.it_value.tv_nsec = first % 1000000000LL;
        spec.it_interval.tv_sec = interval / 1000000000LL;
        spec.it_interval.tv_nsec = interval % 1000000000LL;
        return timer_settime(timer, 0, &spec, NULL);
    }

    static long long belljar_now(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000000000LL + now.tv_nsec;
    }

    /* The page, and in a child after fork() nothing: the mapping keeps the parent's VM alive. */
    static struct kvm_run *belljar_map(int fd, size_t size) {
        void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        return page == MAP_FAILED ? NULL : page;
    }
    static void belljar_replace(void *page, size_t size) {
        mmap(page, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }

    /* With KVM_SYNC_X86_EVENTS among kvm_valid_regs, KVM_RUN leaves a vCPU's events in the page, and takes them from there
       where kvm_dirty_regs says so (api.rst section 6, KVM_CAP_SYNC_REGS). */
    static void belljar_ask_for_events(struct kvm_run *run) { run->kvm_valid_regs |= KVM_SYNC_X86_EVENTS; }
    static int belljar_told_events(struct kvm_run *run) { return (run->kvm_valid_regs & KVM_SYNC_X86_EVENTS) != 0; }

    /* As KVM_INTERRUPT with the next entry; NMIs, start-up IPIs and SMIs that came since the last exit are left alone. */
    static void belljar_queue(struct kvm_run *run, unsigned vector) {
        struct kvm_vcpu_events *events = &run->s.regs.events;
        events->flags = 0;
        events->interrupt.injected = 1;
        events->interrupt.nr = vector;
        events->interrupt.soft = 0;
        run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
    }

    /* Takes back what was queued and no entry has taken: its vector, or -1. */
    static int belljar_unqueue(struct kvm_run *run) {
        if (!(run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS)) return -1;
        run->kvm_dirty_regs &= ~KVM_SYNC_X86_EVENTS;
        return run->s.regs.events.interrupt.nr;
    }

    #define belljar_immediate_exit(run, value) __atomic_store_n(&(run)->immediate_exit, value, __ATOMIC_SEQ_CST)
    """
    ctypedef struct kvm_run_io:
        uint8_t direction
        uint8_t size
        uint16_t port
        uint32_t count
        uint64_t data_offset

    ctypedef struct kvm_run_mmio:
        uint64_t phys_addr
        uint8_t data[8]
        uint32_t len
        uint8_t is_write

    struct kvm_run:
        uint8_t request_interrupt_window
        uint8_t immediate_exit
        uint32_t exit_reason
        uint8_t ready_for_interrupt_injection
        uint8_t if_flag
        uint64_t cr8
        uint64_t apic_base
        kvm_run_io io
        kvm_run_mmio mmio

    struct kvm_interrupt:
        uint32_t irq

    struct kvm_mp_state:
        uint32_t mp_state

    ctypedef unsigned long pthread_t
    ctypedef void *timer_t
    ctypedef int pid_t

    const unsigned long KVM_RUN, KVM_GET_MP_STATE, KVM_INTERRUPT
    const int KVM_EXIT_IO, KVM_EXIT_MMIO, KVM_EXIT_SET_TPR, KVM_EXIT_HYPERCALL, KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR
    const uint32_t KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_HALTED
    const int KVM_EXIT_HYPERV, KVM_EXIT_XEN, KVM_EXIT_TPR_ACCESS, KVM_EXIT_IO_OUT
    const int SIGRTMIN, EHWPOISON

    kvm_run *belljar_set_current(kvm_run *run) nogil
    int belljar_install(int first) nogil
    int belljar_unblock(int number) nogil
    void belljar_block(int number) nogil
    int belljar_timer_create(timer_t *timer, int number, pid_t tid) nogil
    int belljar_timer_set(timer_t timer, long long first, long long interval) nogil
    int timer_delete(timer_t timer) nogil
    long long belljar_now() nogil
    kvm_run *belljar_map(int fd, size_t size) nogil
    void belljar_ask_for_events(kvm_run *run) nogil
    bint belljar_told_events(kvm_run *run) nogil
    void belljar_queue(kvm_run *run, unsigned vector) nogil
    int belljar_unqueue(kvm_run *run) nogil
    void belljar_replace(void *page, size_t size) nogil
    int munmap(void *page, size_t size) nogil
    void belljar_immediate_exit(kvm_run *run, int value) nogil
    int ioctl(int fd, unsigned long request, ...) nogil
    pid_t belljar_tid() nogil
    const int belljar_first_thread
    pthread_t pthread_self() nogil
    int pthread_kill(pthread_t thread, int number) nogil


# belljar.exits.ExitReason; a test holds the two together.
cdef enum:
    REASON_IO = 0
    REASON_MMIO = 1
    REASON_HLT = 2
    REASON_INTERRUPTED = 7
    REASON_RDMSR = 8
    REASON_HYPERCALL = 10
    REASON_MEMORY_FAULT = 16
    REASON_UNKNOWN = 18
    REASONS = 19
    GO_ON = -1
    EXITS = 64


cdef class RunLoop:
    cdef readonly int index
    cdef int fd
    cdef readonly size_t size
    cdef kvm_run *page
    cdef kvm_coalesced_mmio_ring *ring
    cdef WriteBatcher batcher
    cdef object release
    cdef public object exit
    cdef Py_ssize_t exports
    cdef readonly bint kicked
    cdef bint running
    cdef readonly bint closing
    cdef readonly bint pending
    cdef readonly bint stashed
    cdef readonly int reason
    cdef pthread_t thread
    cdef timer_t timer
    cdef pid_t timer_tid
    cdef bint armed
    cdef long long deadline_ns
    cdef bint watched
    cdef public bint sleeps
    cdef public bint asleep
    cdef public bint tells_priority
    cdef public bint syncs_events
    cdef bint told
    cdef long long tick_ns
    cdef unsigned long long counts[REASONS]

    cdef int check(self) except -1
    cdef int inject(self, unsigned vector) noexcept
    cdef int begin(self) except -2
    cdef int end(self, int was_blocked, kvm_run *previous) except -1
    cdef int arm(self) except -1
    cdef int go(self, object bus, bint single, object observer) except -1
    cdef int collect(self, object bus, int status) except -1
    cdef int interrupted(self, int error) except -2
    cdef bint fell_asleep(self) noexcept
    cdef int serve_port(self, object read, object write, object bus) except -1
    cdef int serve_port_block(self, object bus, uint8_t *data) except -1
    cdef int serve_memory(self, object read, object write) except -1
    cdef int unmap(self) noexcept
