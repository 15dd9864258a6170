"""What KVM's kernel side does, in Python on the soft processor: VMCS, exit handlers, memory virtualization, events.

`vcpu.py` runs a vCPU; `handlers/` has one file for each kind of VM exit and one table from reasons to handlers; `mmu/`
answers where guest-physical memory is.
"""
