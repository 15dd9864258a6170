# Integers by width, and what the C compiler offers beyond the language.

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
