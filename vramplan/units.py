"""Bytes as people write and read them.

A size on the command line names its base: ``8GB`` is 8·10⁹ bytes, ``8GiB`` is 8·2³⁰, and ``8G`` is
refused because half of its readers would be wrong.
"""

from __future__ import annotations

import re

from vramplan.errors import UsageError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": KIB, "mib": MIB, "gib": GIB}
_SIZE = r"(?ai)([+-]?)([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([a-z]{0,3})"


def parse_size(text: str) -> int:
    """Return the bytes that `text` (``512MiB``, ``1.5GB``) stands for.

    Raises UsageError for a negative size, a bare number and the ambiguous ``8G``.
    """
    match = re.fullmatch(_SIZE, text.strip())
    if not match:
        raise UsageError(
            f"not a size: {text!r}", hint="write a number and a unit, such as 512MiB or 1.5GiB"
        )
    sign, number, unit = match.groups()
    if sign == "-":
        raise UsageError(f"a size cannot be negative: {text!r}")
    factor = _UNITS.get(unit.lower())
    if factor is None:
        raise UsageError(f"unclear unit in size {text!r}", hint=_readings(number, unit))
    return int(float(number) * factor) if "." in number else int(number) * factor


def _readings(number: str, unit: str) -> str:
    letter = unit.upper()
    if letter in ("K", "M", "G"):
        exponent = {"K": 3, "M": 6, "G": 9}[letter]
        binary = {"K": 10, "M": 20, "G": 30}[letter]
        decimal_bytes = float(number) * 10**exponent
        binary_bytes = float(number) * 2**binary
        return (
            f"write {number}{letter}B for {decimal_bytes:,.0f} bytes "
            f"or {number}{letter}iB for {binary_bytes:,.0f} bytes"
        )
    return "known units: B, kB, MB, GB, KiB, MiB, GiB"


def format_size(size_bytes: int, *, up: bool | None = None) -> str:
    """Return `size_bytes` for a person: MiB below 10 GiB, GiB with two decimals above.

    `up=True` rounds up (a need), `up=False` down (what is available), None to nearest.
    """
    if size_bytes < 0:
        return "-" + format_size(-size_bytes, up=None if up is None else not up)
    if size_bytes >= 10 * GIB:
        hundredths = _divide(size_bytes * 100, GIB, up)
        return f"{hundredths / 100:,.2f} GiB"
    return f"{_divide(size_bytes, MIB, up):,} MiB"


def _divide(size: int, unit: int, up: bool | None) -> int:
    if up is None:
        return (size + unit // 2) // unit
    return -(-size // unit) if up else size // unit
