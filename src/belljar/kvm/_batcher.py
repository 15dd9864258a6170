"""Port writes that KVM collects in a ring instead of leaving the guest for each (coalesced PIO, api.rst 4.116), compiled."""

# ruff: noqa: F821  (the C names come from _batcher.pxd)

from _thread import RLock

import cython
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.libc.string import memcpy

RING_ENTRIES = cython.declare(cython.uint, (4096 - 8) // 24)  # KVM_COALESCED_MMIO_MAX
EXITS_BEFORE_BATCHING = cython.declare(cython.int, 64)
NOT_AGAIN = cython.declare(cython.int, -0x8000_0000)


@cython.cclass
class WriteBatcher:
    """The coalesced port writes of one VM: which ports may be batched, and the way from the kernel's ring to a bus."""

    def __cinit__(self, vm_fd: cython.int):
        self.vm_fd = vm_fd
        self.lock = RLock()

    def close(self) -> None:
        """No VM to register ports with any more: its descriptor's number may soon be another's."""
        self.vm_fd = -1
        self.count = 0

    def watch(self, port: int) -> None:
        """Batch single-byte writes to `port` once the guest has made 64 of them. More than 8 ports: the rest stay single."""
        index: cython.int
        for index in range(self.count):
            if self.ports[index] == port:
                return
        if self.count < PORTS:
            self.ports[self.count] = port
            self.seen[self.count] = 0
            self.registered[self.count] = False
            self.count += 1

    def zone(self, request, index):
        """Ask the kernel to collect writes to a port, or not to any more."""
        zone: kvm_coalesced_mmio_zone
        zone.addr = self.ports[index]
        zone.size = 1
        zone.pio = 1
        return ioctl(self.vm_fd, request, cython.address(zone))

    def note(self, port):
        """Count a single write; True if writes to the port are collected from now on."""
        index: cython.int
        for index in range(self.count):
            if self.ports[index] != port:
                continue
            if self.registered[index] or self.observers:
                return False
            self.seen[index] += 1
            if self.seen[index] < EXITS_BEFORE_BATCHING:
                return False
            if self.zone(KVM_REGISTER_COALESCED_MMIO, index) < 0:
                self.seen[index] = NOT_AGAIN
                return False
            self.registered[index] = True
            self.active += 1
            return True
        return False

    def suspend(self):
        """Every write is to be an exit again, as long as somebody watches."""
        index: cython.int
        for index in range(self.count):
            self.seen[index] = 0
            if self.registered[index]:
                self.zone(KVM_UNREGISTER_COALESCED_MMIO, index)
                self.registered[index] = False
        self.active = 0
        return 0

    def waiting(self, ring):
        """Whether there is something in the ring, or another vCPU in the middle of handing it over."""
        return ring.first != belljar_last(ring) or self.draining

    def drain(self, ring, bus):
        """Hand everything in the ring to the bus, in order, and wait for another vCPU that is doing so."""
        with self.lock:
            self.draining = True
            try:
                self.deliver(ring, bus)
            finally:
                self.draining = False
        return 0

    def deliver(self, ring, bus):
        """Hand over what is in the ring, writes to one port in one piece."""
        entry: cython.pointer(kvm_coalesced_mmio)
        data: cython.uchar[4096]
        first: cython.uint
        last: cython.uint
        port: cython.ulonglong
        size: cython.uint
        filled: cython.uint
        while True:
            first = ring.first % RING_ENTRIES
            last = belljar_last(ring) % RING_ENTRIES
            if first == last:
                return 0
            entry = cython.address(ring.coalesced_mmio[0]) + first
            port = entry.phys_addr
            size = entry.len if entry.len <= 8 else 8
            if not entry.pio:
                number: cython.ulonglong = 0
                memcpy(cython.address(number), cython.cast(cython.p_void, entry.data), size)
                belljar_advance(ring, (first + 1) % RING_ENTRIES)
                bus.mmio_write(port, size, number)
                continue
            filled = 0
            while first != last and entry.pio and entry.phys_addr == port and entry.len == size:
                memcpy(cython.address(data[filled]), cython.cast(cython.p_void, entry.data), size)
                filled += size
                self.collected += 1
                first = (first + 1) % RING_ENTRIES
                entry = cython.address(ring.coalesced_mmio[0]) + first
            belljar_advance(ring, first)
            bus.port_write_block(port, size, PyBytes_FromStringAndSize(cython.cast(cython.p_char, data), filled))
