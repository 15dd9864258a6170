# Accesses to memory, the TLB and the page walk.

cdef enum:  # what an access is; the low two bits are the kind
    ACCESS_READ = 0
    ACCESS_WRITE = 1
    ACCESS_FETCH = 2
    ACCESS_KIND = 3
    ACCESS_MODIFY = 16      # with ACCESS_WRITE: the old value is read too
    ACCESS_IMPLICIT = 8     # by the processor itself (descriptor tables, TSS, IDT): supervisor whatever the CPL (SDM 3A 4.6)

ctypedef struct TlbEntry:
    u64 tag                # linear page address; 1 = empty
    u64 addend             # host address - linear address (wraps)

ctypedef struct CodeWrite: # a translation for writes to a page that code was decoded from
    u64 tag                # linear page address, and 1 + TLB context
    u64 hpa                # of the page
    u8 *host

ctypedef struct TlbBank:   # the translations of one PCID; global pages are in each bank that used them
    TlbEntry *entries      # [context][read, write: TLB_ENTRIES each, fetch: TLB_FETCH_ENTRIES]; NULL: never used
    u32 log[512]           # slots of filled entries, and TLB_LOG_GLOBAL; so that a flush need not sweep all
    u32 log_count          # above TLB_LOG: sweep
    CodeWrite code_writes[16]  # by page number; spares the slow path the walk
    u32 largest            # log2 of the largest page with pieces here
    u64 large_regions      # where such pages lie, as bits by `large_region`
    u32 pcid
    u32 stale              # whatever is here is void: sweep before use
    u32 fetches_lost       # blocks are bound to pages whose entries for fetches gave way to others since the epoch began
    u64 epoch              # of the cpu, while this bank is in use
    u64 used               # when it was last chosen

ctypedef struct DirectoryEntry:  # what a walk found above a page table (a paging-structure cache, SDM 3A 4.10.3)
    u64 generation         # cpu.walk_generation when it did
    u64 number             # of the 2 MiB of linear addresses that the table maps
    u64 entry              # that led to the table
    u64 allowed            # R/W and U/S of all of them
    u64 no_execute

ctypedef struct NestedEntry:  # where a guest-physical page is (a guest-physical mapping, SDM 3C 29.4.1)
    u64 tag                # 1 + its address; 0 = empty
    u64 hpa
    u8 *host
    u32 allowed            # rights of all levels together (1 read, 2 write, 4 fetch)
    u32 marked             # for which of them accessed and dirty flags are set, if there are any

ctypedef struct TableEntry:  # a guest's paging-structure entry that a walk went through
    u8 *place
    u64 value
    u64 gpa
    u64 hpa
    u32 size               # 4 or 8 bytes
    u32 writable           # as far as nested paging is concerned

ctypedef struct Watchpoint:
    u64 gva
    u64 size
    u32 on_read
