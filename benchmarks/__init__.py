"""Measurements against yardsticks: `make bench`, or `python -m benchmarks kvm` for one part."""
