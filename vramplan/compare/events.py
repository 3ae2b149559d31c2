"""What a program really asked the allocator for, beside what its tape says: workspaces show.

Requests are compared within each component's work in a phase, because a workspace belongs to the
component whose kernel takes it. Sizes are as the allocator rounds them, to 512 bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

#: sequences up to this long are aligned in order; longer ones are compared as collections
_LONGEST_ALIGNED = 20_000
_ROUND = 512

Place = tuple[str, str]  # phase, component


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A size that one side asked for more often than the other."""

    size_bytes: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceEvents:
    """One component's requests in one phase.

    `extra` is what was measured and is not in the tape, `missing` what is in the tape only, each
    with the most bytes first. `is_in_order` is True where the matching ones come in the same order.
    """

    phase: str
    component: str
    measured: int
    planned: int
    matched: int
    is_in_order: bool
    extra: tuple[Difference, ...]
    missing: tuple[Difference, ...]


def compare_events(
    measured: Mapping[Place, Iterable[int]], planned: Mapping[Place, Iterable[int]]
) -> tuple[PlaceEvents, ...]:
    """Return a row for each place that either side has, in the order of the measured ones."""
    places = dict.fromkeys([*measured, *planned])
    return tuple(
        _compare(place, measured.get(place, ()), planned.get(place, ())) for place in places
    )


def _compare(place: Place, measured: Iterable[int], planned: Iterable[int]) -> PlaceEvents:
    ours, theirs = [_rounded(size) for size in measured], [_rounded(size) for size in planned]
    have, want = Counter(ours), Counter(theirs)
    matched = (have & want).total()
    return PlaceEvents(
        phase=place[0],
        component=place[1],
        measured=len(ours),
        planned=len(theirs),
        matched=matched,
        is_in_order=_aligned(ours, theirs) == matched,
        extra=_differences(have - want),
        missing=_differences(want - have),
    )


def _aligned(ours: list[int], theirs: list[int]) -> int:
    """Return how many requests match in order, without the ones that stand elsewhere."""
    if max(len(ours), len(theirs)) > _LONGEST_ALIGNED:
        return -1
    if ours == theirs:
        return len(ours)
    blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks)


def _differences(counted: Counter[int]) -> tuple[Difference, ...]:
    found = [Difference(size_bytes=size, count=count) for size, count in counted.items()]
    return tuple(sorted(found, key=lambda one: (-one.size_bytes * one.count, one.size_bytes)))


def _rounded(size_bytes: int) -> int:
    return -(-size_bytes // _ROUND) * _ROUND
