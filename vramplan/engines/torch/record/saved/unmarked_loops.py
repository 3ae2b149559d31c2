"""Loops that nobody marked: what one run does more often than another is found by comparing them.

Code goes over the images of a batch, the frames of a video or the windows of an image one by one,
and no hook says so. Where a run at larger settings does again what it and the smaller run have just
done, and goes on as that one does, that is one more iteration of a loop. Where the loop begins is
told by the run at the smallest settings: there it is one iteration long. That it is a loop, how
often it runs and what it frees is proved as for any other (`assemble`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vramplan.engines.torch.record.stream import (
    Alloc,
    Birth,
    Call,
    Event,
    Free,
    LoopBegin,
    LoopEnd,
    LoopNext,
    Phase,
    Stream,
    Workspace,
)
from vramplan.errors import RecordingError

Token = tuple[Any, ...]
#: so many steps after an iteration have to be the other run's
_AHEAD = 6
_LONGEST, _MOST = 20_000, 400
_BEGIN, _NEXT, _END = ("LoopBegin",), ("LoopNext",), ("LoopEnd",)


def find_repeats(streams: Sequence[Stream], *, frees_behind: bool = False) -> dict[str, list[int]]:
    """Mark the loops by which streams of one routine differ; return how often each ran in each.

    With `frees_behind` what the last iteration frees and the others do not is freed behind the
    loop: a list of what each of them made. Raises RecordingError where streams differ by anything
    else.
    """
    told = [_Told(stream) for stream in streams]
    least = min(told, key=lambda one: _steps_once(one.steps))
    if all(one.steps == least.steps for one in told):
        return {}
    periods: dict[int, int] = {}  # where a loop's one iteration ends in `least` -> its steps
    seen = [_compare(least, one, periods) for one in told]
    ends = sorted(periods)
    # loops that run equally often have one name: an iteration may free what the same one made there
    alike: dict[tuple[int, ...], str] = {}
    counts = {end: tuple(found.count(end) for found in seen) for end in ends}
    names = {end: alike.setdefault(counts[end], f"row{len(alike) + 1}") for end in ends}
    shifts: dict[int, int] = {}
    freed: dict[int, set[int] | None] = {}
    for end in ends:
        one, found = max(zip(told, seen, strict=True), key=lambda pair: pair[1].count(end))
        start = found.place(end) - periods[end]
        shifts[end] = _shift(one.sizes, start, periods[end], found.count(end))
        last = start - shifts[end] + (found.count(end) - 2) * periods[end]
        is_known = frees_behind and found.count(end) > 1
        freed[end] = one.frees(last, last + periods[end]) if is_known else None
    for one, found in zip(told, seen, strict=True):
        places = {end: found.place(end) - periods[end] - shifts[end] for end in ends}
        loops = [(names[end], places[end], periods[end], found.count(end)) for end in ends]
        _mark(one, loops, [freed[end] for end in ends])
    return {name: list(count) for count, name in alike.items()}


class _Seen:
    """How a run goes along with the one at the least settings."""

    def __init__(self) -> None:
        self.more: dict[int, int] = {}  # how often more a loop runs, by where it ends there
        self._parted = [(-1, 0)]  # where they parted there, and how many steps further this one is

    def part(self, i: int, further: int) -> None:
        """Hear that from step `i` there on, this one is so much further."""
        self._parted.append((i, further))

    def place(self, end: int) -> int:
        """Return the step at which the first iteration of a loop ends here."""
        return end + next(further for i, further in reversed(self._parted) if i < end)

    def count(self, end: int) -> int:
        """Return how often a loop runs here."""
        return 1 + self.more.get(end, 0)


class _Told:
    """A stream's events but for what is freed, as what can be compared."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.places: list[int] = []
        self.steps: list[Token] = []
        self.sizes: list[Token] = []
        for place, event in enumerate(stream.events):
            if isinstance(event, Free):
                continue
            self.places.append(place)
            self.steps.append(_step(event))
            self.sizes.append((_step(event), _size(event)))

    def behind(self, step: int) -> list[Free]:
        """Return what is freed between a step and the next."""
        place = self.places[step + 1] if step + 1 < len(self.places) else None
        events = self.stream.events[self.places[step] + 1 : place]
        return [event for event in events if isinstance(event, Free)]

    def frees(self, start: int, end: int) -> set[int]:
        """Return what is freed behind the last of some steps, by how far behind `start` it was."""
        born = self.born()
        numbers = (born.get(id(event.birth)) for event in self.behind(end - 1))
        return {number - start for number in numbers if number is not None}

    def born(self) -> dict[int, int]:
        """Return in which step each storage was made, by its birth's identity."""
        events = self.stream.events
        return {
            id(birth): number
            for number, place in enumerate(self.places)
            for birth in _births(events[place])
        }


def _births(event: Event) -> Sequence[Birth]:
    if isinstance(event, Call):
        return event.outputs
    return [event.birth] if isinstance(event, Alloc) else []


def _step(event: Event) -> Token:
    if isinstance(event, Alloc):
        return "a", event.operator
    if isinstance(event, Workspace):
        return "w", event.kind
    if isinstance(event, Call):
        return "c", event.routine
    if isinstance(event, Phase):
        return "p", event.name, event.component
    return (type(event).__name__,)


def _size(event: Event) -> object:
    if isinstance(event, Alloc):
        return event.size_bytes
    return event.operands if isinstance(event, Workspace) else None


def _compare(least: _Told, other: _Told, periods: dict[int, int]) -> _Seen:
    """Return how `other` goes along with `least`; loops that are new go to `periods`."""
    seen = _Seen()
    a, b, i, j = least.steps, other.steps, 0, 0
    while i < len(a) or j < len(b):
        one, two = a[i] if i < len(a) else ("end",), b[j] if j < len(b) else ("end",)
        if one == two == _BEGIN:  # a loop that is marked: it runs as often as the settings say
            i, j = _last_iteration(a, i), _last_iteration(b, j)
            seen.part(i, j - i)
        elif one == two:
            i, j = i + 1, j + 1
        else:
            period, repeats = _repeated(a, b, i, j, periods.get(i))
            if not period:
                raise RecordingError(
                    f"{least.stream.routine}: the events differ between settings, and not by a "
                    f"loop: {two} at {dict(other.stream.dims)}, {one} at {dict(least.stream.dims)}"
                )
            periods[i], seen.more[i] = period, repeats
            j += period * repeats
            seen.part(i, j - i)
        if len(periods) > _MOST:
            raise RecordingError(f"{least.stream.routine}: more than {_MOST} loops that differ")
    return seen


def _steps_once(steps: Sequence[Token]) -> int:
    """Return how many steps there are where each loop that is marked runs once.

    How often those run says nothing of what nobody marked.
    """
    place = count = 0
    while place < len(steps):
        if steps[place] == _BEGIN:
            place = _last_iteration(steps, place)
        place, count = place + 1, count + 1
    return count


def _last_iteration(steps: Sequence[Token], place: int) -> int:
    """Return the first step of the last iteration of the loop that begins at a place.

    What comes behind the passes of a model that generates is in the last of them.
    """
    depth, last = 0, place
    while True:
        depth += (steps[place] == _BEGIN) - (steps[place] == _END)
        if not depth:
            return last
        place += 1
        if depth == 1 and steps[place] == _NEXT:
            last = place + 1


def _repeated(
    a: Sequence[Token], b: Sequence[Token], i: int, j: int, known: int | None
) -> tuple[int, int]:
    """Return the steps of what `b` repeats at `j`, and how often, before it is as `a` at `i`."""
    for steps in (_AHEAD, 1):  # another loop may begin at once
        ahead = a[i : i + steps]
        for period in [known] if known else range(1, min(i, _LONGEST, len(b) - j) + 1):
            if b[j] != b[j - period] or b[j : j + period] != b[j - period : j]:
                continue
            repeats = 1
            while b[(after := j + repeats * period) : after + steps] != ahead:
                if b[after : after + period] != b[j : j + period]:
                    break
                repeats += 1
            else:
                return period, repeats
    return 0, 0


def _shift(sizes: Sequence[Token], start: int, period: int, count: int) -> int:
    """Return how many steps earlier a loop's iterations begin than where runs part.

    What comes behind a loop may begin as its iterations do: sizes tell. A few may differ from one
    iteration to the next (what is joined grows); where fewest do, they begin.
    """
    others = [0]  # how many of the steps so far are of another size than one iteration before
    first = max(0, start - period + 1)
    for n in range(first + period, start + period * count):
        others.append(others[-1] + (sizes[n] != sizes[n - period]))
    last = len(others) - 1
    length = period * (count - 1)
    differ = [
        others[last - shift] - others[last - shift - length] for shift in range(start - first + 1)
    ]
    return differ.index(min(differ))


def _mark(
    told: _Told, loops: Sequence[tuple[str, int, int, int]], freed: Sequence[set[int] | None]
) -> None:
    """Mark loops in a stream, each a name, its first step, the steps of an iteration, a count.

    What is freed behind an iteration's last step belongs to it; in the last iteration, where
    `freed` says it, only what the others free there too.
    """
    before: dict[int, list[Event]] = {}
    behind: dict[int, list[Free]] = {}  # what comes behind the ends of loops before a step
    born = told.born() if any(one is not None for one in freed) else {}
    stream = told.stream
    for (name, start, period, count), kept in zip(loops, freed, strict=True):
        for number in range(count):
            begun: list[Event] = [LoopBegin(name)] if not number else []
            before.setdefault(start + number * period, []).extend([*begun, LoopNext()])
        end = start + count * period
        before.setdefault(end, []).insert(0, LoopEnd())
        if kept is not None:
            behind[end] = [
                event
                for event in told.behind(end - 1)
                if born.get(id(event.birth), -1) - (end - period) not in kept
            ]
    moved = {id(event) for freed_behind in behind.values() for event in freed_behind}
    events: list[Event] = []

    def mark(step: int) -> None:
        marks = before.get(step, [])
        ends = sum(isinstance(one, LoopEnd) for one in marks)
        events.extend([*marks[:ends], *behind.get(step, ()), *marks[ends:]])

    steps = {place: number for number, place in enumerate(told.places)}
    for place, event in enumerate(stream.events):
        if place in steps:
            mark(steps[place])
        if id(event) not in moved:
            events.append(event)
    mark(len(told.places))
    stream.events = events
