# The operations that handlers are made for, in encoding order.

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
