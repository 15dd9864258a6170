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
