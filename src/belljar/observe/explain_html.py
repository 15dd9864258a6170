"""An explanation as one HTML page with pictures that needs nothing else; whatever the guest wrote is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from belljar.observe.explain_model import Explanation
from belljar.observe.interrupt_tables import interrupt_tables
from belljar.observe.pictures import memory_map, table_tree, timeline
from belljar.observe.words import address, character, data_size, plural, span

TEMPLATES = Path(__file__).parent / "templates"


def explain_page(found: Explanation) -> str:
    """The page's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(hva=address, bytes=data_size, hexadecimal=_hexadecimal)
    environment.globals.update(span=span, plural=plural, character=character)
    template = environment.get_template("explain.html.j2")
    return template.render(
        found=found,
        memory_map=memory_map(found),
        trees=[table_tree(paging) for paging in found.paging],
        timeline=timeline(found),
        interrupts=interrupt_tables(found.interrupts) if found.interrupts is not None else [],
        register_names=found.vcpus[0].end.registers.__slots__,
    )


def _hexadecimal(value: Any) -> str:
    return "" if value is None else f"{value:#x}"
