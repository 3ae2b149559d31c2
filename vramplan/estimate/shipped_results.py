"""Replay results that ship beside the tapes, so that the common questions are answered at once.

``python -m vramplan.estimate.shipped_results`` makes them anew; a test replays each of them again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from vramplan.estimate.replayed import Replayed, from_json

FILE = "results.json"

#: architectures the results are made for: one of each that differs in kernels or scratch
CAPABILITIES = ("6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


@cache
def _read(path: Path) -> dict[str, object]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def find_result(tapes: Path, key: str) -> Replayed | None:
    """Return the shipped result for `key`, or None where it has to be replayed."""
    found = _read(tapes / FILE).get(key)
    return from_json(found) if isinstance(found, dict) else None


def remembered(tapes: Path, key: str, replay: Callable[[], Replayed]) -> Replayed:
    """Return the shipped result for `key`, or what `replay` gives."""
    return find_result(tapes, key) or replay()
