"""Hyper-V's interface for guests, the basic part (Hypervisor Top-Level Functional Specification, TLFS), a part of it a file.

`table.py` is the list of parts, `partition.py` what belongs to the whole VM, `cpuid.py` what the guest is told of it all.
"""
