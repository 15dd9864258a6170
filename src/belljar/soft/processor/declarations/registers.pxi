# Registers: general ones by number, RFLAGS, control registers, and where Insn finds them in Cpu.

cdef enum:
    RAX = 0
    RCX = 1
    RDX = 2
    RBX = 3
    RSP = 4
    RBP = 5
    RSI = 6
    RDI = 7

cdef enum:  # byte offsets into Cpu of 8-byte slots, as Insn names operands
    SLOT_ZERO = 128
    SLOT_RIP = 136
    SLOT_BASE = 144   # + 8 * segment
    SLOT_BIG = 208    # the constant 0x40000000

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
