"""`python -m benchmarks [PART ...] [--json FILE]`: run the benchmarks and keep what they found."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.harness import Figure, save

PARTS = ("kvm", "interrupts", "ticks", "soft", "kernels")
"""The parts, each a module with `measure() -> list[Figure]`."""


def main() -> None:
    """Run the parts asked for, or all; print a line a figure and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which to run (all)")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"), help="where the figures go")
    options = parser.parse_args()
    figures: list[Figure] = []
    for part in options.parts or PARTS:
        for figure in importlib.import_module(f"benchmarks.{part}").measure():
            print(figure.line(), flush=True)
            figures.append(figure)
    save(options.json, figures)
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
