"""What Python sees: host memory and processors."""

import cython


@cython.cclass
class HostMemory:
    """One host-physical address space: extents of this process's memory, and the code decoded from it."""

    host: cython.pointer(Host)

    def __cinit__(self):
        host: cython.pointer(Host) = cython.cast(cython.pointer(Host), calloc(1, cython.sizeof(Host)))
        if host == cython.NULL:
            raise MemoryError
        host.hash = cython.cast(
            cython.pointer(cython.pointer(Block)), calloc(1 << HASH_BITS, cython.sizeof(cython.pointer(Block)))
        )
        host.jumps = cython.cast(
            cython.pointer(cython.pointer(Block)), calloc(1 << JUMP_BITS, cython.sizeof(cython.pointer(Block)))
        )
        self.host = host
        if host.hash == cython.NULL or host.jumps == cython.NULL:
            raise MemoryError
        reset_code(host)

    def __dealloc__(self):
        if self.host == cython.NULL:
            return
        if self.host.hash != cython.NULL and self.host.jumps != cython.NULL:
            reset_code(self.host)
        free(self.host.hash)
        free(self.host.jumps)
        free(self.host.code_pages)
        free(self.host.extents)
        free(self.host)

    def add(self, hva: u64, size: u64) -> int:
        """Append `size` bytes (a multiple of 4096) of this process's memory at `hva`; the hpa of the first byte."""
        hpa: u64 = self.host.size
        extents: cython.pointer(Extent)
        if size % PAGE_SIZE or hva % PAGE_SIZE or size == 0:
            raise ValueError("host memory comes in whole pages")
        extents = cython.cast(
            cython.pointer(Extent),
            realloc(self.host.extents, (self.host.extent_count + 1) * cython.sizeof(Extent)),
        )
        if extents == cython.NULL or not host_reserve_code_pages(self.host, (hpa + size) >> PAGE_SHIFT):
            raise MemoryError
        self.host.extents = extents
        extents[self.host.extent_count].hpa = hpa
        extents[self.host.extent_count].size = size
        extents[self.host.extent_count].host = cython.cast(cython.pointer(u8), hva)
        self.host.extent_count += 1
        self.host.size += size
        return hpa

    def written(self, hpa: u64, size: u64) -> None:
        """Tell that `size` bytes at `hpa` were written by something else than the processors."""
        code_written(self.host, hpa, size)


@cython.cclass
class Processor:
    """One logical processor."""

    cpu: cython.pointer(Cpu)
    memory: HostMemory

    def __cinit__(self, memory: HostMemory):
        cpu: cython.pointer(Cpu) = cython.cast(cython.pointer(Cpu), calloc(1, cython.sizeof(Cpu)))
        entries: cython.int = TLB_CONTEXTS * (2 * TLB_ENTRIES + TLB_FETCH_ENTRIES) + TLB_ENTRIES
        i: cython.int
        if cpu == cython.NULL:
            raise MemoryError
        self.cpu = cpu
        self.memory = memory
        cpu.tlb = cython.cast(cython.pointer(TlbEntry), malloc(entries * cython.sizeof(TlbEntry)))
        if cpu.tlb == cython.NULL:
            raise MemoryError
        for i in range(entries):
            cpu.tlb[i].tag = 1
            cpu.tlb[i].addend = 0
        cpu.tlb_none = cpu.tlb + (entries - TLB_ENTRIES)
        cpu.host = memory.host
        cpu.jumps = memory.host.jumps
        cpu.next_cpu = memory.host.cpus
        memory.host.cpus = cpu
        cpu.big = 0x40000000
        cpu.rflags = FLAG_ONE
        cpu.flag_zero = 1
        cpu.features[0] = ALL_ONES
        memory.host.epoch += 1
        cpu.epoch = memory.host.epoch
        update_mode(cpu)

    def __dealloc__(self):
        link: cython.pointer(cython.pointer(Cpu))
        if self.cpu == cython.NULL:
            return
        if self.memory is not None:
            link = cython.address(self.memory.host.cpus)
            while link[0] != cython.NULL and link[0] != self.cpu:
                link = cython.address(link[0].next_cpu)
            if link[0] == self.cpu:
                link[0] = self.cpu.next_cpu
        free(self.cpu.tlb)
        free(self.cpu)

    def get(self, number: cython.int) -> int:
        """General register 0 to 15, RIP (16) or RFLAGS (17)."""
        if number == 16:
            return self.cpu.rip
        if number == 17:
            return get_rflags(self.cpu)
        return self.cpu.gpr[number]

    def put(self, number: cython.int, value: u64) -> None:
        """Set general register 0 to 15, RIP (16) or RFLAGS (17)."""
        if number == 16:
            self.cpu.rip = value
        elif number == 17:
            set_rflags(self.cpu, value)
        else:
            self.cpu.gpr[number] = value

    def put_segment(self, number: cython.int, selector: cython.int, base: u64, limit: u32, attributes: u32) -> None:
        """Set a segment register with its hidden part."""
        self.cpu.base[number] = base
        self.cpu.segment[number].selector = cython.cast(u16, selector)
        self.cpu.segment[number].limit = limit
        self.cpu.segment[number].attributes = attributes
        update_mode(self.cpu)

    def put_control(self, cr0: u64, cr3: u64, cr4: u64, efer: u64, cpl: cython.int) -> None:
        """Set the control registers and CPL."""
        self.cpu.cr0 = cr0
        self.cpu.cr3 = cr3
        self.cpu.cr4 = cr4
        self.cpu.efer = efer
        self.cpu.cpl = cpl
        flush_tlb(self.cpu)

    def run(self, budget: i64) -> int:
        """Run at most `budget` instructions; the status."""
        status: cython.int
        with cython.nogil:
            status = run_guest(self.cpu, budget)
        return status

    @property
    def retired(self) -> int:
        """Instructions retired so far."""
        return self.cpu.retired

    @property
    def exit_reason(self) -> int:
        """The basic exit reason of the last exit."""
        return self.cpu.exit_reason

    @property
    def exception(self) -> int:
        """The last exception that was raised."""
        return self.cpu.exception
