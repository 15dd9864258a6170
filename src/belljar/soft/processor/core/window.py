"""The window to devices: how one instruction is carried out when some of its operands lie in a device.

The hypervisor opens the window, runs one instruction, and closes it. Meanwhile an access to guest-physical memory that
the EPT does not back is put to the window's Python object, in the order and with the sizes in which the processor makes
them. Methods of that object:

    resolve(gpa, wanted) -> bool     True: memory was mapped there, look again. False: it is a device's.
    read(gpa, size) -> int           1 to 8 bytes
    write(gpa, size, value)
    port_read(port, size) -> int
    port_write(port, size, value)

What they raise is kept in its attribute `failure` (the first, if several) and ends the run with PAUSE_FAILED after the
instruction. After an access the instruction
ends as soon as it can: a repeated string instruction after one iteration.
"""

import cython


@cython.cfunc
def window_raised(cpu: cython.pointer(Cpu), window: object, failure: object):
    """Keep the first exception of a run for whoever made the window; the instruction is given up."""
    if window.failure is None:
        window.failure = failure
    cpu.window_failed = 1


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def window_resolve(cpu: cython.pointer(Cpu), gpa: u64, wanted: u32) -> cython.int:
    """1 after memory was mapped at `gpa`, 0 for a device, -1 after an exception."""
    window = cython.cast(object, cpu.window)
    try:
        return 1 if window.resolve(gpa, wanted) else 0
    except BaseException as failure:
        window_raised(cpu, window, failure)
        return -1


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def window_read(cpu: cython.pointer(Cpu), gpa: u64, size: cython.int) -> u64:
    """What the device answers; all ones after an exception, which sets window_failed."""
    window = cython.cast(object, cpu.window)
    try:
        return window.read(gpa, size)
    except BaseException as failure:
        window_raised(cpu, window, failure)
        return ALL_ONES


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def window_write(cpu: cython.pointer(Cpu), gpa: u64, size: cython.int, value: u64) -> cython.void:
    """Hand a store to the device."""
    window = cython.cast(object, cpu.window)
    try:
        window.write(gpa, size, value)
    except BaseException as failure:
        window_raised(cpu, window, failure)


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def window_port_read(cpu: cython.pointer(Cpu), port: u32, size: cython.int) -> u64:
    """INS: what the port answers."""
    window = cython.cast(object, cpu.window)
    try:
        return window.port_read(port, size)
    except BaseException as failure:
        window_raised(cpu, window, failure)
        return ALL_ONES


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def window_port_write(cpu: cython.pointer(Cpu), port: u32, size: cython.int, value: u64) -> cython.void:
    """OUTS: hand one item to the port."""
    window = cython.cast(object, cpu.window)
    try:
        window.port_write(port, size, value)
    except BaseException as failure:
        window_raised(cpu, window, failure)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def window_touched(cpu: cython.pointer(Cpu)) -> cython.void:
    """Make a repeated string instruction stop after this iteration: vmx_events then ends the run."""
    cpu.window_used = 1
    fetch_or32(cython.address(cpu.kicked), KICK_WINDOW)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def device_load(cpu: cython.pointer(Cpu), gpa: u64, size: cython.int, place: cython.pointer(u8)) -> cython.void:
    """Read a device, at most 8 bytes at a time; after an exception all ones, and the run ends after the instruction."""
    piece: cython.int
    value: u64
    while size > 0:
        piece = 8 if size > 8 else size
        charge_exit(cpu)
        value = window_read(cpu, gpa, piece)
        window_touched(cpu)
        memcpy(place, cython.address(value), piece)
        place += piece
        gpa += piece
        size -= piece


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def device_store(cpu: cython.pointer(Cpu), gpa: u64, size: cython.int, place: cython.pointer(u8)) -> cython.void:
    """Write a device, at most 8 bytes at a time. An exception shows after the instruction, which is done by then."""
    piece: cython.int
    value: u64
    while size > 0:
        piece = 8 if size > 8 else size
        value = 0
        memcpy(cython.address(value), place, piece)
        charge_exit(cpu)
        window_write(cpu, gpa, piece, value)
        window_touched(cpu)
        place += piece
        gpa += piece
        size -= piece
