# Predecoded instructions and the blocks they are kept in.

ctypedef struct Cpu
ctypedef struct Insn
ctypedef struct Block

# One predecoded instruction. Tail-threaded: handler(cpu, insn) ends by `return (insn+1).handler(cpu, insn+1)`.
ctypedef int (*Handler)(Cpu *cpu, Insn *insn) noexcept nogil
# An operation that runs with everything synchronized and may do anything; see complex_insn in core/run.py.
ctypedef int (*Operation)(Cpu *cpu, Insn *insn) noexcept nogil

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
