"""Replay results that ship beside the tapes, so that the common questions are answered at once.

They are made for every torch pipeline that ships with a tape, at the catalogue's default settings,
on every architecture that differs in kernels or scratch; those that do not differ share a result.
``python -m tools.results`` makes them anew; a test replays each of them again. A result that is
damaged, or not of this form, is none: what it would say is replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from vramplan.catalog.shipped import profiles_dir
from vramplan.codec import Json, JsonError, Limits, read_object, text_of, whole
from vramplan.engines.torch.result import PartWeights, Replayed, Scenario
from vramplan.engines.torch.tape.trace import Mark

FILE = "results.json"
_LIMITS = Limits()
#: no figure of a result is beyond this
_LARGEST = 1 << 60
_LONGEST = 200

#: architectures the results are made for: one of each that differs in kernels or scratch
CAPABILITIES = ("6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

#: results of this process: cards of one architecture share them
_made: dict[tuple[Path, str], Replayed] = {}
_MOST_MADE = 256
_RESTS_BYTES = 20 << 20


@lru_cache(maxsize=8)
def _read(path: Path) -> dict[str, Json]:
    try:
        return read_object(path, _LIMITS)
    except JsonError:
        return {}


def find_result(tapes: Path, key: str) -> Replayed | None:
    """Return the shipped result for `key`, or None where it has to be replayed."""
    found = _read(tapes / FILE).get(key)
    return None if found is None else from_json(found)


def was_replayed(tapes: Path, tape_key: str) -> bool:
    """True for a tape of ours, as it stood when the results that ship were made from it.

    Whoever can write among our files could change the code; the checksum is against accidents.
    """
    if tapes != profiles_dir() / "tapes":
        return False
    return any(key.startswith(f"{tape_key} ") for key in _read(tapes / FILE))


def remembered(tapes: Path, key: str, replay: Callable[[], Replayed]) -> Replayed:
    """Return the shipped result for `key`, or what `replay` gives, once a process."""
    if (tapes, key) not in _made:
        _made[tapes, key] = find_result(tapes, key) or replay()
    found = _made[tapes, key]
    while len(_made) > _MOST_MADE:
        del _made[next(iter(_made))]  # the oldest
    return found


def forget() -> None:
    """Forget the results of this process."""
    _made.clear()


def from_json(raw: object) -> Replayed | None:
    """Return the result that `to_json` wrote; None for anything that it cannot have written."""
    try:
        result = _result(raw)
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return result if _holds_together(result) else None


def _result(raw: object) -> Replayed:
    if not isinstance(raw, dict):
        raise TypeError("a result is a mapping")
    low, expected, high = (_scenario(row) for row in _rows(raw["scenarios"]))
    weights = [
        tuple((text_of(name, _LONGEST), whole(size, _LARGEST)) for name, size in _rows(there))
        for there in _rows(raw["weights"])
    ]
    return Replayed(
        low=low,
        expected=expected,
        high=high,
        marks=tuple(_mark(row, weights) for row in _rows(raw["marks"])),
        warm_reserved_peak_bytes=whole(raw["warm"], _LARGEST),
        parts=tuple(_part(row) for row in _rows(raw["parts"])),
    )


def _holds_together(result: Replayed) -> bool:
    """True where the figures are in the order that replays give them.

    With more workspace other free blocks are taken, each of which may be given whole or cut: what
    is allocated may be some blocks' rests less, below 1 MiB each.
    """
    low, expected, high = result.low, result.expected, result.high
    totals = _sums((part.component, part.weights_bytes) for part in result.parts)
    return (
        bool(result.marks)
        and low.allocated_peak_bytes <= expected.allocated_peak_bytes + _RESTS_BYTES
        and all(s.allocated_peak_bytes <= s.reserved_peak_bytes for s in (low, expected, high))
        and all(totals.get(name, 0) > 0 for mark in result.marks for name, _ in mark.weights)
    )


def _sums(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for name, size in pairs:
        totals[name] = totals.get(name, 0) + size
    return totals


def _scenario(row: Sequence[object]) -> Scenario:
    allocated, reserved, limit, phase, component = row
    return Scenario(
        allocated_peak_bytes=whole(allocated, _LARGEST),
        reserved_peak_bytes=whole(reserved, _LARGEST),
        least_limit_bytes=whole(limit, _LARGEST),
        phase=text_of(phase, _LONGEST),
        component=text_of(component, _LONGEST),
    )


def _mark(row: Sequence[object], weights: Sequence[tuple[tuple[str, int], ...]]) -> Mark:
    phase, component, allocated_peak, reserved_peak, allocated, reserved, there = row
    return Mark(
        phase=text_of(phase, _LONGEST),
        component=text_of(component, _LONGEST),
        allocated_peak_bytes=whole(allocated_peak, _LARGEST),
        reserved_peak_bytes=whole(reserved_peak, _LARGEST),
        allocated_bytes=whole(allocated, _LARGEST),
        reserved_bytes=whole(reserved, _LARGEST),
        weights=weights[whole(there, _LARGEST)],
    )


def _part(row: Sequence[object]) -> PartWeights:
    name, component, parameters, size = row
    return PartWeights(
        name=text_of(name, _LONGEST),
        component=text_of(component, _LONGEST),
        parameters=whole(parameters, _LARGEST),
        weights_bytes=whole(size, _LARGEST),
    )


def _rows(value: object) -> list[list[object]]:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise TypeError("not a list of lists")
    return value
