"""The sample guests: each a short commented listing beside its bytes, in a file of its own."""

from belljar.samples.registry import NAMES, get, unknown
from belljar.samples.sample import LOAD_GPA, Line, Sample

__all__ = ["LOAD_GPA", "NAMES", "Line", "Sample", "get", "unknown"]
