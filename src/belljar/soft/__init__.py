"""The soft engine: a VT-x processor written in compiled Python, and a small hypervisor that drives it."""
