"""Loops that nobody marked: what one run does more often than another is found by comparing them.

Code goes over the images of a batch, the frames of a video or the windows of an image one by one,
and no hook says so. Where a run at larger settings does again what it and the smaller run have just
done, and goes on as that one does, that is one more iteration of a loop. Where the loop begins is
told by the run at the smallest settings: there it is one iteration long. That it is a loop, how
often it runs and what it frees is proved as for any other (`assemble`).

Where the smallest run goes over two images, and so each in a way of its own (the first follows
nothing, nothing follows the last), that one iteration is like no other. Then loops are told from
their first iteration on (`is_whole`): what came before and is alike, byte for byte, belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

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
_LEAST_TIMES = 2
_BEGIN, _NEXT, _END = ("LoopBegin",), ("LoopNext",), ("LoopEnd",)


class Way(NamedTuple):
    """A way to look for loops.

    With `is_whole` an iteration is what repeats to the byte, and loops begin where that begins in
    all of the streams. With `frees_behind` what the last iteration frees and the others do not is
    freed behind the loop: a list of what each of them made. With `ends_apart` the last iteration
    is of sizes of its own: what is left of a video when it is decoded in parts.
    """

    is_whole: bool = False
    frees_behind: bool = False
    ends_apart: bool = False


#: the ways to look, one after the other
WAYS = (
    Way(),
    Way(is_whole=True),
    Way(frees_behind=True),
    Way(is_whole=True, ends_apart=True),
)


def find_repeats(streams: Sequence[Stream], way: Way | None = None) -> dict[str, list[int]]:
    """Mark the loops by which streams of one routine differ; return how often each ran in each.

    Raises RecordingError where they differ by anything else.
    """
    way = way or WAYS[0]
    told = [_Told(stream, is_whole=way.is_whole) for stream in streams]
    least = min(told, key=lambda one: _steps_once(one.steps))
    if all(one.steps == least.steps for one in told):
        return {}
    periods: dict[int, int] = {}  # where a loop's one iteration ends in `least` -> its steps
    seen = [_compare(least, one, periods) for one in told]
    ends = sorted(periods)
    shifts: dict[int, int] = {}
    for end in ends:
        one, found = max(zip(told, seen, strict=True), key=lambda pair: pair[1].count(end))
        start = found.place(end) - periods[end]
        shifts[end] = _shift(one.sizes, start, periods[end], found.count(end))
    loops = [
        [
            _Repeat(found.place(end) - periods[end] - shifts[end], periods[end], found.count(end))
            for end in ends
        ]
        for found in seen
    ]
    if way.is_whole:
        loops = _begun_earlier(told, loops, ends_apart=way.ends_apart)
    # loops that run equally often have one name: an iteration may free what the same one made there
    alike: dict[tuple[int, ...], str] = {}
    counts = [tuple(one.times for one in across) for across in zip(*loops, strict=True)]
    names = [alike.setdefault(count, f"row{len(alike) + 1}") for count in counts]
    freed = [
        _freed_each_time(told, across) if way.frees_behind else None
        for across in zip(*loops, strict=True)
    ]
    for one, those in zip(told, loops, strict=True):
        _mark(one, names, those, freed)
    return {name: list(count) for count, name in alike.items()}


def ends_otherwise(streams: Sequence[Stream], loops: Mapping[str, Sequence[int]]) -> frozenset[str]:
    """Return the marked loops whose last iteration is of other sizes than the one before it.

    `loops` are how often each ran in each of the streams.
    """
    found: set[str] = set()
    for name, counts in loops.items():
        stream, count = max(zip(streams, counts, strict=True), key=lambda pair: pair[1])
        if count >= _LEAST_TIMES:
            found |= {name for *_, one, last in _iterations(stream, name) if one != last}
    return frozenset(found)


def _iterations(stream: Stream, name: str) -> Iterator[list[list[object]]]:
    """Yield the sizes of what each iteration makes, for each loop of a name."""
    depth = 0  # of loops, from the one that is meant
    sizes: list[list[object]] = []
    for event in stream.events:
        if isinstance(event, LoopBegin):
            depth += bool(depth) or event.name == name
        elif isinstance(event, LoopEnd):
            depth -= bool(depth)
            if not depth and sizes:
                yield sizes
                sizes = []
        elif isinstance(event, LoopNext) and depth == 1:
            sizes.append([])
        elif depth and (size := _size(event)) is not None:
            sizes[-1].append(size)


class _Repeat(NamedTuple):
    """A loop in a run: its first step, the steps of an iteration, and how many there are."""

    start: int
    period: int
    times: int


def _begun_earlier(
    told: Sequence[_Told], loops: Sequence[Sequence[_Repeat]], *, ends_apart: bool
) -> list[list[_Repeat]]:
    """Return the loops of each run with what is before them and alike in all of the runs."""
    earlier = [
        _earlier(one, those, ends_apart=ends_apart) for one, those in zip(told, loops, strict=True)
    ]
    least = [min(across) for across in zip(*earlier, strict=True)]
    return [
        [
            _Repeat(one.start - more * one.period, one.period, one.times + more)
            for one, more in zip(those, least, strict=True)
        ]
        for those in loops
    ]


def _earlier(told: _Told, loops: Sequence[_Repeat], *, ends_apart: bool) -> list[int]:
    """Return how many iterations like its first there are before each loop of a run.

    With `ends_apart` they are like the one before its first, which may be its last.
    """
    found: list[int] = []
    free = 0  # where no other loop is any more
    for start, period, count in loops:
        at = start - period
        first = told.sizes[start : start + period]
        if ends_apart and at >= free and told.steps[at:start] == told.steps[start : start + period]:
            first = told.sizes[at:start]
        more = 0
        while at >= free and told.sizes[at : at + period] == first:
            more, at = more + 1, at - period
        found.append(more)
        free = start + count * period
    return found


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

    def __init__(self, stream: Stream, *, is_whole: bool) -> None:
        self.stream = stream
        self.is_whole = is_whole
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
            period, repeats = _repeated(least, other, i, j, periods.get(i))
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


def _repeated(least: _Told, other: _Told, i: int, j: int, known: int | None) -> tuple[int, int]:
    """Return the steps of what `other` repeats at `j`, and how often.

    Behind that it is as `least` at `i`. Both are 0 where it repeats nothing.
    """
    a, b = least.steps, other.steps
    # several steps of one operator are told apart by what they make
    for alike in (other.sizes, b) if other.is_whole else (b,):
        found = _repeated_alike(a, b, alike, i, j, known)
        if found[0]:
            return found
    return 0, 0


def _repeated_alike(
    a: Sequence[Token],
    b: Sequence[Token],
    alike: Sequence[Token],
    i: int,
    j: int,
    known: int | None,
) -> tuple[int, int]:
    for steps in (_AHEAD, 1):  # another loop may begin at once
        ahead = a[i : i + steps]
        for period in [known] if known else range(1, min(i, _LONGEST, len(b) - j) + 1):
            if b[j] != b[j - period] or alike[j : j + period] != alike[j - period : j]:
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


def _freed_each_time(told: Sequence[_Told], across: Sequence[_Repeat]) -> set[int] | None:
    """Return what a loop's iterations free behind their last step, but for the last one.

    Each by how far behind the iteration's first step it was made. None where no run has two.
    """
    one, loop = max(zip(told, across, strict=True), key=lambda pair: pair[1].times)
    if loop.times < _LEAST_TIMES:
        return None
    start = loop.start + (loop.times - 2) * loop.period
    return one.frees(start, start + loop.period)


def _mark(
    told: _Told,
    names: Sequence[str],
    loops: Sequence[_Repeat],
    freed: Sequence[set[int] | None],
) -> None:
    """Mark loops in a stream.

    What is freed behind an iteration's last step belongs to it; in the last iteration, where
    `freed` says it, only what the others free there too.
    """
    before: dict[int, list[Event]] = {}
    behind: dict[int, list[Free]] = {}  # what comes behind the ends of loops before a step
    born = told.born() if any(one is not None for one in freed) else {}
    stream = told.stream
    for name, (start, period, count), kept in zip(names, loops, freed, strict=True):
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
