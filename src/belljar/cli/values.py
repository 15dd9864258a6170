"""What users write as option values: numbers, sizes, registers, times. Each parser raises ValueError with one phrase."""

from __future__ import annotations

import math
import re

MAX_SECONDS = 1e9
"""Thirty years: enough for any limit, and safe in nanoseconds."""

MAX_LIMIT = 1_000_000
"""A million told switches are some hundred megabytes."""

# Compiled at their first use, which most runs never come to.
_NUMBER = r"(?ai)[+-]?(0x[0-9a-f]{1,16}|0b[01]{1,64}|0o[0-7]{1,22}|[0-9]{1,20})"
_SIZE = r"(?ai)(0x[0-9a-f]{1,16}|[0-9]{1,20})([KMGT]?)(?:iB|B)?"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def number(text: str) -> int:
    """A whole number: decimal, 0x, 0o or 0b, possibly negative."""
    if not re.fullmatch(_NUMBER, text):
        raise ValueError(f"{text!r} is not a number (write 4096 or 0x1000)")
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-")
    return sign * (int(digits) if digits.isdecimal() else int(digits, 0))


def address(text: str) -> int:
    """A 64-bit address."""
    value = number(text)
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{text} is not a 64-bit address")
    return value


def size(text: str) -> int:
    """A size in bytes: a number, with K, M, G or T for powers of 1024."""
    match = re.fullmatch(_SIZE, text)
    if match is None:
        raise ValueError(f"{text!r} is not a size (write 64K, 16M, 1G or bytes)")
    digits, unit = match.groups()
    return (int(digits, 16) if digits[:2].lower() == "0x" else int(digits)) * _UNITS[unit.upper()]


def register(text: str) -> tuple[str, int]:
    """NAME=VALUE; whether there is such a register, and whether the value fits it, the machine knows."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text!r} is not NAME=VALUE (write rax=42)")
    return name, number(value)


def names(text: str) -> tuple[str, ...]:
    """NAME or NAME,NAME; what they may be, the machine knows."""
    found = tuple(name.strip() for name in text.split(","))
    if not all(found):
        raise ValueError(f"{text!r} is not NAME or NAME,NAME")
    return found


def host_cpus(text: str) -> tuple[int, ...]:
    """CPU or CPU,CPU: numbers of host CPUs; whether they are there, the machine finds out."""
    return tuple(count_or_none(item.strip()) for item in text.split(","))


def module(text: str) -> tuple[str, str]:
    """FILE or FILE=TEXT; the file's name ends at the first equals sign."""
    path, _, words = text.partition("=")
    if not path:
        raise ValueError(f"{text!r} names no file (write FILE or FILE=TEXT)")
    return path, words


def seconds(text: str) -> float:
    """A time limit above zero."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of seconds") from None
    if not (math.isfinite(value) and 0 < value <= MAX_SECONDS):
        raise ValueError(f"{text} seconds will not do (above 0, at most {MAX_SECONDS:.0f})")
    return value


def count(text: str) -> int:
    """A number of things, at least one."""
    value = number(text)
    if not 1 <= value < 1 << 63:
        raise ValueError(f"{text} will not do (1 or more)")
    return value


def count_or_none(text: str) -> int:
    """A number of things, possibly zero."""
    value = number(text)
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{text} will not do (0 or more)")
    return value


def limit(text: str) -> int:
    """How many things to tell one by one: so many that they still fit in memory."""
    value = number(text)
    if not 0 <= value <= MAX_LIMIT:
        raise ValueError(f"{text} will not do (0 to {MAX_LIMIT})")
    return value
