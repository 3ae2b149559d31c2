"""What a program really asked the allocator for, beside what its tape says: workspaces show.

Requests are compared within each component's work in a phase, because a workspace belongs to the
component whose kernel takes it. Sizes are as the allocator rounds them, to 512 bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from vramplan.compare.alignment import Steps, align
from vramplan.measurement.history import Action, History
from vramplan.quick_dataclass import dataclass

_ROUND = 512
#: differences that are kept one by one, of each place
_MOST_APART = 100

Place = tuple[str, str]  # phase, component


class Asked(NamedTuple):
    """A request for memory: the number of its event in the history, and its bytes."""

    number: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A size that one side asked for more often than the other."""

    size_bytes: int
    count: int

    @property
    def bytes(self) -> int:
        """All of them together."""
        return self.size_bytes * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """A request that one side alone makes, at or before the measured event with this `number`."""

    number: int
    phase: str
    component: str
    is_measured: bool
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceEvents:
    """One component's requests in one phase, tensors and what libraries take beside them.

    `extra` is what was measured and is not in the tape, `missing` what is in the tape only, each
    with the most bytes first; a request that comes earlier or later is neither. `is_in_order` is
    True where the matching ones come in the same order. `partings` are the first places where the
    two lists part. `scratch` is what the estimate takes libraries to ask for, which a tape does not
    have: compare it with `extra`.
    """

    phase: str
    component: str
    measured: int
    planned: int
    matched: int
    is_in_order: bool
    extra: tuple[Difference, ...]
    missing: tuple[Difference, ...]
    partings: tuple[Parting, ...]
    scratch: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryReplay:
    """What the model did with a history, beside what torch did.

    Segments are the sizes taken from the driver, in order. `first_difference` says in words where
    the two part, or is None.
    """

    segments_bytes: tuple[int, ...]
    measured_segments_bytes: tuple[int, ...]
    reserved_peak_bytes: int
    measured_reserved_peak_bytes: int
    allocated_peak_bytes: int
    first_difference: str | None

    @property
    def is_same(self) -> bool:
        """True where the model took the very segments that torch took."""
        return self.segments_bytes == self.measured_segments_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EventComparison:
    """A history beside its tape, and what the allocator model makes of it.

    `allocator` is None where the model cannot be fed with the history, and `note` says why.
    """

    places: tuple[PlaceEvents, ...]
    allocator: HistoryReplay | None
    note: str | None = None

    @property
    def measured(self) -> int:
        """Requests that were measured."""
        return sum(place.measured for place in self.places)

    @property
    def planned(self) -> int:
        """Requests of the tape."""
        return sum(place.planned for place in self.places)

    @property
    def matched(self) -> int:
        """Requests that are on both sides."""
        return sum(place.matched for place in self.places)

    @property
    def partings(self) -> tuple[Parting, ...]:
        """The first differences, in the order of the history."""
        found = [one for place in self.places for one in place.partings]
        return tuple(sorted(found, key=lambda one: one.number))


def asked_in(history: History) -> dict[Place, list[Asked]]:
    """Return a history's requests in order, by phase and component.

    What was asked for before the first mark is the pipeline's, in the phase that begins then.
    """
    marks = sorted(history.marks, key=lambda mark: mark.at)
    place = (marks[0].phase, "pipeline") if marks else ("", "pipeline")
    found: dict[Place, list[Asked]] = {}
    coming = iter(marks)
    mark = next(coming, None)
    for number, event in enumerate(history.events):
        while mark is not None and mark.at <= number:
            place = (mark.phase, mark.component)
            mark = next(coming, None)
        if event.action is Action.ALLOC and event.size_bytes:
            found.setdefault(place, []).append(Asked(number, event.size_bytes))
    return found


def compare_events(
    measured: Mapping[Place, Sequence[Asked]],
    planned: Mapping[Place, Sequence[int]],
    scratch: Mapping[Place, Sequence[int]] | None = None,
) -> tuple[PlaceEvents, ...]:
    """Return a row for each place that either side has, in the order of the measured ones."""
    places = dict.fromkeys([*measured, *planned])
    steps = Steps()
    return tuple(
        _compare(
            place,
            measured.get(place, ()),
            planned.get(place, ()),
            (scratch or {}).get(place, ()),
            steps,
        )
        for place in places
    )


def _compare(
    place: Place,
    measured: Sequence[Asked],
    planned: Sequence[int],
    scratch: Sequence[int],
    steps: Steps,
) -> PlaceEvents:
    ours = [_rounded(one.size_bytes) for one in measured]
    theirs = [_rounded(size) for size in planned]
    have, want = Counter(ours), Counter(theirs)
    matched = (have & want).total()
    apart = align(ours, theirs, steps)
    partings = tuple(
        Parting(
            number=_number(measured, one.at),
            phase=place[0],
            component=place[1],
            is_measured=one.is_ours,
            size_bytes=one.size_bytes,
        )
        for one in islice(apart, _MOST_APART)
    )
    alone = sum(one.is_measured for one in partings) + sum(one.is_ours for one in apart)
    return PlaceEvents(
        phase=place[0],
        component=place[1],
        measured=len(ours),
        planned=len(theirs),
        matched=matched,
        is_in_order=len(ours) - alone == matched,
        extra=_differences(have - want),
        missing=_differences(want - have),
        partings=partings,
        scratch=_differences(Counter(map(_rounded, scratch))),
    )


def _number(measured: Sequence[Asked], place: int) -> int:
    """Return the number of the event at a place; behind the last, the one after it."""
    if place < len(measured):
        return measured[place].number
    return measured[-1].number + 1 if measured else 0


def _differences(counted: Counter[int]) -> tuple[Difference, ...]:
    found = [Difference(size_bytes=size, count=count) for size, count in counted.items()]
    return tuple(sorted(found, key=lambda one: (-one.bytes, one.size_bytes)))


def _rounded(size_bytes: int) -> int:
    return -(-size_bytes // _ROUND) * _ROUND
