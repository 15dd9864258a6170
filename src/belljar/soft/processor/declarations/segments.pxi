# Segments, descriptors and gates.

cdef enum:  # segment numbers: the encoding order (SDM 2A 2.1.5), then the two system segments
    ES = 0
    CS = 1
    SS = 2
    DS = 3
    FS = 4
    GS = 5
    LDTR = 6
    TR = 7

cdef enum:  # segment attributes: the format of the VMCS access-rights fields (SDM 3C table 25-2)
    AR_TYPE = 0xF
    AR_ACCESSED = 0x1
    AR_WRITABLE = 0x2       # data; code: readable
    AR_DOWN = 0x4           # data: expand-down; code: conforming
    AR_CODE = 0x8
    AR_S = 0x10
    AR_DPL_SHIFT = 5
    AR_P = 0x80
    AR_AVL = 0x1000
    AR_L = 0x2000
    AR_DB = 0x4000
    AR_G = 0x8000
    AR_UNUSABLE = 0x10000

cdef enum:  # types of system descriptors and gates (SDM 3A table 3-2); + 8: the 32-bit and 64-bit kind
    SYSTEM_TSS16 = 1
    SYSTEM_LDT = 2
    SYSTEM_TSS16_BUSY = 3
    SYSTEM_CALL16 = 4
    SYSTEM_TASK = 5
    SYSTEM_INTERRUPT16 = 6
    SYSTEM_TRAP16 = 7
    SYSTEM_TSS = 9
    SYSTEM_TSS_BUSY = 11
    SYSTEM_CALL = 12
    SYSTEM_INTERRUPT = 14
    SYSTEM_TRAP = 15

ctypedef struct Segment:   # hidden part; the base is cpu.base[number]
    u32 limit              # bytes, scaled
    u32 attributes         # AR_*
    u16 selector

ctypedef struct Descriptor: # one fetched from the GDT or LDT
    u64 gva                # linear address of its first byte
    u64 raw                # the 8 bytes
    u64 base               # of a segment or system segment (with fetch_high: 64 bits)
    u32 limit              # bytes, scaled
    u32 attributes         # AR_*
    u32 selector           # as given, RPL included

ctypedef struct Gate:      # an entry of the IDT, taken apart
    u64 offset
    u32 kind               # SYSTEM_*
    u32 selector
    u32 ist
    u32 size               # bytes of one push
