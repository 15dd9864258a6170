"""KVM's paravirtual interface (kernel Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst), a part of it a file.

`interfaces.py` puts the parts together: what is in its table exists, and what exists CPUID tells.
"""
