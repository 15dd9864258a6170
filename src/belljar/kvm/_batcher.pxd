# The C side of _batcher.py: the ring, and the layout of its class.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <string.h>
    #include <sys/ioctl.h>
    #include <linux/kvm.h>

    /* The kernel writes these while we look. */
    #define belljar_last(ring) __atomic_load_n(&(ring)->last, __ATOMIC_ACQUIRE)
    #define belljar_advance(ring, value) __atomic_store_n(&(ring)->first, value, __ATOMIC_RELEASE)
    """
    struct kvm_coalesced_mmio:
        uint64_t phys_addr
        uint32_t len
        uint32_t pio
        uint8_t data[8]

    struct kvm_coalesced_mmio_ring:
        uint32_t first
        uint32_t last
        kvm_coalesced_mmio coalesced_mmio[1]

    struct kvm_coalesced_mmio_zone:
        uint64_t addr
        uint32_t size
        uint32_t pio

    const unsigned long KVM_REGISTER_COALESCED_MMIO
    const unsigned long KVM_UNREGISTER_COALESCED_MMIO
    uint32_t belljar_last(kvm_coalesced_mmio_ring *ring) nogil
    void belljar_advance(kvm_coalesced_mmio_ring *ring, uint32_t value) nogil
    int ioctl(int fd, unsigned long request, ...) nogil


cdef enum:
    PORTS = 8


cdef class WriteBatcher:
    cdef int vm_fd
    cdef readonly long long collected
    cdef object lock
    cdef bint draining
    cdef int observers
    cdef int count
    cdef readonly int active
    cdef int ports[PORTS]
    cdef int seen[PORTS]
    cdef bint registered[PORTS]

    cdef int zone(self, unsigned long request, int index) noexcept
    cdef bint note(self, int port) noexcept
    cdef int suspend(self) noexcept
    cdef bint waiting(self, kvm_coalesced_mmio_ring *ring) noexcept
    cdef int drain(self, kvm_coalesced_mmio_ring *ring, object bus) except -1
    cdef int deliver(self, kvm_coalesced_mmio_ring *ring, object bus) except -1
