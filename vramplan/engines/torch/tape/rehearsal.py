"""A run without a limit, written down request by request, and tried again under limits.

What a run asks of the allocator does not depend on how much memory there is; a limit decides only
what the allocator does about it. So one replay gives the requests, and a limit is tried by asking
again. Up to the first request that a limit refuses, the run under it is the run without one: how it
stood there is kept while it runs, and forked for every limit. Where memory is tightest at the end
of a run, a try costs a few hundred requests of tens of thousands.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice

from vramplan.engines.torch.tape.allocator import Block, CachingAllocator, OutOfDeviceMemory
from vramplan.engines.torch.tape.blocks import BlockPool, segment_bytes
from vramplan.engines.torch.tape.collection import uncollected
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.rehearsed import (
    Lowered,
    Refused,
    Rehearsed,
    lower_by_attempts,
)
from vramplan.engines.torch.tape.replay import Listener, Replay
from vramplan.engines.torch.tape.trace import ReplayOutOfMemory, Trace
from vramplan.errors import TapeError

#: what tells one use of a library from another
Layer = tuple[object, ...]

#: the request to give the cache back, among sizes (from 0 up) and returns (from -1 down)
_EMPTY_CACHE = -(1 << 62)

#: how many requests are between two openings: a copy takes the time of a thousand of them
_APART = 4_000
#: they are thinned out where there are more
_MOST_OPENINGS = 24


class _Position:
    """How far a repetition has come: `request` is the next, `count` how many sizes were before it.

    `held` are the blocks that have not been returned, by the number of their size.
    """

    __slots__ = ("allocator", "chosen", "count", "held", "request")

    def __init__(
        self, allocator: CachingAllocator, request: int, count: int, held: dict[int, Block]
    ) -> None:
        self.allocator = allocator
        self.request = request
        self.count = count
        self.held = held
        self.chosen: dict[Layer, int] = {}  # which plan is in use, since those before did not fit

    def fork(self, limit_bytes: int | None) -> _Position:
        """Return a position from which to go on under a limit; this one stays as it is."""
        twin, twins = self.allocator.fork(limit_bytes)
        held = {number: twins.get(block, block) for number, block in self.held.items()}
        return _Position(twin, self.request, self.count, held)

    def advance(
        self, requests: Sequence[int], end: int, itinerary: _Itinerary, refused: Refused
    ) -> OutOfDeviceMemory | None:
        """Ask again up to request `end`; return what was refused, None where nothing was."""
        malloc, free, held, count = (
            self.allocator.malloc,
            self.allocator.free,
            self.held,
            self.count,
        )
        scratch = itinerary.scratch if refused is not Refused.FAILS else {}
        try:
            for request in islice(requests, self.request, end):
                if request >= 0:
                    if count in scratch:
                        plans = itinerary.plans[scratch[count]]
                        held[count] = self._take_plan(scratch[count], plans, refused)
                    else:
                        held[count] = malloc(request)
                    count += 1
                elif request == _EMPTY_CACHE:
                    self.allocator.empty_cache()
                else:
                    free(held.pop(-1 - request))
        except OutOfDeviceMemory as refusal:
            self.count = count
            return refusal
        self.request, self.count = end, count
        return None

    def _take_plan(self, layer: Layer, plans: tuple[int, ...], refused: Refused) -> Block:
        """Take scratch by the plan in use, or by the first after it that is not refused."""
        last: OutOfDeviceMemory | None = None
        first = self.chosen.get(layer, 0)
        for place, size in enumerate(plans[first:], first):
            try:
                block = self.allocator.malloc(size)
            except OutOfDeviceMemory as refusal:
                last = refusal
            else:
                self.chosen[layer] = place
                return block
        if last is not None and refused is not Refused.WITHOUT:
            raise last
        self.chosen[layer] = len(plans)
        return self.allocator.malloc(0)


class Journal(CachingAllocator):
    """The allocator without a limit, writing down what is asked of it.

    `requests` are sizes, and ``-1 - n`` for the return of what the n-th size got. `growths` are the
    requests that wanted more from the driver than any before: (which one, reserved bytes with it).
    `openings` are copies of how it stood before some of those. What is asked once it `is_complete`
    is not written down.
    """

    __slots__ = (
        "_apart",
        "_numbers",
        "count",
        "growths",
        "is_complete",
        "openings",
        "requests",
    )

    def __init__(self, *, expandable_segments: bool = False) -> None:
        super().__init__(expandable_segments=expandable_segments, limit_is_card=True)
        self.count = 0
        self.is_complete = False
        self.requests = array("q")
        self.growths: list[tuple[int, int]] = []
        self._numbers: dict[Block, int] = {}
        beginning = CachingAllocator(expandable_segments=expandable_segments, limit_is_card=True)
        self.openings = [_Position(beginning, 0, 0, {})]
        self._apart = _APART

    def malloc(self, size_bytes: int) -> Block:
        """Return a block of at least `size_bytes`."""
        if self.is_complete:
            return super().malloc(size_bytes)
        granted_bytes = self.granted_bytes
        block = super().malloc(size_bytes)
        if self.granted_bytes > granted_bytes:  # the driver was asked for more than ever before
            self.growths.append((len(self.requests), self.granted_bytes))
        self.requests.append(size_bytes)
        if size_bytes:
            self._numbers[block] = self.count
        self.count += 1
        return block

    def free(self, block: Block) -> None:
        """Take `block` back."""
        super().free(block)
        if block in self._numbers and not self.is_complete:
            self.requests.append(-1 - self._numbers.pop(block))

    def empty_cache(self) -> None:
        """Give back to the driver what is free."""
        super().empty_cache()
        if not self.is_complete:
            self.requests.append(_EMPTY_CACHE)

    def _grow(self, pool: BlockPool, size_bytes: int) -> Block | None:
        """Keep how it stands before it is granted more than ever, every so many requests."""
        if not self.is_complete and len(self.requests) >= self.openings[-1].request + self._apart:
            asked_bytes = self.reserved_bytes + segment_bytes(size_bytes)
            if asked_bytes > self.granted_bytes:
                self._keep_opening()
        return super()._grow(pool, size_bytes)

    def _keep_opening(self) -> None:
        twin, twins = self.fork(None)
        held = {number: twins[block] for block, number in self._numbers.items()}
        self.openings.append(_Position(twin, len(self.requests), self.count, held))
        if len(self.openings) > _MOST_OPENINGS:
            del self.openings[1::2]
            self._apart *= 2


class _Itinerary(Listener):
    """Notes which sizes of a journal are library scratch, and from which on the run was where."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.scratch: dict[int, Layer] = {}
        self.plans: dict[Layer, tuple[int, ...]] = {}
        self._layer: Layer = ()
        self.places: list[tuple[int, str, str]] = []

    def began(self, phase: str, component: str) -> None:
        """Note the first size of a place."""
        self.places.append((self._journal.count, phase, component))

    def scratch_begins(self) -> None:
        """Note the number of the size that comes."""
        self.scratch[self._journal.count] = self._layer

    def plans_known(self, layer: Layer, plans: tuple[int, ...]) -> None:
        """Note whose scratch comes."""
        self._layer = layer
        self.plans[layer] = plans


class Rehearsal:
    """A replay without a limit that can be asked how it would have gone under one."""

    def __init__(
        self, tape: Tape, conditions: Conditions, *, expandable_segments: bool = False
    ) -> None:
        self.tape = tape
        self.journal = Journal(expandable_segments=expandable_segments)
        self._itinerary = _Itinerary(self.journal)
        self._replay = Replay(tape, conditions, self.journal, listener=self._itinerary)
        self._cold: Trace | None = None  # once there is another run

    @property
    def trace(self) -> Trace:
        """The stretches of the run."""
        return self._replay.trace if self._cold is None else self._cold

    def load(self) -> None:
        """Bring the components to the device."""
        self._replay.load()

    def run(self) -> None:
        """Run the entry routine."""
        self._replay.run()

    @property
    def request_count(self) -> int:
        """How many requests it holds, which says how much memory it takes."""
        return len(self.journal.requests)

    def like(self, _conditions: Conditions) -> Rehearsed | None:
        """Return None: what is the same in another run is not told from the rest here."""
        return None

    def warm_reserved_peak_bytes(self) -> int:
        """Return the reserved peak of this and one more run of the entry, in the same process."""
        if self._cold is None:
            trace = self._replay.trace
            self._cold = Trace(marks=list(trace.marks), retries=trace.retries)
            self.journal.is_complete = True
            self._replay.run()
        return self._replay.trace.reserved_peak_bytes

    @property
    def most_wanted_bytes(self) -> int:
        """The least limit that refuses nothing: the run under it is the run without one."""
        return self.journal.growths[-1][1] if self.journal.growths else 0

    def attempt(
        self, limit_bytes: int, *, refused: Refused = Refused.FAILS
    ) -> tuple[int, ReplayOutOfMemory | None]:
        """Return what a limit granted the run at most, and how the run fails under it.

        It fails with None where it completes. Under every limit from what was granted up to this
        one everything happens alike.
        """
        if limit_bytes >= self.most_wanted_bytes or not self.journal.growths:
            return self.most_wanted_bytes, None
        requests = self.journal.requests
        with uncollected():
            position = self._open(limit_bytes).fork(limit_bytes)
            refusal = position.advance(requests, len(requests), self._itinerary, refused)
        granted_bytes = position.allocator.granted_bytes
        if refusal is None:
            return granted_bytes, None
        places = self._itinerary.places
        place = bisect_right(places, position.count, key=lambda place: place[0])
        _, phase, component = places[place - 1]
        return granted_bytes, ReplayOutOfMemory(phase, component, refusal.asked_bytes)

    def failure(
        self, limit_bytes: int, *, refused: Refused = Refused.FAILS
    ) -> ReplayOutOfMemory | None:
        """Return how what was run so far fails under a limit; None where it completes."""
        return self.attempt(limit_bytes, refused=refused)[1]

    def lower(self, limit_bytes: int, *, refused: Refused, seconds: float) -> Lowered:
        """Try limits downwards from one under which the run completes, until it fails."""
        return lower_by_attempts(self, limit_bytes, refused=refused, seconds=seconds)

    def _open(self, limit_bytes: int) -> _Position:
        """Return the run without a limit, no further than what this limit refuses first."""
        first = self._first_refused(limit_bytes)
        openings = self.journal.openings
        index = bisect_right(openings, first, key=lambda opening: opening.request)
        return openings[index - 1]

    def _first_refused(self, limit_bytes: int) -> int:
        growths = self.journal.growths
        return growths[bisect_right(growths, limit_bytes, key=lambda growth: growth[1])][0]


def rehearse_in_python(
    tape: Tape, conditions: Conditions, *, expandable_segments: bool = False
) -> Rehearsal:
    """Return one run of the tape, loading included, with as much memory as it asks for.

    It is what `rehearse` is held to. Raises TapeError as it does.
    """
    rehearsal = Rehearsal(tape, conditions, expandable_segments=expandable_segments)
    try:
        rehearsal.load()
        rehearsal.run()
    except ReplayOutOfMemory as error:  # without a limit: more than a number of 62 bits
        raise TapeError(f"tape {tape.pipeline}: it asks for {error.asked_bytes} bytes") from None
    return rehearsal
