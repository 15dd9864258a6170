"""Numbers and layouts of the KVM interface, and nothing else: no call is made here.

`ioctls`: the ioctl numbers; `structs`: the structures; `run`: the run page and exit reasons; `caps`: capabilities;
`flags`: flags and small numbers; `layout`: what structures are made of. All under the kernel's own names.
"""
