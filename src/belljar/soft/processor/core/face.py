"""What Python sees: host memory and processors."""

import cython


@cython.cclass
class HostMemory:
    """Host-physical memory."""

    host: cython.pointer(Host)

    def __cinit__(self):
        self.host = cython.cast(cython.pointer(Host), calloc(1, cython.sizeof(Host)))
