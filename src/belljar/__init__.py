"""belljar: the hypervisor you can see into."""

__version__ = "0.1.0"
