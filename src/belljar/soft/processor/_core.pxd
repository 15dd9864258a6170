# The processor's structures, status codes and function types: what pure Python mode cannot declare by itself.
# Everything here is visible, without an import, in each of core/*.py.

from libc.stdint cimport int8_t as i8, int16_t as i16, int32_t as i32, int64_t as i64
from libc.stdint cimport uint8_t as u8, uint16_t as u16, uint32_t as u32, uint64_t as u64

cdef extern from *:
    bint likely(bint) noexcept nogil
    bint unlikely(bint) noexcept nogil
    int count_ones "__builtin_popcountll"(u64) noexcept nogil
    int leading_zeros "__builtin_clzll"(u64) noexcept nogil   # undefined for 0
    int trailing_zeros "__builtin_ctzll"(u64) noexcept nogil  # undefined for 0
    u64 byte_swap64 "__builtin_bswap64"(u64) noexcept nogil
    u32 byte_swap32 "__builtin_bswap32"(u32) noexcept nogil
    bint swap64 "__sync_bool_compare_and_swap"(u64 *, u64, u64) noexcept nogil   # whether it did
    u32 fetch_or32 "__sync_fetch_and_or"(u32 *, u32) noexcept nogil
    u32 fetch_and32 "__sync_fetch_and_and"(u32 *, u32) noexcept nogil
    bint swap32 "__sync_bool_compare_and_swap"(u32 *, u32, u32) noexcept nogil
    ctypedef unsigned long long u128 "unsigned __int128"
    ctypedef long long i128 "__int128"

# Literals above 31 bits would be Python objects: constants of 64 bits get their value in C's notation here.
cdef extern from *:
    const u64 LOW32 "0xFFFFFFFFULL"
    const u64 ALL_ONES "0xFFFFFFFFFFFFFFFFULL"
    const u64 PAGE_MASK "0xFFFFFFFFFFFFF000ULL"
    const u64 CR0_PG "0x80000000ULL"
    const u64 SIGN_BIT "0x8000000000000000ULL"
    const u64 FLAGS_VALID "0x3F7FD7ULL"          # RFLAGS without its reserved bits
    const u64 CR0_DEFINED "0xE005003FULL"        # CR0 without its reserved bits
    const u64 DR6_FIXED "0xFFFF0FF0ULL"          # ones that never change (SDM 3B figure 18-1; no RTM, no bus-lock debugging)
    const u64 DR6_WRITABLE "0xE00FULL"
    const u64 DR6_BD "0x2000ULL"                 # a debug register was touched while DR7.GD was set
    const u64 DR6_BS "0x4000ULL"                 # single step
    const u64 DR6_BT "0x8000ULL"                 # task switch to a TSS with T set
    const u64 DR7_FIXED "0x400ULL"
    const u64 DR7_WRITABLE "0xFFFF23FFULL"
    const u64 DR7_GD "0x2000ULL"
    const u32 VECTORING_VALID "0x80000000U"      # SDM 3C table 25-19
    const u64 RANDOM_SEED "0x9E3779B97F4A7C15ULL"
    const u64 RANDOM_FACTOR "0x2545F4914F6CDD1DULL"
    const u64 PAT_RESET "0x0007040600070406ULL"  # SDM 3A 12.12.4
    const u64 APIC_BASE_RESET "0xFEE00900ULL"     # SDM 3A 11.4.4: enabled, bootstrap processor
    const u32 MSR_EFER "0xC0000080U"             # SDM 4 table 2-2, here and in the enum of MSRs
    const u32 MSR_STAR "0xC0000081U"
    const u32 MSR_LSTAR "0xC0000082U"
    const u32 MSR_CSTAR "0xC0000083U"
    const u32 MSR_FMASK "0xC0000084U"
    const u32 MSR_FS_BASE "0xC0000100U"
    const u32 MSR_GS_BASE "0xC0000101U"
    const u32 MSR_KERNEL_GS_BASE "0xC0000102U"
    const u32 MSR_TSC_AUX "0xC0000103U"
    const u32 CPUID_EXTENDED "0x80000000U"
    const u32 CPUID_LAST_EXTENDED "0x80000008U"

# ---------------------------------------------------------------------------------------------- status codes
# What every operation answers. Anything but NEXT unwinds to the run loop.
cdef enum:
    NEXT = 0     # done; go on with the next instruction of the block
    BRANCH = 1   # done; cpu.rip already holds the address of the next instruction; the block ends here
    FAULT = 2    # an exception waits in cpu.exception; nothing of the instruction was committed; run loop delivers
    EXIT = 3     # a VM exit was carried out (VMCS written); leave run()
    AGAIN = 4    # not finished (REP with progress, stop asked for): same RIP again after a look at events; not retired
    STOP = 5     # the instruction budget of this slice is used up; cpu.rip is exact

# ---------------------------------------------------------------------------------------------- numbers
cdef enum:
    RAX = 0
    RCX = 1
    RDX = 2
    RBX = 3
    RSP = 4
    RBP = 5
    RSI = 6
    RDI = 7

cdef enum:  # segment numbers: the encoding order (SDM 2A 2.1.5), then the two system segments
    ES = 0
    CS = 1
    SS = 2
    DS = 3
    FS = 4
    GS = 5
    LDTR = 6
    TR = 7

cdef enum:  # byte offsets into Cpu of 8-byte slots, as Insn names operands
    SLOT_ZERO = 128
    SLOT_RIP = 136
    SLOT_BASE = 144   # + 8 * segment
    SLOT_BIG = 208    # the constant 0x40000000

cdef enum:  # exceptions (SDM 3A table 6-1)
    EXC_DE = 0
    EXC_DB = 1
    EXC_NMI = 2
    EXC_BP = 3
    EXC_OF = 4
    EXC_BR = 5
    EXC_UD = 6
    EXC_NM = 7
    EXC_DF = 8
    EXC_TS = 10
    EXC_NP = 11
    EXC_SS = 12
    EXC_GP = 13
    EXC_PF = 14
    EXC_MF = 16
    EXC_AC = 17
    EXC_MC = 18
    EXC_XM = 19

cdef enum:  # RFLAGS (SDM 1 3.4.3)
    FLAG_CF = 0x1
    FLAG_ONE = 0x2
    FLAG_PF = 0x4
    FLAG_AF = 0x10
    FLAG_ZF = 0x40
    FLAG_SF = 0x80
    FLAG_TF = 0x100
    FLAG_IF = 0x200
    FLAG_DF = 0x400
    FLAG_OF = 0x800
    FLAG_IOPL = 0x3000
    FLAG_NT = 0x4000
    FLAG_RF = 0x10000
    FLAG_VM = 0x20000
    FLAG_AC = 0x40000
    FLAG_VIF = 0x80000
    FLAG_VIP = 0x100000
    FLAG_ID = 0x200000
    FLAGS_ARITHMETIC = 0x8D5   # CF PF AF ZF SF OF: kept lazily, see core/flags.py

cdef enum:  # CR0, CR4, EFER (SDM 3A 2.5, 2.2.1); bit 31 and above do not fit an enum
    CR0_PE = 0x1
    CR0_MP = 0x2
    CR0_EM = 0x4
    CR0_TS = 0x8
    CR0_ET = 0x10
    CR0_NE = 0x20
    CR0_WP = 0x10000
    CR0_AM = 0x40000
    CR0_NW = 0x20000000
    CR0_CD = 0x40000000
    CR4_VME = 0x1
    CR4_PVI = 0x2
    CR4_TSD = 0x4
    CR4_DE = 0x8
    CR4_PSE = 0x10
    CR4_PAE = 0x20
    CR4_MCE = 0x40
    CR4_PGE = 0x80
    CR4_PCE = 0x100
    CR4_OSFXSR = 0x200
    CR4_OSXMMEXCPT = 0x400
    CR4_UMIP = 0x800
    CR4_LA57 = 0x1000
    CR4_VMXE = 0x2000
    CR4_FSGSBASE = 0x10000
    CR4_PCIDE = 0x20000
    CR4_OSXSAVE = 0x40000
    CR4_SMEP = 0x100000
    CR4_SMAP = 0x200000
    CR4_PKE = 0x400000
    EFER_SCE = 0x1
    EFER_LME = 0x100
    EFER_LMA = 0x400
    EFER_NXE = 0x800

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

cdef enum:  # what an access is; the low two bits are the kind
    ACCESS_READ = 0
    ACCESS_WRITE = 1
    ACCESS_FETCH = 2
    ACCESS_KIND = 3
    ACCESS_MODIFY = 16      # with ACCESS_WRITE: the old value is read too
    ACCESS_IMPLICIT = 8     # by the processor itself (descriptor tables, TSS, IDT): supervisor whatever the CPL (SDM 3A 4.6)

cdef enum:  # bits of cpu.events: the run loop looks between blocks
    EVENT_TIMER = 0x1       # the slice limit below is the VMX preemption timer's (V)
    EVENT_STEP = 0x2        # one instruction at a time: TF, or a breakpoint is armed in DR7
    EVENT_SHADOW = 0x4      # one instruction, then drop the interrupt shadow
    EVENT_TRAP = 0x8        # cpu.pending_debug holds traps to deliver
    EVENT_INTERRUPT = 0x10  # something may want in: injected, virtual or window (V decides in vmx_events)
    EVENT_INACTIVE = 0x20   # cpu.activity is not ACTIVE
    EVENT_MTF = 0x40        # monitor trap flag: VM exit after one instruction

cdef enum:  # guest activity states (SDM 3C 25.4.2)
    ACTIVE = 0
    ACTIVITY_HLT = 1
    ACTIVITY_SHUTDOWN = 2
    ACTIVITY_SIPI = 3

cdef enum:  # interruptibility state (SDM 3C table 25-3)
    SHADOW_STI = 1
    SHADOW_MOV_SS = 2
    BLOCKED_SMI = 4
    BLOCKED_NMI = 8

cdef enum:  # cpu.exception_kind: how a vector came to be, in the VMCS's numbers (SDM 3C table 25-17)
    KIND_EXTERNAL = 0
    KIND_NMI = 2
    KIND_HARDWARE = 3       # faults, traps and aborts of the processor
    KIND_SOFTWARE = 4       # INT n
    KIND_PRIVILEGED = 5     # INT1
    KIND_SOFTWARE_EXC = 6   # INT3, INTO

cdef enum:  # sizes
    PAGE_SHIFT = 12
    PAGE_SIZE = 4096
    PAGE_OFFSET = 0xFFF
    TLB_ENTRIES = 1024      # a power of two
    TLB_FETCH_ENTRIES = 256
    TLB_CONTEXTS = 3        # 0 supervisor, 1 user, 2 supervisor with SMAP lifted by AC
    BLOCK_INSNS = 48        # at most so many instructions in one block
    JUMP_BITS = 16          # log2 of the look-up table from linear addresses to blocks
    HASH_BITS = 14          # log2 of the table from physical addresses to blocks
    REPETITIONS = 4096      # of a REP instruction between two looks at the run loop
    IDLE_ROUNDS = 65536     # of the run loop without a retired instruction, after which each one costs budget
    IDLE_PATIENCE = 256     # such rounds before run_guest comes back for a moment
    SLICE = 16384           # instructions between two looks at the budget: bounds the stack should tail calls fail

cdef enum:  # Insn.flags
    INSN_ASIZE = 0x3        # address size: 0 = 64, 1 = 32, 2 = 16 bits
    INSN_SLOW = 0x4         # the address needs masks, limit checks or both
    INSN_OSIZE = 0x18       # log2 of the operand size in bytes, shifted by INSN_OSIZE_SHIFT
    INSN_OSIZE_SHIFT = 3
    INSN_REP = 0x20         # F3
    INSN_REPNE = 0x40       # F2
    INSN_MEM = 0x80         # ModRM names memory (or the form has an implicit memory operand)
    INSN_PLAIN = 0x7        # none of these set: linear = base + (index << scale) + disp + segment base

cdef enum:  # cpu.mode: what decoding depends on; part of cpu.bind and of a block's key
    MODE_CODE = 0x3         # code size: 0 = 64, 1 = 32, 2 = 16 bits
    MODE_STACK = 0xC        # stack address size in the same coding, shifted by 2
    MODE_FLAT = 0x10        # ES, SS, DS flat and of 4 GiB (or 64-bit mode)
    MODE_REAL = 0x80        # real or virtual-8086 mode: no VEX
    MODE_DECODE = 0x9F      # what a block's contents depend on
    MODE_USER = 0x20        # CPL 3: fetches with user rights
    MODE_CHECK_CS = 0x40    # CS has a base or a limit below 4 GiB: every block entry is checked, no chaining

# ---------------------------------------------------------------------------------------------- structures
ctypedef struct Cpu
ctypedef struct Insn
ctypedef struct Block

# One predecoded instruction. Tail-threaded: handler(cpu, insn) ends by `return (insn+1).handler(cpu, insn+1)`.
ctypedef int (*Handler)(Cpu *cpu, Insn *insn) noexcept nogil
# An operation that runs with everything synchronized and may do anything; see complex_insn in core/run.py.
ctypedef int (*Operation)(Cpu *cpu, Insn *insn) noexcept nogil

ctypedef struct Insn:      # 32 bytes
    Handler handler
    i64 imm                # immediate, sign-extended; for near branches the target relative to the block's first byte
    i32 disp               # displacement; RIP-relative: relative to the block's first byte
    u16 offset             # of the instruction's first byte from the block's first byte
    u8 length_segment      # bits 0-3 length in bytes, bits 4-7 segment number of the memory operand
    u8 number              # position in the block, from 0
    u8 reg                 # byte offset into Cpu of ModRM.reg (or of the opcode's register)
    u8 rm                  # byte offset into Cpu of ModRM.rm if it is a register
    u8 base                # slot of the base register (SLOT_ZERO: none; SLOT_RIP)
    u8 index               # slot of the index register (SLOT_ZERO: none)
    u8 segment             # slot of the segment base (SLOT_ZERO: none, or base 0 by definition)
    u8 scale               # shift count for the index
    u8 flags               # INSN_*
    u8 operation           # complex instructions: index into operations[]

ctypedef struct Block:     # a header of 64 bytes, then `count` Insn and one Insn that ends the block
    u64 linear             # linear address of the first byte, as bound
    u64 bind               # the cpu.bind under which `linear` is known to lead here; 0: nowhere (or dead)
    u16 count
    u16 mode               # MODE_DECODE bits it was decoded for
    u16 bytes              # length of the code in bytes
    u8 dead
    u8 tail                # the Chain is the Insn at count + tail
    u64 hpa                # of the first byte
    u64 hpa_next_page      # of the second page's first byte when the one instruction crosses; else 0
    Block *hash_next
    Block *page_next       # next block of the page
    Block *page_next2      # next block in the second page's list

ctypedef struct Chain:     # overlays the Insn after a near branch: where it led the last time
    Handler handler        # ends a block that falls through
    Block *taken
    Block *fallthrough
    u8 *code               # a copy of the block's bytes, to notice writes from outside

ctypedef struct TlbEntry:
    u64 tag                # linear page address; 1 = empty
    u64 addend             # host address - linear address (wraps)

ctypedef struct Segment:   # hidden part; the base is cpu.base[number]
    u32 limit              # bytes, scaled
    u32 attributes         # AR_*
    u16 selector

ctypedef struct Descriptor: # one fetched from the GDT or LDT (S)
    u64 gva                # linear address of its first byte
    u64 raw                # the 8 bytes
    u64 base               # of a segment or system segment (with fetch_high: 64 bits)
    u32 limit              # bytes, scaled
    u32 attributes         # AR_*
    u32 selector           # as given, RPL included

ctypedef struct StackFrame: # one being pushed by the processor (S, core/frames.py)
    u64 sp                 # as it will be; bits above the mask are kept
    u64 base
    u64 mask
    u32 limit
    u32 attributes
    u32 selector           # what #SS names: 0 for the present stack
    u32 ext
    u32 size               # bytes of one push
    u32 implicit           # ACCESS_IMPLICIT: an inner level's stack
    u32 flat               # 64-bit: no segment

ctypedef struct Event:     # one under delivery through the IDT (S, core/delivery.py)
    u32 vector
    u32 ext                # EXT of faults on the way
    u32 software           # INT n, INT3, INTO: the gate's DPL counts
    u32 has_error
    u32 error
    u64 return_rip
    u64 rf                 # FLAG_RF if the pushed image has it

ctypedef struct Gate:      # an entry of the IDT, taken apart (S)
    u64 offset
    u32 kind               # SYSTEM_*
    u32 selector
    u32 ist
    u32 size               # bytes of one push

ctypedef struct TaskUndo:  # the old task, until nothing can exit any more (S, core/tasks.py)
    u64 gpr[8]
    u64 rflags
    u64 base[8]
    Segment segment[8]
    u64 cr0
    u64 cr3
    u64 dr7
    u64 pending_debug
    u64 insn_rip
    u64 next_rip
    u32 cpl

ctypedef struct TaskImage: # what a TSS holds of a task (S, core/tasks.py)
    u64 cr3
    u64 rip
    u64 flags
    u64 gpr[8]
    u64 selector[6]        # ES CS SS DS FS GS
    u64 ldt
    u64 trap

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

ctypedef struct Extent:
    u64 hpa
    u64 size
    u8 *host
    u32 owned              # allocated here, and freed with the address space

ctypedef struct Host:      # one host-physical address space and the code decoded from it, shared by its processors
    Extent *extents
    int extent_count
    int extent_room
    u64 size               # hpa space handed out so far, bytes
    u64 floating           # 1 + hpa of a page of ones; 0: not made yet
    u64 epoch              # last number given to a cpu.epoch
    Cpu *cpus              # linked by cpu.next_cpu
    Block **code_pages     # by hpa >> 12: blocks of that page; room for code_page_room pages
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

ctypedef struct Cpu:
    # --- slots that Insn names by byte offset: keep the order (SLOT_*)
    u64 gpr[16]
    u64 zero
    u64 rip                # at block entries: exact. Inside a block: address of the block's first byte
    u64 base[8]            # segment bases: ES CS SS DS FS GS LDTR TR
    u64 big                # 0x40000000
    # --- lazy flags (core/flags.py)
    u64 flag_result        # sign-extended: SF is its sign, PF the parity of its low byte
    u64 flag_zero          # ZF is set when this is 0
    u64 flag_x             # CF, OF, AF are those of x + y = z, all sign-extended
    u64 flag_y
    u64 flag_z
    u64 rflags             # the other flags; arithmetic bits 0, bit 1 set
    # --- the run loop
    i64 remaining          # instructions left in this slice
    i64 slice              # what `remaining` began with
    u32 events             # EVENT_*; read together with `kicked` as one 64-bit word
    u32 kicked             # set by kick() from any thread
    u64 bind               # epoch << 16 | mode: which bound blocks are valid now
    TlbEntry *tlb_read     # tables for the present context; an always-empty one when every access must be looked at
    TlbEntry *tlb_write
    TlbEntry *tlb_fetch
    Host *host
    Block **jumps          # host.jumps
    u64 epoch              # renewed by each TLB flush
    u64 retired            # instructions retired before this slice
    u64 budget             # instructions still allowed by enter() after this slice
    u32 mode               # MODE_*
    u32 cpl
    Insn *insn             # the instruction at work, for complex operations and after FAULT
    u64 insn_rip           # its RIP (complex operations, faults)
    u64 next_rip           # RIP of the instruction after it, wrapped to the code size
    # --- pending exception (FAULT)
    u32 exception          # vector
    u32 exception_kind     # KIND_*
    u32 exception_error
    u32 exception_has_error
    u64 exception_cr2      # #PF: linear address; #DB: bits to set in DR6
    u64 pending_debug      # debug traps collected while an instruction ran: DR6 bits
    # --- memory slow path
    Block *found           # answer of find_block
    u64 idle_at            # cpu.retired when it last grew
    u64 idle_rounds        # of the run loop since
    u64 charged            # rounds charged to budgets in place of instructions
    i32 repetitions        # how often a REP instruction may go round before it answers AGAIN
    u8 bounce[64]          # stands for memory that cannot be touched in place
    u64 bounce_linear
    u8 *bounce_host[2]     # where the two parts go
    u64 bounce_hpa[2]
    u32 bounce_split       # bytes in the first part
    u32 bounce_size
    u32 code_hit           # a store reached decoded code: the block must end after this instruction
    int memory_status      # FAULT or EXIT: why an access function answered NULL
    u64 linear             # answer of slow_linear
    u32 context            # TLB context of explicit accesses (0..2)
    u32 address_mask_bits  # 64 in IA-32e mode, else 32: how wide linear addresses are
    u8 *fill_host          # answer of tlb_fill: host address of the byte asked for
    u64 fill_hpa           # its host-physical address
    TlbEntry *tlb          # all tables: [context][read, write: TLB_ENTRIES each, fetch: TLB_FETCH_ENTRIES]
    TlbEntry *tlb_none     # an empty table
    # --- system state
    Segment segment[8]
    u64 gdt_base
    u64 idt_base
    u32 gdt_limit
    u32 idt_limit
    u64 cr0
    u64 cr2
    u64 cr3
    u64 cr4
    u64 cr8
    u64 efer
    u64 xcr0
    u64 dr[8]              # 4 and 5 unused
    u32 pkru
    u32 activity           # ACTIVE...
    u32 interruptibility   # SHADOW_* | BLOCKED_*
    u32 stepped            # run loop: this instruction runs alone
    u64 features[8]        # what exists: FEATURE_* bits (core/cpuid.py); consulted when decoding
    # --- MSRs (S)
    u64 star
    u64 lstar
    u64 cstar
    u64 fmask
    u64 kernel_gs_base
    u64 sysenter_cs
    u64 sysenter_esp
    u64 sysenter_eip
    u64 tsc_offset
    u64 tsc_multiplier     # 16.48 fixed point; 0: no scaling
    u64 tsc_aux
    u64 pat
    u64 apic_base
    u64 misc_enable
    u64 debugctl
    u64 tsc_base           # the time-stamp counter when no instruction had retired
    u64 random             # state of the generator behind RDRAND and RDSEED; never 0
    u32 io_string          # the instruction asking vmx_io is INS or OUTS
    # --- the event under delivery (S): 0, or as in the VMCS's IDT-vectoring fields (SDM 3C 25.9.3)
    u32 vectoring_info
    u32 vectoring_error
    u32 vectoring_length
    # --- a task switch at work (S)
    u32 task_ext           # EXT of its faults
    u64 task_return_rip    # what the old task's TSS gets
    u64 task_rf            # FLAG_RF if the old task's flags image has it
    # --- paging (V)
    u64 pdpte[4]           # the PDPTE registers of PAE paging (SDM 3A 4.4.1)
    u32 tlb_log[512]       # slots of filled TLB entries, bit 31: global; so that a flush need not sweep all
    u32 tlb_log_count      # above 512: sweep
    u32 fill_device        # tlb_fill found a device (only while a window is open): fill_hpa is its guest-physical address
    u32 ept_allowed        # rights of the last EPT walk (1 read, 2 write, 4 fetch)
    u64 walk_gpa           # answer of the guest walk
    u32 walk_global
    u32 walk_shift         # log2 of the page size
    u32 tlb_largest        # log2 of the largest page with pieces in the TLB
    # --- VMX (V): valid while in_guest
    u32 in_guest
    u32 pin_controls
    u32 primary_controls
    u32 secondary_controls
    u32 entry_controls
    u32 exit_controls
    u32 exception_bitmap
    u32 exit_reason
    u64 eptp               # 0: no EPT, guest-physical = host-physical
    Vmcs *vmcs
    u64 cr0_mask
    u64 cr0_shadow
    u64 cr4_mask
    u64 cr4_shadow
    u8 *io_bitmap[2]       # NULL: no I/O bitmaps
    u8 *msr_bitmap         # NULL: no MSR bitmaps
    u64 exit_qualification
    u64 exit_gpa
    u64 exit_linear
    u32 exit_length
    u32 exit_information   # VM-exit instruction information
    u32 exit_interruption  # VM-exit interruption information
    u32 exit_error
    u64 timer_end          # instructions_retired at which the VMX preemption timer expires
    u64 entry_retired      # instructions_retired at the last VM entry
    # --- the host's own debugging (core/watch.py)
    u32 stop_on_delivery   # run_guest comes back after each exception that it delivered
    u32 watched            # breakpoints or watchpoints are set: one instruction at a time
    u32 watch_hit          # 1 + number of the watchpoint that the present instruction hit
    u32 breakpoint_count
    u32 watchpoint_count
    u64 *breakpoints       # linear addresses, ascending
    Watchpoint *watchpoints
    # --- the window to devices (V): open while the hypervisor has one instruction emulated
    void *window           # the Python object that answers; NULL: closed
    u32 window_used
    u32 window_failed
    u8 window_page[4096]   # stands for the device's page
    u32 bounce_device[2]   # whether a part of the bounce buffer belongs to a device
    Cpu *next_cpu

cdef enum:  # features that can be switched off, by bit of cpu.features[0]; without one its instructions raise #UD
    FEATURE_CMOV = 0
    FEATURE_CX8 = 1
    FEATURE_CX16 = 2
    FEATURE_MOVBE = 3
    FEATURE_POPCNT = 4
    FEATURE_LZCNT = 5
    FEATURE_BMI1 = 6
    FEATURE_BMI2 = 7
    FEATURE_ADX = 8
    FEATURE_CRC32 = 9       # SSE4.2's one integer instruction
    FEATURE_RDRAND = 10
    FEATURE_RDSEED = 11
    FEATURE_RDTSCP = 12
    FEATURE_RDPID = 13
    FEATURE_CLFLUSH = 14
    FEATURE_CLFLUSHOPT = 15
    FEATURE_CLWB = 16
    FEATURE_SYSCALL = 17
    FEATURE_SEP = 18
    FEATURE_FSGSBASE = 19
    FEATURE_SMEP = 20
    FEATURE_SMAP = 21
    FEATURE_UMIP = 22
    FEATURE_INVPCID = 23
    FEATURE_PCID = 24
    FEATURE_PKU = 25
    FEATURE_LA57 = 26
    FEATURE_PAGE1G = 27
    FEATURE_NX = 28
    FEATURE_LAHF64 = 29
    FEATURE_XSAVE = 30
    FEATURE_MONITOR = 31

cdef enum:  # MSRs (SDM 4 table 2-2); those above bit 30 are constants at the top
    MSR_TSC = 0x10
    MSR_PLATFORM_ID = 0x17
    MSR_APIC_BASE = 0x1B
    MSR_BIOS_SIGN_ID = 0x8B
    MSR_SYSENTER_CS = 0x174
    MSR_SYSENTER_ESP = 0x175
    MSR_SYSENTER_EIP = 0x176
    MSR_MISC_ENABLE = 0x1A0
    MSR_DEBUGCTL = 0x1D9
    MSR_PAT = 0x277
    MISC_ENABLE_FIXED = 0x1800  # no branch trace storage, no PEBS
    CPUID_LAST_BASIC = 0xD

cdef enum:  # S: how a descriptor fetch can end besides NEXT, FAULT and EXIT
    OUTSIDE = 6             # the selector is null or beyond its table's limit

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

cdef enum:  # where a task switch comes from, as the exit qualification has it (SDM 3C table 28-2)
    TASK_CALL = 0
    TASK_IRET = 1
    TASK_JMP = 2
    TASK_GATE = 3

# ---------------------------------------------------------------------------------------------- decoding (P)
cdef enum:  # the eight operations of the first rows of the opcode map, in encoding order
    ALU_add = 0
    ALU_or = 1
    ALU_adc = 2
    ALU_sbb = 3
    ALU_and = 4
    ALU_sub = 5
    ALU_xor = 6
    ALU_cmp = 7

cdef enum:  # shift group, in encoding order
    SHIFT_rol = 0
    SHIFT_ror = 1
    SHIFT_rcl = 2
    SHIFT_rcr = 3
    SHIFT_shl = 4
    SHIFT_shr = 5
    SHIFT_sal = 6
    SHIFT_sar = 7

cdef enum:  # bit tests, in encoding order
    BIT_bt = 0
    BIT_bts = 1
    BIT_btr = 2
    BIT_btc = 3

cdef enum:
    UNARY_inc = 0
    UNARY_dec = 1
    UNARY_not = 2
    UNARY_neg = 3

cdef enum:  # Opcode.flags
    OP_VALID = 0x1
    OP_MODRM = 0x2
    OP_BYTE = 0x4           # operand size 1
    OP_BYTE_G = 0x8         # ModRM.reg names a byte register
    OP_BYTE_E = 0x10        # ModRM.rm (or the opcode's register) names a byte register
    OP_LOCK = 0x20          # LOCK allowed with a memory operand
    OP_DEF64 = 0x40         # in 64-bit mode the operand size is 64, or 16 with 66
    OP_FORCE64 = 0x80       # in 64-bit mode the operand size is 64
    OP_NOT64 = 0x100        # #UD in 64-bit mode
    OP_ONLY64 = 0x200       # #UD elsewhere
    OP_ENDS = 0x400         # nothing after it belongs to the block
    OP_BRANCH = 0x800       # a near branch: the handler leaves the block, a Chain follows
    OP_SWAP = 0x1000        # register form: operands exchanged, so that the destination is Insn.rm
    OP_GROUP = 0x2000       # Opcode.group, by ModRM.reg: 8 entries for memory, 8 for registers
    OP_OPREG = 0x4000       # Insn.rm is the register in the opcode's low bits
    OP_ACC = 0x8000         # Insn.rm is the accumulator
    OP_NO_MEM = 0x10000     # #UD with a memory operand
    OP_NO_REG = 0x20000     # #UD with a register operand
    OP_ALWAYS_REG = 0x40000 # ModRM.mod is ignored
    OP_SEGREG = 0x80000     # ModRM.reg is not a general register: REX.R is ignored
    OP_MODESIZE = 0x100000  # operand size is 64 in 64-bit mode, else 32
    OP_ELSE_PLAIN = 0x200000  # without the feature, decode as if the F2/F3 prefix were not there
    OP_GROUP_RM = 0x400000  # a group's register entry that is a group again, by ModRM.rm
    OP_FEATURE = 0x800000   # only if Opcode.feature is there
    OP_SIZE_W1 = 0x1000000  # VEX.L must be 0 and W picks 32 or 64 (all VEX integer instructions)
    OP_VEX_VVVV = 0x2000000 # VEX.vvvv names a register: Insn.imm is its byte offset; without this vvvv must be 1111
    OP_NO_66 = 0x4000000    # operand size prefix does not matter: size 32, or 64 with REX.W

cdef enum:  # Opcode.immediate
    IMM_NONE = 0
    IMM_8 = 1               # sign-extended
    IMM_Z = 2               # 16 or 32 bits by operand size, sign-extended
    IMM_V = 3               # 16, 32 or 64 bits
    IMM_16 = 4              # unsigned
    IMM_FAR = 5             # offset by operand size, then selector: selector << 32 | offset
    IMM_ENTER = 6           # 16 bits, then 8: level << 16 | size
    IMM_J8 = 7              # near branch
    IMM_JZ = 8
    IMM_OFFSET = 9          # address by address size
    IMM_CONSTANT = 10       # Opcode.constant
    IMM_U8 = 11             # unsigned

cdef enum:  # opcode maps: index = ((map * 4 + mandatory prefix) << 8) | opcode
    MAP_ONE = 0
    MAP_0F = 1
    MAP_0F38 = 2
    MAP_0F3A = 3
    MAP_VEX_0F38 = 4
    MAP_VEX_0F3A = 5
    MAPS = 6
    GROUP_POOL = 1024       # entries for groups
    UNKNOWN_WITH_MODRM = 0x200      # entries (under a prefix that MAP_ONE has no use for) for invalid opcodes of the
    UNKNOWN_WITH_IMMEDIATE = 0x201  # three-byte maps, all of which have ModRM, and an immediate byte in 0F 3A

ctypedef struct Opcode:
    Handler *reg_handlers  # by log2 of the operand size
    Handler *mem_handlers
    Opcode *group
    u32 flags              # OP_*
    i32 constant
    u8 immediate           # IMM_*
    u8 operation           # index into operations[]; 0: none
    u8 feature

ctypedef struct Decoder:
    Cpu *cpu
    const u8 *bytes        # of the instruction
    int available          # how many may be looked at
    int position
    int mode               # code size: 0 = 64, 1 = 32, 2 = 16 bits
    int rex                # the REX prefix's low four bits
    int has_rex
    int operand            # 66 seen
    int address            # 67 seen
    int lock
    int repeat             # F3 or F2, the last one seen; 0 none
    int segment            # override; -1 none
    int vex                # a VEX prefix was read
    int vex_vvvv
    int vex_w
    int vex_l
    int vex_prefix
    int invalid            # #UD, once the length is known to be good
    int code               # the opcode's last byte
    int modrm              # -1: none
    u32 op_flags           # flags of the opcode found
    int size               # log2 of the operand size
    int offset             # of the instruction in the block

cdef enum:  # answers of decode_insn
    DECODED = 0
    DECODE_MORE = 1        # more bytes are needed than are available
    DECODE_LONG = 2        # over 15 bytes: #GP(0)
    DECODE_INVALID = 3     # #UD

include "_vmx.pxi"
