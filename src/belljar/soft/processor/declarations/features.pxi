# Features that can be switched off; features.py has the same by name.

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
