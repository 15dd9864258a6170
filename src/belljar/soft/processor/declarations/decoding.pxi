# The opcode tables and the decoder's state.

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
