"""Facts of the x86 architecture: no I/O, no state. Everything here is true on every engine."""
