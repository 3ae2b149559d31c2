"""A run without a limit, written down request by request, and tried again under limits.

What a run asks of the allocator does not depend on how much memory there is; a limit decides only
what the allocator does about it. So one replay gives the requests, and a limit is tried by asking
again. Up to the first request that a limit refuses, the run under it is the run without one: how it
stood there is kept while it runs, and forked for every limit. Where memory is tightest at the end
of a run, a try costs a few hundred requests of tens of thousands.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import islice

from vramplan.engines.torch.tape.allocator import Block, CachingAllocator, OutOfDeviceMemory
from vramplan.engines.torch.tape.blocks import (
    KEY_SHIFT,
    ROUND_BYTES,
    SMALL_BYTES,
    BlockPool,
    segment_bytes,
)
from vramplan.engines.torch.tape.collection import uncollected
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.plans import WorkspaceModel, plans_of
from vramplan.engines.torch.tape.rehearsed import (
    Lowered,
    Refused,
    Rehearsed,
    lower_by_attempts,
)
from vramplan.engines.torch.tape.replay import Listener, Quiet, Replay
from vramplan.engines.torch.tape.trace import ReplayOutOfMemory, Trace
from vramplan.errors import TapeError
from vramplan.quick_dataclass import dataclass, replace

#: what tells one use of a library from another
Layer = tuple[str, int, tuple[int, ...]]


class _Scratch:
    """Which sizes are library scratch, by number, and the plans that there are for it."""

    __slots__ = ("layers", "plans")

    def __init__(self, layers: dict[int, Layer], plans: dict[Layer, tuple[int, ...]]) -> None:
        self.layers = layers
        self.plans = plans


#: the request to give the cache back, among sizes (from 0 up) and returns (from -1 down)
_EMPTY_CACHE = -(1 << 62)

#: how many requests are between two openings: a copy takes the time of a thousand of them
_APART = 4_000
#: they are thinned out where there are more
_MOST_OPENINGS = 24

#: nothing is told of other scratch where so many free blocks would have to be remembered
_MOST_REMEMBERED = 4_000_000


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
        self, requests: Sequence[int], end: int, scratch: _Scratch, refused: Refused
    ) -> OutOfDeviceMemory | None:
        """Ask again up to request `end`; return what was refused, None where nothing was."""
        malloc, free, held, count = (
            self.allocator.malloc,
            self.allocator.free,
            self.held,
            self.count,
        )
        layers, plans = scratch.layers, scratch.plans
        try:
            for request in islice(requests, self.request, end):
                if request >= 0:
                    if count in layers:
                        layer = layers[count]
                        held[count] = self._take_plan(layer, plans[layer], refused)
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
            if self.allocator.has_room(size):
                self.chosen[layer] = place
                return self.allocator.malloc(0)
            try:
                block = self.allocator.malloc(size)
            except OutOfDeviceMemory as refusal:
                if refused is Refused.FAILS:
                    raise
                last = refusal
            else:
                self.chosen[layer] = place
                return block
        if last is not None and refused is not Refused.WITHOUT:
            raise last
        self.chosen[layer] = len(plans)
        return self.allocator.malloc(0)


# a journal is written at every request: `super` would be found anew for each
_malloc, _free = CachingAllocator.malloc, CachingAllocator.free


class Journal(CachingAllocator):
    """The allocator without a limit, writing down what is asked of it.

    `requests` are sizes, and ``-1 - n`` for the return of what the n-th size got. `growths` are the
    requests that wanted more from the driver than any before: (which one, reserved bytes with it).
    `openings` are copies of how it stood before some of those. What is asked once it `is_complete`
    is not written down.
    """

    __slots__ = (
        "_apart",
        "_lent_peak_bytes",
        "_numbers",
        "_remembered",
        "count",
        "growths",
        "is_complete",
        "is_told",
        "lent",
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
        self._lent_peak_bytes = 0
        self.lent: list[_Lent] = []
        self.is_told = not expandable_segments
        self._remembered = 0

    @property
    def highest_allocated_bytes(self) -> int:
        """The peak of what was allocated, with what was lent."""
        return max(self.peak_allocated_bytes, self._lent_peak_bytes)

    def reset_peaks(self) -> None:
        """Set the peaks to the current figures."""
        super().reset_peaks()
        self._lent_peak_bytes = 0

    def lend(self, size_bytes: int) -> None:
        """Hand a block out and take it back at once; `peak_allocated_bytes` stays without it."""
        peak_bytes = self.peak_allocated_bytes
        lent = self.note_lending(is_grown=not self.has_room(size_bytes))
        if not lent.is_grown:  # nothing stays taken
            taken_bytes = lent.taken_bytes(size_bytes)
        else:
            granted_bytes = self.granted_bytes
            block = super().malloc(size_bytes)
            taken_bytes = block.size_bytes
            super().free(block)
            if self.granted_bytes > granted_bytes and not self.is_complete:
                self.growths.append((len(self.requests), self.granted_bytes))
        self.peak_allocated_bytes = peak_bytes
        self._lent_peak_bytes = max(self._lent_peak_bytes, self.allocated_bytes + taken_bytes)
        self.note_lent(size_bytes)

    def note_lending(self, *, is_grown: bool) -> _Lent:
        """Write down what there is for library scratch that comes, if it takes any."""
        small, large = self._small.keys, self._large.keys
        lent = _Lent(
            allocated_bytes=self.allocated_bytes,
            small_bytes=small[-1] >> KEY_SHIFT if small else 0,
            large=tuple(large),
            is_grown=is_grown,
        )
        self._remembered += len(large)
        if self._remembered > _MOST_REMEMBERED:
            self.is_told = False
        if self.is_told:
            self.lent.append(lent)
        return lent

    def note_lent(self, size_bytes: int) -> None:
        """Write the requests down that it is."""
        if not self.is_complete:
            self.requests.append(size_bytes)
            self.requests.append(-1 - self.count)
            self.count += 1

    def malloc(self, size_bytes: int) -> Block:
        """Return a block of at least `size_bytes`."""
        granted_bytes = self.granted_bytes
        block = _malloc(self, size_bytes)
        if self.is_complete:
            return block
        if self.granted_bytes > granted_bytes:  # the driver was asked for more than ever before
            self.growths.append((len(self.requests), self.granted_bytes))
        self.requests.append(size_bytes)
        if size_bytes:
            self._numbers[block] = self.count
        self.count += 1
        return block

    def free(self, block: Block) -> None:
        """Take `block` back."""
        _free(self, block)
        if not self.is_complete:
            number = self._numbers.pop(block, None)
            if number is not None:
                self.requests.append(-1 - number)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lent:
    """What there was for library scratch when some was lent: of other sizes what it would take.

    `large` are the keys of the large pool's free blocks, of the small pool's the largest is enough.
    """

    allocated_bytes: int
    small_bytes: int
    large: tuple[int, ...]
    is_grown: bool  # no free block was large enough

    def taken_bytes(self, size_bytes: int) -> int:
        """Return the bytes of the block that a size gets, if need be of a segment of its own."""
        size_bytes = -(-size_bytes // ROUND_BYTES) * ROUND_BYTES
        if size_bytes <= SMALL_BYTES:
            return size_bytes
        index = bisect_left(self.large, size_bytes << KEY_SHIFT)
        is_there = index < len(self.large)
        whole = self.large[index] >> KEY_SHIFT if is_there else segment_bytes(size_bytes)
        return whole if whole - size_bytes <= SMALL_BYTES else size_bytes

    def goes_alike(self, own_bytes: int, size_bytes: int) -> bool:
        """Return whether another size leaves the allocator as its own did."""
        if size_bytes <= SMALL_BYTES:
            has_room = size_bytes <= self.small_bytes
        else:
            has_room = bool(self.large) and size_bytes <= self.large[-1] >> KEY_SHIFT
        if not self.is_grown:
            return has_room
        is_same_pool = (own_bytes <= SMALL_BYTES) == (size_bytes <= SMALL_BYTES)
        rounded = (-(-size // ROUND_BYTES) * ROUND_BYTES for size in (own_bytes, size_bytes))
        own_segment, segment = map(segment_bytes, rounded)
        return not has_room and is_same_pool and own_segment == segment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """What a mark's peak was made of: that of tensors alone, and which scratch was lent."""

    peak_bytes: int
    lent: slice

    def peak_with(self, lent: Sequence[int]) -> int:
        """Return the peak, from what was allocated with each of all that was lent."""
        return max([self.peak_bytes, *lent[self.lent]])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Iteration:
    """How an iteration of a loop ended that is cut short once it is quiet."""

    marks: slice
    end: _Stretch  # of the stretch that it ended in, so far
    reserved_bytes: int
    is_quiet: bool
    is_last: bool


class _Itinerary(Listener):
    """Notes which sizes of a journal are library scratch, and from which on the run was where.

    And what its marks and loops depend on, so that it can be told what other scratch would change.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.plans: dict[Layer, tuple[int, ...]] = {}
        self.scratch = _Scratch({}, self.plans)
        self.places: list[tuple[int, str, str]] = []
        self.lent_for: list[Layer] = []
        self.stretches: list[_Stretch] = []
        self.loops: list[list[_Iteration]] = []
        self._within: list[list[_Iteration]] = []
        self._first_lent = 0

    def began(self, phase: str, component: str) -> None:
        """Note the first size of a place."""
        self.places.append((self._journal.count, phase, component))
        self._first_lent = len(self._journal.lent)

    def ended(self, _phase: str, _component: str) -> None:
        """Note what its peak is made of."""
        self.stretches.append(self._stretch())
        self._first_lent = len(self._journal.lent)

    def _stretch(self) -> _Stretch:
        journal = self._journal
        lent = slice(self._first_lent, len(journal.lent))
        return _Stretch(peak_bytes=journal.peak_allocated_bytes, lent=lent)

    def plans_known(self, layer: Layer, plans: tuple[int, ...]) -> None:
        """Note whose scratch comes, and which number it has among the sizes."""
        self.plans[layer] = plans
        self.scratch.layers[self._journal.count] = layer
        self.lent_for.append(layer)
        if not plans[0]:  # none does: what would be there if it did?
            self._journal.note_lending(is_grown=False)
            self._journal.note_lent(0)

    def scratch_is_kept(self) -> None:
        """Tell nothing of other scratch: what comes beside it would lie elsewhere."""
        self._journal.is_told = False

    def loop_begins(self) -> None:
        """Take down a loop."""
        self._within.append([])

    def iterated(self, marks: slice, reserved_bytes: int, *, is_quiet: bool, is_last: bool) -> None:
        """Take down an iteration of it."""
        one = _Iteration(
            marks=marks,
            end=self._stretch(),
            reserved_bytes=reserved_bytes,
            is_quiet=is_quiet,
            is_last=is_last,
        )
        self._within[-1].append(one)
        if is_last:
            self.loops.append(self._within.pop())


def _model_of(conditions: Conditions, layer: Layer) -> WorkspaceModel:
    """Return what takes a layer's scratch."""
    return conditions.cast_workspace_bytes.get(layer[1], conditions.workspace_bytes)


class Rehearsal:
    """A replay without a limit that can be asked how it would have gone under one."""

    def __init__(
        self, tape: Tape, conditions: Conditions, *, expandable_segments: bool = False
    ) -> None:
        self.tape = tape
        self.journal = Journal(expandable_segments=expandable_segments)
        self._itinerary = _Itinerary(self.journal)
        self._conditions = conditions
        self._is_expandable = expandable_segments
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

    def like(self, conditions: Conditions) -> Rehearsed | None:
        """Return the same run with other scratch; None where it may differ in more than that."""
        own = self._conditions
        if not self.journal.is_told or conditions.cublas_bytes != own.cublas_bytes:
            return None
        if not self._tells_widths_apart(conditions):
            return None
        try:
            plans = {
                layer: plans_of(_model_of(conditions, layer), layer[0], layer[2])
                for layer in self._itinerary.plans
            }
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return None
        if plans == self._itinerary.plans:
            return self
        peaks = self.peaks_with(plans)
        if peaks is None:
            return None
        cold = zip(self.trace.marks, peaks, strict=False)
        marks = [replace(mark, allocated_peak_bytes=peak) for mark, peak in cold]
        return _Twin(self, conditions, plans, Trace(marks=marks, retries=self.trace.retries))

    def _tells_widths_apart(self, conditions: Conditions) -> bool:
        """Return whether operators are the same ones under other conditions, by their widths."""
        is_cast, is_own_cast = (
            bool(one.cast_workspace_bytes) for one in (conditions, self._conditions)
        )
        if is_cast == is_own_cast:
            return True
        layers = self._itinerary.plans
        return not is_cast and len({(kind, operands) for kind, _, operands in layers}) == len(
            layers
        )

    def peaks_with(self, plans: dict[Layer, tuple[int, ...]]) -> list[int] | None:
        """Return the allocated peaks of all marks with other scratch; None if it goes another way.

        Of a second run too, if there was one.
        """
        itinerary, lent = self._itinerary, []
        for one, layer in zip(self.journal.lent, itinerary.lent_for, strict=True):
            size_bytes = plans[layer][0]
            if not one.goes_alike(itinerary.plans[layer][0], size_bytes):
                return None
            lent.append(one.allocated_bytes + one.taken_bytes(size_bytes))
        peaks = [one.peak_with(lent) for one in itinerary.stretches]
        for loop in itinerary.loops:
            quiet = Quiet()
            for iteration in loop:
                peak_bytes = max([iteration.end.peak_with(lent), *peaks[iteration.marks]])
                if quiet.sees(iteration.reserved_bytes, peak_bytes) != iteration.is_quiet:
                    return None
        return peaks

    def rehearsed_with(self, conditions: Conditions) -> Rehearsal:
        """Return a run of its own under other conditions."""
        return rehearse_in_python(self.tape, conditions)

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
        return self.attempt_with(self._itinerary.plans, limit_bytes, refused)

    def attempt_with(
        self, plans: dict[Layer, tuple[int, ...]], limit_bytes: int, refused: Refused
    ) -> tuple[int, ReplayOutOfMemory | None]:
        """Do as `attempt`, with other scratch that leaves the run without a limit as it is."""
        if limit_bytes >= self.most_wanted_bytes or not self.journal.growths:
            return self.most_wanted_bytes, None
        requests = self.journal.requests
        scratch = _Scratch(self._itinerary.scratch.layers, plans)
        with uncollected():
            position = self._open(limit_bytes).fork(limit_bytes)
            refusal = position.advance(requests, len(requests), scratch, refused)
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


class _Twin:
    """A run that differs from another in scratch alone, and without a limit asks for the same.

    What is asked under limits it tries itself, from where the other stood (`Rehearsed`).
    """

    def __init__(
        self,
        base: Rehearsal,
        conditions: Conditions,
        plans: dict[Layer, tuple[int, ...]],
        trace: Trace,
    ) -> None:
        self.tape = base.tape
        self.trace = trace
        self.most_wanted_bytes = base.most_wanted_bytes
        self.request_count = 0  # they are the base's
        self._base = base
        self._conditions = conditions
        self._plans = plans

    def like(self, conditions: Conditions) -> Rehearsed | None:
        """Return the same run with other scratch."""
        return self._base.like(conditions)

    def warm_reserved_peak_bytes(self) -> int:
        """Return the reserved peak of this and one more run of the entry, in the same process."""
        found = self._base.warm_reserved_peak_bytes()
        if self._base.peaks_with(self._plans) is None:  # the second goes another way
            found = self._base.rehearsed_with(self._conditions).warm_reserved_peak_bytes()
        return found

    def attempt(
        self, limit_bytes: int, *, refused: Refused = Refused.FAILS
    ) -> tuple[int, ReplayOutOfMemory | None]:
        """Return what a limit granted the run at most, and how the run fails under it."""
        return self._base.attempt_with(self._plans, limit_bytes, refused)

    def failure(
        self, limit_bytes: int, *, refused: Refused = Refused.FAILS
    ) -> ReplayOutOfMemory | None:
        """Return how the run fails under a limit; None where it completes."""
        return self.attempt(limit_bytes, refused=refused)[1]

    def lower(self, limit_bytes: int, *, refused: Refused, seconds: float) -> Lowered:
        """Try limits downwards from one under which the run completes, until it fails."""
        return lower_by_attempts(self, limit_bytes, refused=refused, seconds=seconds)


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
