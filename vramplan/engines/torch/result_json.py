"""A replay's result as JSON: written, and read from where a stranger may have written it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vramplan.codec import Json, text_of, whole
from vramplan.engines.torch.result import LeastLimits, PartWeights, Replayed, Scenario
from vramplan.engines.torch.tape.mark import Mark

#: no figure of a result is beyond this
_RESTS_BYTES = 20 << 20
_LARGEST = 1 << 60
_LONGEST = 200


def to_json(result: Replayed) -> Json:
    """Return the result as JSON-ready lists; a mark names the weights that were there by place."""
    scenarios = (result.low, result.expected, result.high)
    weights = list(dict.fromkeys(mark.weights for mark in result.marks))
    return {
        "scenarios": [
            [
                s.allocated_peak_bytes,
                s.reserved_peak_bytes,
                s.least_limit_bytes,
                s.phase,
                s.component,
            ]
            for s in scenarios
        ],
        "marks": [
            [
                m.phase,
                m.component,
                m.allocated_peak_bytes,
                m.reserved_peak_bytes,
                m.allocated_bytes,
                m.reserved_bytes,
                weights.index(m.weights),
            ]
            for m in result.marks
        ],
        "weights": [[list(pair) for pair in there] for there in weights],
        "warm": result.warm_reserved_peak_bytes,
        "parts": [[p.name, p.component, p.parameters, p.weights_bytes] for p in result.parts],
        "asked": result.is_asked,
    }


def from_json(raw: object) -> Replayed | None:
    """Return the result that `to_json` wrote; None for anything that it cannot have written."""
    try:
        result = _result(raw)
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return result if _holds_together(result) else None


def limits_to_json(limits: LeastLimits) -> Json:
    """Return least limits as a JSON-ready list."""
    sizes = (limits.low_bytes, limits.expected_bytes, limits.high_bytes)
    return [*sizes, limits.phase, limits.component]


def limits_from_json(raw: object) -> LeastLimits | None:
    """Return what `limits_to_json` wrote; None for anything that it cannot have written."""
    try:
        (low, expected, high, phase, component), *_ = _rows([raw])
        return LeastLimits(
            low_bytes=whole(low, _LARGEST),
            expected_bytes=whole(expected, _LARGEST),
            high_bytes=whole(high, _LARGEST),
            phase=text_of(phase, _LONGEST),
            component=text_of(component, _LONGEST),
        )
    except (TypeError, ValueError):
        return None


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
        is_asked=_yes_or_no(raw["asked"]),
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


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


def _rows(value: object) -> list[list[object]]:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise TypeError("not a list of lists")
    return value
