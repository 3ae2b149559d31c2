"""Run a tape through the allocator model: numbers in, peaks out, no torch.

The interpreter walks the entry routine's code, calls other routines with their own dimensions, and
hands every allocation to a `CachingAllocator`. A loop whose iterations have stopped changing what
is reserved and how high they peak is cut short (a test holds this against running all of them).
"""

from __future__ import annotations

from collections.abc import Mapping
from time import process_time

from vramplan.engines.torch.tape.allocator import Block, CachingAllocator, OutOfDeviceMemory
from vramplan.engines.torch.tape.code import Code, Step
from vramplan.engines.torch.tape.collection import uncollected
from vramplan.engines.torch.tape.conditions import Conditions, WorkspaceModel
from vramplan.engines.torch.tape.contents import Tape, Variant
from vramplan.engines.torch.tape.convolution import product_thread
from vramplan.engines.torch.tape.expressions import evaluate, evaluate_all
from vramplan.engines.torch.tape.frames import Frame, resolve
from vramplan.engines.torch.tape.mark import Mark
from vramplan.engines.torch.tape.plans import plans_of
from vramplan.engines.torch.tape.residency import Residency
from vramplan.engines.torch.tape.trace import ReplayOutOfMemory, Trace
from vramplan.errors import TapeError
from vramplan.quick_typing import cast

__all__ = [
    "Conditions",
    "Listener",
    "Mark",
    "Replay",
    "ReplayOutOfMemory",
    "Trace",
    "WorkspaceModel",
    "replay",
]

#: bounds of a run, because a tape may come from a stranger: the longest that is recorded, llava
#: with 3,519 new tokens, takes 10 million steps, 20 seconds, and 2,000 tensors at once
_LONGEST_LOOP = 100_000
_MOST_STEPS = 12_000_000
_MOST_SECONDS = 60.0
_MOST_SLOTS = 1_000_000
_MOST_MARKS = 100_000
_MOST_REMEMBERED = 1_000

#: a loop is quiet after this many iterations that reserved nothing new and peaked alike. The state
#: itself wanders on (small tensors change places), so this is longer than any scheduler's memory of
#: past steps
_QUIET = 6


class Quiet:
    """Tells when the iterations of a loop have stopped changing anything."""

    def __init__(self) -> None:
        self._quiet = 0
        self._last = (0, 0)

    def sees(self, reserved_bytes: int, peak_bytes: int) -> bool:
        """Take what an iteration left reserved and how high it peaked; True where no more come."""
        now = (reserved_bytes, peak_bytes)
        self._quiet = self._quiet + 1 if now == self._last else 0
        self._last = now
        return self._quiet == _QUIET


class Listener:
    """Hears where a replay is; whoever wants to know overrides what they want to know."""

    def began(self, phase: str, component: str) -> None:
        """Hear that a stretch of `phase` and `component` begins."""

    def ended(self, phase: str, component: str) -> None:
        """Hear that it ends."""

    def scratch_begins(self) -> None:
        """Hear that what is asked for next is a library's scratch."""

    def plans_known(self, layer: tuple[str, int, tuple[int, ...]], plans: tuple[int, ...]) -> None:
        """Hear which plans a library has for the scratch that comes: bytes, as they are tried.

        None comes where the first of them takes nothing. The same `layer` has the same plans, and
        keeps to the one that fitted.
        """

    def scratch_ends(self) -> None:
        """Hear that it has been asked for."""

    def scratch_is_kept(self) -> None:
        """Hear that scratch comes which is held while something else is asked for."""

    def routine_ended(self, name: str) -> None:
        """Hear that the code of a routine has been gone through."""

    def loop_begins(self) -> None:
        """Hear that a loop begins that is cut short once it is quiet."""

    def iterated(self, marks: slice, reserved_bytes: int, *, is_quiet: bool, is_last: bool) -> None:
        """Hear that an iteration of it has ended, which closed these marks.

        Of the loops that have begun and not come to their last iteration the innermost is meant.
        """


class Replay:
    """One run of one tape on one allocator; `listener` hears where it is.

    `residency` is another model of which weights are on the device than that of the conditions.
    """

    def __init__(
        self,
        tape: Tape,
        conditions: Conditions,
        allocator: CachingAllocator,
        *,
        every_iteration: bool = False,
        listener: Listener | None = None,
        residency: Residency | None = None,
    ) -> None:
        self.tape = tape
        self.every_iteration = every_iteration
        self.conditions = conditions
        self.allocator = allocator
        self.listener = Listener() if listener is None else listener
        self.residency = Residency(tape, conditions, allocator) if residency is None else residency
        self.trace = Trace()
        self.phase = "load"
        self.component = ""
        self._steps = 0
        self._slots = 0
        self._deadline = process_time() + _MOST_SECONDS
        self._cublas: dict[int, Block] = {}  # by thread: the program's own, and autograd's
        self._sizes: dict[tuple[int, tuple[tuple[str, int], ...]], tuple[int, ...]] = {}

    @property
    def weight_bytes(self) -> Mapping[str, int]:
        """The bytes of each component that is on the device as a whole."""
        return self.residency.weight_bytes

    def load(self) -> None:
        """Bring the components to the device as the loader does."""
        try:
            with uncollected():
                for name in self.residency.at_load():
                    self.begin("load", name)
                    self.residency.bring(name)
        except OutOfDeviceMemory as error:
            raise ReplayOutOfMemory(self.phase, self.component, error.asked_bytes) from None
        self.close()

    def run(self) -> None:
        """Run the entry routine once; what it keeps at its end is freed (the result is let go)."""
        numbers = dict(self.conditions.numbers)
        for name, least in self.tape.least.items():
            numbers[name] = max(least, numbers.get(name, least))
        dims = {name: evaluate(text, numbers) for name, text in self.tape.dims.items()}
        self.begin(self._first_phase(dims), "pipeline")
        try:
            with uncollected():
                for block in self._routine(self.tape.entry, dims):
                    self.allocator.free(block)
        except OutOfDeviceMemory as error:
            raise ReplayOutOfMemory(self.phase, self.component, error.asked_bytes) from None
        except (IndexError, KeyError, ValueError) as error:  # a slot that is not there, or free
            raise TapeError(
                f"tape {self.tape.pipeline}: its code does not hold together ({error})"
            ) from error
        self.close()
        self.residency.end_run()
        self.trace.retries = self.allocator.retries

    # ---------------------------------------------------------------- marks
    def begin(self, phase: str, component: str) -> None:
        """Close the current stretch and begin one of `phase` and `component`."""
        self.close()
        self.phase, self.component = phase, component
        self.listener.began(phase, component)

    def close(self) -> None:
        """Write down the stretch that ends here."""
        allocator = self.allocator
        if self.component:
            self.listener.ended(self.phase, self.component)
            if len(self.trace.marks) >= _MOST_MARKS:
                raise TapeError(f"tape {self.tape.pipeline}: more than {_MOST_MARKS} stretches")
            self.trace.marks.append(
                Mark(
                    phase=self.phase,
                    component=self.component,
                    allocated_peak_bytes=allocator.highest_allocated_bytes,
                    reserved_peak_bytes=allocator.peak_reserved_bytes,
                    allocated_bytes=allocator.allocated_bytes,
                    reserved_bytes=allocator.reserved_bytes,
                    weights=tuple(self.weight_bytes.items()),
                )
            )
        allocator.reset_peaks()

    def _first_phase(self, dims: Mapping[str, int]) -> str:
        """Return the first phase the code names: what is uploaded before it belongs to it."""
        for op in self._choose(self.tape.entry, dims).plain_code:
            if isinstance(op, list) and op[0] == "p":
                return str(op[1])
        return "idle"

    # ------------------------------------------------------------- routines
    def _choose(self, name: str, dims: Mapping[str, int]) -> Variant:
        facts = self.conditions.facts
        for variant in self.tape.routines[name]:
            self._spend(len(variant.derived))
            if variant.holds(facts, dims):
                return variant
        known = {fact for variant in self.tape.routines[name] for fact in variant.when}
        shown = ", ".join(f"{key}={facts.get(key)}" for key in sorted(known))
        raise TapeError(
            f"tape {self.tape.pipeline} has no recording of {name} for these settings ({shown})"
        )

    def _routine(self, name: str, dims: Mapping[str, int]) -> list[Block]:
        variant = self._choose(name, dims)
        frame = Frame(None)
        code = variant.code if self.conditions.offload == "sequential" else variant.plain_code
        self._sequence(code, frame, variant, dims)
        outputs = [frame.slots[slot] for slot in variant.outputs]
        self._slots -= frame.forget()
        self.listener.routine_ended(name)
        return outputs

    def _sequence(
        self, code: Code, frame: Frame, variant: Variant, dims: Mapping[str, int]
    ) -> None:
        self._spend(len(code))
        sizes = self._sizes_at(variant, dims)
        malloc, free = self.allocator.malloc, self.allocator.free
        slots = frame.slots
        for op in code:
            if type(op) is int:
                if op >= 0:
                    slots.append(malloc(sizes[op]))
                else:
                    free(slots[-op - 1])
            else:
                self._step(cast("Step", op), frame, variant, dims, sizes)
        self._slots += len(slots)
        if self._slots > _MOST_SLOTS:
            raise TapeError(f"tape {self.tape.pipeline}: more than {_MOST_SLOTS} tensors at once")

    def _spend(self, steps: int) -> None:
        """Count steps; raise TapeError where a run takes more of them, or longer, than any does."""
        self._steps += steps + 1
        if self._steps > _MOST_STEPS or process_time() > self._deadline:
            raise TapeError(
                f"tape {self.tape.pipeline}: the run at these settings is too long to be replayed "
                f"({_MOST_STEPS} steps or {_MOST_SECONDS:.0f} seconds)"
            )

    def _sizes_at(self, variant: Variant, dims: Mapping[str, int]) -> tuple[int, ...]:
        key = (id(variant), tuple(sorted(dims.items())))
        if key not in self._sizes:
            self._spend(len(variant.sizes) + len(variant.derived))
            sizes = evaluate_all(variant.sizes_code, variant.complete(dims))
            if sizes and min(sizes) < 0:
                raise TapeError(f"tape {self.tape.pipeline}: a size is negative at these settings")
            if len(self._sizes) >= _MOST_REMEMBERED:  # a loop's index has come far
                self._sizes.clear()
            self._sizes[key] = sizes
        return self._sizes[key]

    def _step(
        self,
        op: Step,
        frame: Frame,
        variant: Variant,
        dims: Mapping[str, int],
        sizes: tuple[int, ...],
    ) -> None:
        kind = op[0]
        if kind == "w":
            operands = tuple(sizes[cast("int", n)] for n in op[2:])
            self._workspace(cast("str", op[1]), operands)
        elif kind == "c":
            arguments = {key: sizes[n] for key, n in cast("dict[str, int]", op[2]).items()}
            self._call(cast("str", op[1]), arguments, frame)
        elif kind == "f":
            blocks = resolve(frame, op)
            self._spend(len(blocks))
            for block in blocks:
                self.allocator.free(block)
        elif kind == "l":
            self._loop(op, frame, variant, dims)
        elif kind == "g":
            self._multiply(len(op))
        elif kind == "p":
            self.begin(cast("str", op[1]), cast("str", op[2]) if len(op) > 2 else "pipeline")
        elif kind == "t":
            self._cast(cast("str", op[1]), cast("int", op[2]))
        elif kind == "e":
            self._enter_module(cast("str", op[1]), cast("int", op[2]))
        else:
            self._exit_module(cast("str", op[1]), cast("int", op[2]))

    def _call(self, name: str, arguments: Mapping[str, int], frame: Frame) -> None:
        outer = self.component
        brought = self.residency.make_room_for(name)
        if brought is not None:
            self.begin(self.phase, brought)
            self._spend(self.residency.bring(brought))
        self.begin(self.phase, name)
        frame.slots.extend(self._routine(name, arguments))
        self.begin(self.phase, outer)

    def _workspace(self, kind: str, operands: tuple[int, ...]) -> None:
        conditions = self.conditions
        model, width = conditions.workspace_bytes, 0
        if conditions.cast_workspace_bytes:
            width = self.residency.cast_bytes(self.component.partition(".")[0])
            model = conditions.cast_workspace_bytes.get(width, model)
        plans = plans_of(model, kind, operands)
        size = plans[0]
        thread = product_thread(kind) if conditions.has_own_convolutions else 0
        if thread and thread not in self._cublas:  # while its own scratch is held
            self.listener.scratch_is_kept()
            block = self.allocator.malloc(size) if size else None
            self._multiply(thread)
            if block is not None:
                self.allocator.free(block)
            return
        self.listener.plans_known((kind, width, operands), plans)
        if not size:
            return
        self.listener.scratch_begins()
        self.allocator.lend(size)
        self.listener.scratch_ends()

    def _multiply(self, thread: int) -> None:
        """Let cuBLAS take its workspace for the first product of a thread."""
        if thread not in self._cublas:
            self._cublas[thread] = self.allocator.malloc(self.conditions.cublas_bytes)

    def _cast(self, component: str, element_bytes: int) -> None:
        self._spend(self.residency.cast(component, element_bytes))

    def _enter_module(self, component: str, module: int) -> None:
        self._spend(self.residency.enter_module(component, module))

    def _exit_module(self, component: str, module: int) -> None:
        self.residency.exit_module(component, module)

    # ---------------------------------------------------------------- loops
    def _loop(self, op: Step, frame: Frame, variant: Variant, dims: Mapping[str, int]) -> None:
        name = cast("str", op[1])
        before, body, after = (
            cast("list[Code]", op[3]),
            cast("Code", op[4]),
            cast("list[Code]", op[5]),
        )
        repeats = self._repeats(op, evaluate(cast("str", op[2]), variant.complete(dims)))
        iterations: list[Frame] = []
        place = (*frame.place, len(frame.loops))
        frame.loops.append(iterations)
        is_indexed = name in variant.names
        window = variant.windows[place]

        def iterate(code: Code, number: int) -> None:
            inner = Frame(frame, name, number, place)
            iterations.append(inner)
            self._sequence(code, inner, variant, {**dims, name: number} if is_indexed else dims)
            if window is not None and len(iterations) > window + 1:
                self._slots -= iterations[-window - 2].forget()

        for number, code in enumerate(before):
            iterate(code, number)
        may_cut = not (is_indexed or self.every_iteration or name in variant.peers)
        quiet, last = Quiet(), len(before) + repeats - 1
        if may_cut and repeats:
            self.listener.loop_begins()
        for number in range(len(before), len(before) + repeats):
            marks = len(self.trace.marks)
            iterate(body, number)
            if not may_cut:
                continue
            reserved_bytes, closed = (
                self.allocator.reserved_bytes,
                slice(marks, len(self.trace.marks)),
            )
            is_quiet = quiet.sees(reserved_bytes, self._peak_since(marks))
            is_last = is_quiet or number == last
            self.listener.iterated(closed, reserved_bytes, is_quiet=is_quiet, is_last=is_last)
            if is_last:
                break
        for number, code in enumerate(after, len(before) + repeats):
            iterate(code, number)

    def _repeats(self, op: Step, count: int) -> int:
        """Return how often a loop's body runs when the loop runs `count` times."""
        name, own = op[1], len(cast("Code", op[3])) + len(cast("Code", op[5]))
        tape = f"tape {self.tape.pipeline}"
        if count > _LONGEST_LOOP:
            raise TapeError(f"{tape}: loop {name} would run {count} times")
        if count < own or (count > own and not op[4]):
            more = " or more" if op[4] else ""
            raise TapeError(
                f"{tape} does not hold for {count} iterations of {name} (it knows {own}{more})"
            )
        return count - own

    def _peak_since(self, mark: int) -> int:
        peaks = [m.allocated_peak_bytes for m in self.trace.marks[mark:]]
        return max([self.allocator.highest_allocated_bytes, *peaks])


def replay(
    tape: Tape,
    conditions: Conditions,
    *,
    limit_bytes: int | None = None,
    expandable_segments: bool = False,
    runs: int = 1,
) -> Trace:
    """Load the tape and run it `runs` times in one process.

    Raises ReplayOutOfMemory where a run fails under the limit, TapeError where the tape does not
    hold for these settings.
    """
    allocator = CachingAllocator(
        limit_bytes=limit_bytes, expandable_segments=expandable_segments, limit_is_card=True
    )
    one = Replay(tape, conditions, allocator)
    one.load()
    for _ in range(runs):
        one.run()
    return one.trace
