"""The hardware of the soft engine: an x86-64 processor with VT-x, in compiled Python (Cython 3, pure Python mode).

`core/*.py` are the readable sources. `assemble.py` puts them together into one unit, `_core.py`, which Cython and the C
compiler turn into one extension module, so that everything on the hot path can be inlined into everything else.
"""
