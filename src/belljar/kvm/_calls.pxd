# What _calls.py takes from the compiler's headers.

cdef extern from "<x86intrin.h>":
    unsigned long long host_rdtsc "__rdtsc"() nogil
