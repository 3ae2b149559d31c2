"""Run a tape through the allocator model: numbers in, peaks out, no torch.

The interpreter walks the entry routine's code, calls other routines with their own dimensions, and hands
every allocation to a `CachingAllocator`. A loop whose iterations have stopped changing what is reserved and
how high they peak is cut short (a test holds this against running every one of them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import cast

from vramplan.errors import TapeError
from vramplan.tape.allocator import Block, CachingAllocator, OutOfDeviceMemory
from vramplan.tape.expressions import compile_expressions, evaluate, evaluate_all
from vramplan.tape.format import Code, Tape, Variant, read_slots

#: calls deeper than this are a damaged tape
_DEEPEST = 16
#: a loop longer than this is refused
_LONGEST_LOOP = 100_000

#: a loop is quiet after this many iterations that reserved nothing new and peaked alike. The state itself
#: wanders on (small tensors change places), so this is longer than any scheduler's memory of past steps
_QUIET = 6

#: how Stable Diffusion and SDXL hand the GPU on under model offload (diffusers, `model_cpu_offload_seq`)
_OFFLOAD_CHAIN = ("text_encoder", "text_encoder_2", "unet", "vae")

WorkspaceModel = Callable[[str, tuple[int, ...]], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Everything a replay depends on beside the tape.

    `numbers` are the settings as whole numbers (batch, width, height, steps, …), `facts` the words that
    choose variants (dtype, kernel, …). `workspace_bytes` gives a library's scratch from its operands'
    bytes; with `is_elastic`, scratch that does not fit is done without (torch tries the next plan).
    """

    numbers: Mapping[str, int]
    facts: Mapping[str, str]
    element_bytes: int
    workspace_bytes: WorkspaceModel
    cublas_bytes: int
    loading: str = "to"
    offload: str = "none"
    is_elastic: bool = False
    skip_components: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What one stretch of the run held: its peaks, and what it left behind. Bytes."""

    phase: str
    component: str
    allocated_peak_bytes: int
    reserved_peak_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    weights: tuple[tuple[str, int], ...]  # components on the device, and their bytes there


@dataclass(slots=True, kw_only=True)
class Trace:
    """A completed replay, stretch by stretch."""

    marks: list[Mark] = field(default_factory=list)
    retries: int = 0

    @property
    def allocated_peak_bytes(self) -> int:
        """Highest sum of live tensors."""
        return max(mark.allocated_peak_bytes for mark in self.marks)

    @property
    def reserved_peak_bytes(self) -> int:
        """Most that torch held from the driver."""
        return max(mark.reserved_peak_bytes for mark in self.marks)


class ReplayOutOfMemory(Exception):
    """The run failed for want of memory, in this phase, at this component, asking for this much."""

    def __init__(self, phase: str, component: str, asked_bytes: int) -> None:
        super().__init__(f"out of memory in {phase} at {component}, asking for {asked_bytes} bytes")
        self.phase = phase
        self.component = component
        self.asked_bytes = asked_bytes


class _Frame:
    """The slots of one sequence that runs, and the iterations of its loops."""

    __slots__ = ("loop", "loops", "number", "parent", "slots")

    def __init__(self, parent: _Frame | None, loop: str = "", number: int = 0) -> None:
        self.parent = parent
        self.loop = loop  # which loop's iteration this is, and which one
        self.number = number
        self.slots: list[Block] = []
        self.loops: list[list[_Frame]] = []


class Replay:
    """One run of one tape on one allocator."""

    def __init__(
        self,
        tape: Tape,
        conditions: Conditions,
        allocator: CachingAllocator,
        *,
        every_iteration: bool = False,
    ) -> None:
        self.tape = tape
        self.every_iteration = every_iteration
        self.conditions = conditions
        self.allocator = allocator
        self.trace = Trace()
        self.phase = "load"
        self.component = ""
        self.weights: dict[str, list[list[Block]]] = {}
        self._cublas: Block | None = None
        self._cast_bytes: dict[str, int] = {}  # element sizes that the pipeline changed
        self.weight_bytes: dict[str, int] = {}
        self._sizes: dict[tuple[int, tuple[tuple[str, int], ...]], tuple[int, ...]] = {}
        self._dims = tuple(tape.dims.items())

    # ------------------------------------------------------------- weights
    def load(self) -> None:
        """Bring the components to the device as the loader does."""
        offload = self.conditions.offload
        for name in self.tape.components:
            if name in self.conditions.skip_components:
                continue
            if offload == "none" or name in self._stays_on_device():
                self.begin("load", name)
                self.bring(name)
        self.close()

    def _stays_on_device(self) -> frozenset[str]:
        return frozenset({"safety_checker"})  # StableDiffusionPipeline._exclude_from_cpu_offload

    def bring(self, component: str) -> None:
        """Allocate a component's tensors in load order."""
        weights = self.tape.components[component]
        element_bytes = self._element_bytes(component)
        allocator = self.allocator
        try:
            if self.conditions.loading == "device_map" and self.conditions.offload == "none":
                # transformers' caching_allocator_warmup: one block of the whole size, given back at once
                allocator.free(allocator.malloc(weights.total_bytes(element_bytes)))
            self.weights[component] = [
                [allocator.malloc(size) for size in weights.tensor_bytes(m, element_bytes)]
                for m in range(len(weights.modules))
            ]
            self.weight_bytes[component] = weights.total_bytes(element_bytes)
        except OutOfDeviceMemory as error:
            raise ReplayOutOfMemory(self.phase, component, error.asked_bytes) from None

    def _element_bytes(self, component: str) -> int:
        return self._cast_bytes.get(component, self.conditions.element_bytes)

    def send_away(self, component: str) -> None:
        """Free a component's tensors."""
        self.weight_bytes.pop(component, None)
        for blocks in self.weights.pop(component, []):
            for block in blocks:
                self.allocator.free(block)

    # ---------------------------------------------------------------- marks
    def begin(self, phase: str, component: str) -> None:
        """Close the current stretch and begin one of `phase` and `component`."""
        self.close()
        self.phase, self.component = phase, component

    def close(self) -> None:
        """Write down the stretch that ends here."""
        allocator = self.allocator
        if self.component:
            self.trace.marks.append(
                Mark(
                    phase=self.phase,
                    component=self.component,
                    allocated_peak_bytes=allocator.peak_allocated_bytes,
                    reserved_peak_bytes=allocator.peak_reserved_bytes,
                    allocated_bytes=allocator.allocated_bytes,
                    reserved_bytes=allocator.reserved_bytes,
                    weights=tuple(self.weight_bytes.items()),
                )
            )
        allocator.reset_peaks()

    # ------------------------------------------------------------------ run
    def run(self) -> None:
        """Run the entry routine once; what it keeps at its end is freed (the result is let go)."""
        numbers = dict(self.conditions.numbers)
        for name, least in self.tape.least.items():
            numbers[name] = max(least, numbers.get(name, least))
        dims = {name: evaluate(text, numbers) for name, text in self._dims}
        self.begin(self._first_phase(dims), "pipeline")
        try:
            for block in self._routine(self.tape.entry, dims, 0):
                self.allocator.free(block)
        except OutOfDeviceMemory as error:
            raise ReplayOutOfMemory(self.phase, self.component, error.asked_bytes) from None
        except (IndexError, TypeError, KeyError) as error:
            raise TapeError(
                f"tape {self.tape.pipeline}: its code does not hold together ({error!r})"
            ) from error
        self.close()
        if self.conditions.offload == "model":
            self._end_offload()
        self.trace.retries = self.allocator.retries

    def _first_phase(self, dims: Mapping[str, int]) -> str:
        """Return the first phase the code names: what is uploaded before it belongs to it."""
        for op in self._choose(self.tape.entry, dims).plain_code:
            if isinstance(op, list) and op[0] == "p":
                return str(op[1])
        return "idle"

    def _choose(self, name: str, dims: Mapping[str, int]) -> Variant:
        facts = self.conditions.facts
        for variant in self.tape.routines.get(name, ()):
            if all(facts.get(key) in values for key, values in variant.when.items()) and (
                variant.condition is None
                or evaluate_all(_compiled(variant.condition), _complete(variant, dims))[0]
            ):
                return variant
        raise TapeError(
            f"tape {self.tape.pipeline} has no recording of {name} for these settings "
            f"({', '.join(f'{k}={v}' for k, v in sorted(facts.items()))})"
        )

    def _routine(self, name: str, dims: Mapping[str, int], depth: int) -> list[Block]:
        if depth > _DEEPEST:
            raise TapeError(f"tape {self.tape.pipeline}: calls are nested too deeply")
        variant = self._choose(name, dims)
        frame = _Frame(None)
        code = variant.code if self.conditions.offload == "sequential" else variant.plain_code
        self._sequence(code, frame, variant, dims, depth)
        return [frame.slots[slot] for slot in variant.outputs]

    def _sizes_at(self, variant: Variant, dims: Mapping[str, int]) -> tuple[int, ...]:
        key = (id(variant), tuple(sorted(dims.items())))
        if key not in self._sizes:
            self._sizes[key] = evaluate_all(variant.sizes_code, _complete(variant, dims))
        return self._sizes[key]

    def _sequence(
        self, code: Code, frame: _Frame, variant: Variant, dims: Mapping[str, int], depth: int
    ) -> None:
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
                self._step(cast("list[object]", op), frame, variant, dims, sizes, depth)

    def _step(
        self,
        op: list[object],
        frame: _Frame,
        variant: Variant,
        dims: Mapping[str, int],
        sizes: tuple[int, ...],
        depth: int,
    ) -> None:
        kind = op[0]
        if kind == "w":
            operands = tuple(sizes[cast("int", n)] for n in op[2:])
            self._workspace(cast("str", op[1]), operands)
        elif kind == "c":
            self._call(op, frame, sizes, depth)
        elif kind == "f":
            for block in _resolve(frame, op):
                self.allocator.free(block)
        elif kind == "l":
            self._loop(op, frame, variant, dims, depth)
        elif kind == "g":
            if self._cublas is None:
                self._cublas = self.allocator.malloc(self.conditions.cublas_bytes)
        elif kind == "p":
            self.begin(cast("str", op[1]), cast("str", op[2]) if len(op) > 2 else "pipeline")
        elif kind == "t":
            self._cast(cast("str", op[1]), cast("int", op[2]))
        elif kind == "e":
            self._enter_module(cast("str", op[1]), cast("int", op[2]))
        elif kind == "x":
            self._exit_module(cast("str", op[1]), cast("int", op[2]))
        else:
            raise TapeError(f"tape {self.tape.pipeline}: unknown step {kind!r}")

    def _workspace(self, kind: str, operands: tuple[int, ...]) -> None:
        size = self.conditions.workspace_bytes(kind, operands)
        if not size:
            return
        try:
            block = self.allocator.malloc(size)
        except OutOfDeviceMemory:
            if self.conditions.is_elastic:
                return
            raise
        self.allocator.free(block)

    def _call(self, op: list[object], frame: _Frame, sizes: tuple[int, ...], depth: int) -> None:
        name = cast("str", op[1])
        arguments = {key: sizes[n] for key, n in cast("dict[str, int]", op[2]).items()}
        outer = self.component
        self._enter_component(name)
        self.begin(self.phase, name)
        frame.slots.extend(self._routine(name, arguments, depth + 1))
        self.begin(self.phase, outer)

    def _cast(self, component: str, element_bytes: int) -> None:
        """Give every tensor of a component a new element size, as Module.to(dtype) does.

        What is in system memory just then comes to the device in its new size.
        """
        self._cast_bytes[component] = element_bytes
        weights, blocks = self.tape.components[component], self.weights.get(component)
        if blocks is None:
            return
        for module, held in enumerate(blocks):
            for i, size in enumerate(weights.tensor_bytes(module, element_bytes)):
                if isinstance(weights.modules[module][i], int):
                    new = self.allocator.malloc(size)
                    self.allocator.free(held[i])
                    held[i] = new
        self.weight_bytes[component] = weights.total_bytes(element_bytes)

    # ---------------------------------------------------------------- loops
    def _loop(
        self, op: list[object], frame: _Frame, variant: Variant, dims: Mapping[str, int], depth: int
    ) -> None:
        name, count_text = cast("str", op[1]), cast("str", op[2])
        before, body, after = (
            cast("list[Code]", op[3]),
            cast("Code", op[4]),
            cast("list[Code]", op[5]),
        )
        count = evaluate_all(_compiled(count_text), _complete(variant, dims))[0]
        if count > _LONGEST_LOOP:
            raise TapeError(f"tape {self.tape.pipeline}: loop {name} would run {count} times")
        iterations: list[_Frame] = []
        frame.loops.append(iterations)
        is_indexed = name in variant.names
        repeats = count - len(before) - len(after)
        if repeats < 0 or (repeats and not body):
            raise TapeError(
                f"tape {self.tape.pipeline} does not hold for {count} iterations of {name}"
                f" (it knows {len(before) + len(after)}{' or more' if body else ''})"
            )

        def iterate(code: Code, number: int) -> None:
            inner = _Frame(frame, name, number)
            iterations.append(inner)
            self._sequence(
                code, inner, variant, {**dims, name: number} if is_indexed else dims, depth
            )

        for number, code in enumerate(before):
            iterate(code, number)
        quiet, last = 0, (0, 0)
        for number in range(len(before), len(before) + repeats):
            marks = len(self.trace.marks)
            iterate(body, number)
            if is_indexed or self.every_iteration or name in variant.peers:
                continue
            now = (self.allocator.reserved_bytes, self._peak_since(marks))
            quiet = quiet + 1 if now == last else 0
            last = now
            if quiet == _QUIET:
                break
        for number, code in enumerate(after, len(before) + repeats):
            iterate(code, number)

    def _peak_since(self, mark: int) -> int:
        peaks = [m.allocated_peak_bytes for m in self.trace.marks[mark:]]
        return max([self.allocator.peak_allocated_bytes, *peaks])

    # -------------------------------------------------------------- offload
    def _enter_component(self, routine: str) -> None:
        """Do what accelerate's hooks do before a component runs.

        accelerate.hooks.CpuOffload.pre_forward: the component before this one in the chain leaves if it
        is there, and the cache is emptied; this one comes if it is not there. Any other stays, such as
        image to image's VAE, which encodes before the UNet runs.
        """
        top = routine.partition(".")[0]
        if self.conditions.offload != "model" or top not in self.tape.components:
            return
        chain = [name for name in _OFFLOAD_CHAIN if name in self.tape.components]
        place = chain.index(top) if top in chain else 0
        if place and chain[place - 1] in self.weights:
            self.send_away(chain[place - 1])
            self.allocator.empty_cache()
        if top not in self.weights:
            self.begin(self.phase, top)
            self.bring(top)

    def _end_offload(self) -> None:
        """Send every component away at the end of a run, as `maybe_free_model_hooks` does."""
        for name in [name for name in self.weights if name not in self._stays_on_device()]:
            self.send_away(name)
        self.allocator.empty_cache()

    def _enter_module(self, component: str, module: int) -> None:
        if self.conditions.offload != "sequential" or component in self._stays_on_device():
            return
        # accelerate.utils.set_module_tensor_to_device empties the cache after each tensor it brings
        blocks = []
        for size in self.tape.components[component].tensor_bytes(
            module, self._element_bytes(component)
        ):
            blocks.append(self.allocator.malloc(size))
            self.allocator.empty_cache()
        self.weights[f"{component}:{module}"] = [blocks]

    def _exit_module(self, component: str, module: int) -> None:
        if self.conditions.offload == "sequential":
            self.send_away(f"{component}:{module}")


def _resolve(frame: _Frame, op: list[object]) -> list[Block]:
    up, path = cast("int", op[1]), cast("list[tuple[int, object]]", op[2])
    place = frame
    for _ in range(up):
        if place.parent is None:
            raise IndexError("a free climbs out of its routine")
        place = place.parent
    places = [place]
    for ordinal, selector in path:
        if selector == "all":
            places = [inner for p in places for inner in p.loops[ordinal]]
        elif isinstance(selector, list) and selector[0] == "same":
            number = _number_in(frame, cast("str", selector[1]))
            places = [p.loops[ordinal][number] for p in places]
        elif isinstance(selector, list):
            places = [p.loops[ordinal][-1 - cast("int", selector[1])] for p in places]
        else:
            places = [p.loops[ordinal][cast("int", selector)] for p in places]
    return [p.slots[slot] for slot in read_slots(op[3:]) for p in places]


def _number_in(frame: _Frame, loop: str) -> int:
    """Return which iteration of the enclosing `loop` a frame belongs to."""
    place: _Frame | None = frame
    while place is not None and place.loop != loop:
        place = place.parent
    if place is None:
        raise IndexError(f"a free looks for the same iteration of {loop}, but is in none")
    return place.number


_COMPILED: dict[str, CodeType] = {}


def _compiled(text: str) -> CodeType:
    """Return one expression's code; the same few texts are evaluated over and over."""
    if text not in _COMPILED:
        _COMPILED[text] = compile_expressions([text])
    return _COMPILED[text]


def _complete(variant: Variant, dims: Mapping[str, int]) -> dict[str, int]:
    """Return `dims` with the derived ones; a loop's index is 0 outside of the loop."""
    known = {**dict.fromkeys(variant.indices, 0), **dims}
    for name, text in variant.derived.items():
        known[name] = evaluate_all(_compiled(text), known)[0]
    return known


def replay(
    tape: Tape,
    conditions: Conditions,
    *,
    limit_bytes: int | None = None,
    expandable_segments: bool = False,
    runs: int = 1,
) -> Trace:
    """Load and run the tape `runs` times in one process; raise ReplayOutOfMemory where a run fails."""
    allocator = CachingAllocator(limit_bytes=limit_bytes, expandable_segments=expandable_segments)
    one = Replay(tape, conditions, allocator)
    one.load()
    for _ in range(runs):
        one.run()
    return one.trace
