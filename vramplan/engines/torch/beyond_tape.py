"""A tape carried on beyond the settings that it was proved for: assumed, and without a jump.

Its expressions give a size at any settings, so the run is replayed where it is asked for. What is
not known there is whether the code still does the same. So what the budget grows by, from the last
settings on the way from the entry's defaults at which the tape holds, is taken for known by no
more than itself: it may be none, or twice as much. Where the tape ends the band is as narrow as
inside of it, and the further away the wider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vramplan.engines.torch.facts import numbers_at
from vramplan.engines.torch.tape.contents import Tape
from vramplan.errors import TapeError
from vramplan.model import (
    Band,
    Estimate,
    LineKind,
    Origin,
    Settings,
    SettingValue,
)
from vramplan.quick_dataclass import replace

#: places on the way from the defaults to what is asked for
_PLACES = 1 << 10

_CARRIED_ON = "carried on"
_WHY = "what it grows by from there on is not proved: none of it, or twice as much"


def estimate_beyond(
    tape: Tape, defaults: Settings, settings: Settings, estimate: Callable[[Settings], Estimate]
) -> Estimate | None:
    """Return the budget by a tape beyond where it holds; None where it cannot be carried on.

    `estimate` replays it at any settings, and raises TapeError where it has no code for them. What
    a tape was recorded at one value of is in none of its expressions: it says nothing of others.
    """
    if _is_at_another(tape, settings):
        return None
    edge = last_inside(tape, defaults, settings)
    if edge is None:
        return None
    try:
        there, last = estimate(settings), estimate(edge)
    except TapeError:
        return None
    shown = ", ".join(
        f"{key} {shown_setting(edge[key])}" for key in edge if edge[key] != settings[key]
    )
    why = f"tape {tape.pipeline}, which holds at {shown}, {_CARRIED_ON}: {_WHY}"
    less_bytes, more_bytes = _unproved(there.need.band, last.need.band, _direction(edge, settings))
    return _widened(there, less_bytes, more_bytes, why)


def _unproved(there: Band, last: Band, direction: int) -> tuple[int, int]:
    """Return by how much less and more may be needed than a replay says where nothing is proved.

    That is what it grows by. Of more images, pixels, frames or tokens no tensor is smaller than
    where the tape ends, of fewer none is larger: by how much a need falls there, or rises, the
    allocator alone decides, and no more of it is to be expected.
    """
    growth_bytes = abs(there.expected_bytes - last.expected_bytes)
    low, high = there.low_bytes - growth_bytes, there.high_bytes + growth_bytes
    if direction > 0:
        low, high = max(low, min(there.low_bytes, last.low_bytes)), max(high, last.high_bytes)
    elif direction < 0:
        high = min(high, max(there.high_bytes, last.high_bytes))
    return there.low_bytes - low, high - there.high_bytes


def _direction(edge: Settings, settings: Settings) -> int:
    """Return 1 where no setting is less than another's, -1 where none is more, else 0."""
    pairs = [
        (one, other) for key, value in edge.items() for one, other in _numbers(value, settings[key])
    ]
    if all(one <= other for one, other in pairs):
        return 1
    return -1 if all(one >= other for one, other in pairs) else 0


def _numbers(one: SettingValue, other: SettingValue) -> list[tuple[int, int]]:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return list(zip(one, other, strict=True))
    return [(one, other)] if type(one) is int and type(other) is int else []


def is_carried_on(estimate: Estimate) -> bool:
    """Return whether a budget is by a tape beyond where it holds."""
    return any(f"{_CARRIED_ON}: " in line.source for line in estimate.lines)


def last_inside(tape: Tape, start: Settings, goal: Settings) -> Settings | None:
    """Return the last settings on the way from `start` to `goal` at which a tape holds.

    Whole numbers and an image's sides go together, each as far along its own way. None where the
    tape does not hold at the start.
    """
    steps = _steps(tape)

    def at(place: int) -> dict[str, SettingValue]:
        return {
            key: _between(start.get(key, value), value, place, steps.get(key, 1))
            for key, value in goal.items()
        }

    def holds(place: int) -> bool:
        return tape.outside(numbers_at(at(place))) is None

    if not holds(0):
        return None
    inside, outside = 0, _PLACES
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if holds(middle):
            inside = middle
        else:
            outside = middle
    return at(inside)


def _is_at_another(tape: Tape, settings: Settings) -> bool:
    """Return whether settings differ from the one value of them that a tape was recorded at."""
    numbers = numbers_at(settings)
    return any(
        low == high and tape.dims.get(text) in numbers and numbers[tape.dims[text]] != low
        for text, (low, high) in tape.domain.items()
    )


def _steps(tape: Tape) -> Mapping[str, int]:
    """Return of what an image's sides, and frames less one, are multiples where a tape holds."""
    found: dict[str, int] = {}
    for text in tape.domain:
        name, _, step = text.partition("%")
        if step.isdigit():
            setting = tape.dims.get(name, name)
            key = "image" if setting in ("width", "height") else setting
            found[key] = max(found.get(key, 1), int(step))
    return found


def _between(start: SettingValue, goal: SettingValue, place: int, step: int) -> SettingValue:
    """Return a value on the way, from one that is a step's multiple by whole steps."""
    if isinstance(start, tuple) and isinstance(goal, tuple):
        width, height = (
            _number(one, other, place, step) for one, other in zip(start, goal, strict=True)
        )
        return width, height
    if type(start) is int and type(goal) is int:
        return _number(start, goal, place, step)
    return goal


def _number(start: int, goal: int, place: int, step: int) -> int:
    way = (
        (goal - start) * place // _PLACES if goal > start else -((start - goal) * place // _PLACES)
    )
    return start + (way // step if way >= 0 else -(-way // step)) * step


def _widened(found: Estimate, less_bytes: int, more_bytes: int, why: str) -> Estimate:
    """Return an estimate whose activations may be so much less or more; its lines still add up."""
    # adapters' results and unpacked matrices are lines of their own, and of the same kind
    at = next(n for n, line in enumerate(found.lines) if line.kind is LineKind.ACTIVATIONS)
    line = found.lines[at]
    wider = replace(
        line,
        band=_wider(line.band, min(less_bytes, line.band.low_bytes), more_bytes),
        origin=Origin.ASSUMED,
        source=why,
    )
    lines = (*found.lines[:at], wider, *found.lines[at + 1 :])
    less = sum(a.band.low_bytes - b.band.low_bytes for a, b in zip(found.lines, lines, strict=True))
    need = replace(found.need, band=_wider(found.need.band, less, more_bytes))
    peak = replace(found.peak, device=_wider(found.peak.device, less, more_bytes))
    return replace(found, lines=lines, need=need, peak=peak)


def _wider(band: Band, less_bytes: int, more_bytes: int) -> Band:
    return Band(
        low_bytes=max(0, band.low_bytes - less_bytes),
        expected_bytes=band.expected_bytes,
        high_bytes=band.high_bytes + more_bytes,
    )


def shown_setting(value: SettingValue) -> str:
    """Return a setting's value as it is written."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
