# The C side of _monitor.py.

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE 1
    #endif
    #include <errno.h>
    #include <limits.h>
    #include <pthread.h>
    #include <linux/futex.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    #define NO_DEADLINE LLONG_MAX
    #define EVERYONE INT_MAX
    #define EVERY_CHANNEL FUTEX_BITSET_MATCH_ANY

    #define LONGEST_SLEEP_NS 1000000000LL

    static long long belljar_now(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000000000LL + now.tv_nsec;
    }

    /* Sleeps as long as `*word` is `seen`, until `until_ns` of CLOCK_MONOTONIC at the latest (futex(2)). 0 or errno: EINTR,
       too, after LONGEST_SLEEP_NS, for a signal that came just before the sleep did not interrupt it. */
    static int belljar_wait(unsigned *word, unsigned seen, long long until_ns, unsigned channels) {
        struct timespec until;
        long long longest_ns = belljar_now() + LONGEST_SLEEP_NS;
        int error, whole = until_ns <= longest_ns;
        if (!whole)
            until_ns = longest_ns;
        until.tv_sec = until_ns / 1000000000LL;
        until.tv_nsec = until_ns % 1000000000LL;
        error = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, seen, &until, NULL, channels) ? errno : 0;
        return error == ETIMEDOUT && !whole ? EINTR : error;
    }

    static void belljar_wake(unsigned *word, int threads, unsigned channels) {
        syscall(SYS_futex, word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, threads, NULL, NULL, channels);
    }
    """
    const long long NO_DEADLINE
    const unsigned EVERY_CHANNEL
    const int EVERYONE
    int belljar_wait(unsigned *word, unsigned seen, long long until_ns, unsigned channels) noexcept nogil
    void belljar_wake(unsigned *word, int threads, unsigned channels) noexcept nogil
    unsigned long pthread_self() noexcept nogil


cdef inline unsigned channel(int who) noexcept:
    return EVERY_CHANNEL if who < 0 else 1u << (who & 31)


cdef class Monitor:
    cdef unsigned long owner
    cdef unsigned held
    cdef unsigned freed
    cdef int contenders
    cdef unsigned turn
    cdef int waiting

    cdef int take(self, unsigned times, bint interruptible) except -1
    cdef int give(self) except -1
    cdef int free(self) noexcept
    cdef int check(self) except -1
    cdef int wake(self, unsigned channels) except -1
