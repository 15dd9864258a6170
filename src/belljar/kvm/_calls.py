"""System calls that the standard library cannot make as the binding needs them. Compiled.

`fcntl.ioctl` takes integers of 31 bits only (KVM_SET_TSS_ADDR wants 32, KVM_CREATE_VM's kind may be 64), copies small
buffers twice and raises for every failure; this one passes what it is given and returns the kernel's answer.
"""

# ruff: noqa: F821  (a Py_buffer that is declared, then filled in; a name of _calls.pxd)

import cython
from cython.cimports.cpython.buffer import (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.errno import errno
from cython.cimports.libc.string import memcpy
from cython.cimports.posix.ioctl import ioctl as c_ioctl


def ioctl(fd: cython.int, request: cython.ulong, argument) -> cython.long:
    """ioctl(2), the GIL released. `argument` is an integer or a writable buffer; the answer is the call's, or -errno."""
    result: cython.long
    number: cython.ulong
    buffer: cython.Py_buffer
    if isinstance(argument, int):
        number = argument
        with cython.nogil:
            result = c_ioctl(fd, request, number)
            if result < 0:
                result = -errno
        return result
    PyObject_GetBuffer(argument, cython.address(buffer), PyBUF_WRITABLE)
    with cython.nogil:
        result = c_ioctl(fd, request, buffer.buf)
        if result < 0:
            result = -errno
    PyBuffer_Release(cython.address(buffer))
    return result


def address_of(data) -> cython.ulong:
    """The host-virtual address of a buffer's first byte. The caller keeps the buffer alive while the address is in use."""
    buffer: cython.Py_buffer
    address: cython.ulong
    PyObject_GetBuffer(data, cython.address(buffer), PyBUF_SIMPLE)
    address = cython.cast(cython.ulong, buffer.buf)
    PyBuffer_Release(cython.address(buffer))
    return address


def read_memory(hva: cython.ulong, size: cython.Py_ssize_t) -> bytes:
    """A copy of this process's own memory. The caller vouches that the range is mapped."""
    return PyBytes_FromStringAndSize(cython.cast(cython.p_char, hva), size)


def write_memory(hva: cython.ulong, data: bytes) -> None:
    """Copy to this process's own memory. The caller vouches that the range is mapped and may be written."""
    memcpy(cython.cast(cython.p_void, hva), PyBytes_AS_STRING(data), len(data))


def read_tsc() -> int:
    """The host's time-stamp counter (RDTSC, SDM 2B)."""
    return host_rdtsc()
