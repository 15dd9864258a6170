# One host-physical address space, and the storage of a VMCS.

ctypedef struct Extent:
    u64 hpa
    u64 size
    u8 *host
    u32 owned              # allocated here, and freed with the address space

ctypedef struct Host:      # one host-physical address space and the code decoded from it, shared by its processors
    Extent *extents
    int extent_count
    int extent_room
    int recent             # the extent that was looked up last
    u64 size               # hpa space handed out so far, bytes
    u64 floating           # 1 + hpa of a page of ones; 0: not made yet
    u64 epoch              # last number given to a cpu.epoch
    u64 wrote_epoch        # what it was when memory was last written behind the processors' backs
    Cpu *cpus              # linked by cpu.next_cpu
    Block **code_pages     # by hpa >> 12: blocks of that page; room for code_page_room pages
    u64 *code_parts        # by hpa >> 12: which 64th parts of the page blocks have bytes in, or had
    u64 code_page_room
    Block **hash           # by physical address and mode
    Block **jumps          # by linear address: a hint, always verified
    u8 *arena              # current chunk for blocks
    u64 arena_used
    u64 arena_top          # blocks grow up to here; copies of their bytes lie above
    u64 arena_total        # bytes in all chunks
    void *chunks           # list of chunks: each begins with a pointer to the one before

ctypedef struct Vmcs:      # storage of one VMCS (core/vmcs.py)
    u64 field[1024]        # by bits 14:13 (width), 11:10 (type) and 9:1 (index, below 64) of the encoding
    u32 launched           # the launch state (SDM 3C 25.1)
    u32 loaded             # the guest-state area lives in the Cpu; field[] is stale for it
    u32 checked            # controls and host state passed their checks and were not written since
    u32 written            # a guest-state field was written since the state was last loaded
