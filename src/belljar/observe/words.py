"""Numbers as people read them; shared by everything that shows."""

from __future__ import annotations


def data_size(size: int) -> str:
    """`16 MiB`, `4 KiB`, `18 bytes`: the largest unit that divides the size."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return plural(size, "byte")


def about(size: int) -> str:
    """A size for the eye: `15.9 MiB`."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}".replace(".0 ", " ")
    return plural(size, "byte")


def plural(count: int, one: str, many: str = "") -> str:
    """`1 page`, `2 pages`."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def address(value: int | None) -> str:
    """In hexadecimal, `-` for none."""
    return "-" if value is None else f"{value:#x}"


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as aligned columns, the first row being the names of the columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def span(first: int, last: int) -> str:
    """A range of addresses, both ends included."""
    return f"{first:#x}..{last:#x}"


def character(value: int | None, size: int | None) -> str:
    """` 'H'` for a single printable ASCII byte, else nothing."""
    if size == 1 and value is not None and 0x20 <= value < 0x7F:
        return f" {chr(value)!r}"
    return ""
