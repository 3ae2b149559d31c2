"""Sizes as nvidia-smi prints them: whole MiB, which drivers before 331 called MB."""

from __future__ import annotations

import re

from vramplan.units import MIB

_SIZE = re.compile(r"(\d{1,9})(?:\.\d{1,3})?\s*(KiB|KB|MiB|MB|GiB|GB)?", re.ASCII)
_UNITS = {"K": MIB // 1024, "M": MIB, "G": MIB * 1024}


def size_bytes(text: str | None) -> int | None:
    """Return the bytes of ``123 MiB`` or ``123``; None for N/A and what else is no size."""
    found = _SIZE.fullmatch((text or "").strip())
    return int(found[1]) * _UNITS[(found[2] or "M")[0]] if found else None


def whole_number(text: str | None, digits: int = 9) -> int | None:
    """Return the number that `text` is, of at most so many digits, or None."""
    word = (text or "").strip()
    return int(word) if word.isascii() and word.isdigit() and len(word) <= digits else None
