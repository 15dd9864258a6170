"""The processor: one compiled unit, assembled from `core/*.py` (see `assemble.py`). This is its first part.

Structures, status codes and numbers stand in `declarations/`. Functions of the core never raise and never hold the GIL; each
one on the hot path carries the three decorators that make it a plain C function.
"""

import cython
from cython.cimports.libc.stdint import int8_t as i8
from cython.cimports.libc.stdint import int16_t as i16
from cython.cimports.libc.stdint import int32_t as i32
from cython.cimports.libc.stdint import int64_t as i64
from cython.cimports.libc.stdint import uint8_t as u8
from cython.cimports.libc.stdint import uint16_t as u16
from cython.cimports.libc.stdint import uint32_t as u32
from cython.cimports.libc.stdint import uint64_t as u64
from cython.cimports.libc.stdlib import calloc, free, malloc, realloc
from cython.cimports.libc.string import memcmp, memcpy, memmove, memset
