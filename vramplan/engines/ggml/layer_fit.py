"""What an engine does on a GPU that is too small for all it was asked for.

llama.cpp (common/fit.cpp, since #16653) adds up the weights, cache and compute buffer that it is
about to allocate, and changes what nobody set until its margin is left free:

1. the context, where it was not given: to what fits, but not below 4,096 tokens;
2. the layers, as many as fit, from the last; of a mixture of experts the layers without their
   experts, but for the first of them;
3. of a mixture whose layers fit so, the experts too, layer by layer from the first, and of one
   more layer a part.

Where layers, or experts in host memory, were asked for in numbers it gives up after the context.

The margin is 1 GiB and the memory of the projector, which always goes to the GPU (#21489). Ollama
(llm/llama_server.go) sets the margin to 1 GiB and the projector's weights, to which llama.cpp adds
the projector's memory once more; it moves the projector to the CPU where less than its weights and
1 GiB are free, or when fewer layers are asked for than there are. It always gives the context.

CUDA contexts and pools are in nobody's sum: they come out of the margin.
"""

from __future__ import annotations

from collections.abc import Callable

from vramplan.engines.ggml.compute_buffer import compute_buffers
from vramplan.engines.ggml.experts import HostExperts, HostPart
from vramplan.engines.ggml.load_plan import GgmlRun
from vramplan.engines.ggml.weights import Placement, place_layers
from vramplan.quick_dataclass import dataclass, replace
from vramplan.units import MIB

#: llama.cpp: common/common.h (fit_params_target); Ollama: mmprojOffloadHeadroom
MARGIN_BYTES = 1024 * MIB
#: llama.cpp: common/common.h (fit_params_min_ctx), for each cache
LEAST_CONTEXT = 4096
#: contexts are cut down to whole ones of these, for each cache
_CONTEXT_STEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What is loaded: a run, at the context that is left to it, and its layers on the GPU."""

    run: GgmlRun
    on_gpu: int

    @property
    def placement(self) -> Placement:
        """Return what is where, by the rules of the run's engine."""
        return place_layers(
            self.run.model,
            self.on_gpu,
            output_first=self.run.rules.output_layer_first,
            experts=self.run.experts,
        )


def as_asked(run: GgmlRun) -> Fit:
    """Return what is loaded where there is more than enough memory."""
    return Fit(run=run, on_gpu=run.asked_layers)


def has_projector_on_gpu(run: GgmlRun, free_bytes: int | None) -> bool:
    """Return whether the projector goes to the GPU; None stands for more than enough memory."""
    if run.vision is None:
        return False
    if not run.is_ollama:
        return True
    if run.wanted_layers is not None and run.wanted_layers < run.model.total_layers:
        return False
    return free_bytes is None or free_bytes >= run.vision.weights_bytes + MARGIN_BYTES


def margin_bytes(run: GgmlRun, free_bytes: int) -> int:
    """Return what the engine wants to leave free, the projector's memory included."""
    if run.vision is None or not has_projector_on_gpu(run, free_bytes):
        return MARGIN_BYTES
    from vramplan.engines.ggml.projector_compute import projector_compute

    weights = run.vision.weights_bytes
    compute = projector_compute(run.vision, has_flash=run.has_vision_flash).expected_bytes
    twice = -(-weights // MIB) * MIB if run.is_ollama else 0  # Ollama passes whole MiB
    return MARGIN_BYTES + weights + compute + twice


def least_free_bytes(run: GgmlRun) -> int:
    """Return how much must be free beside the CUDA context for an engine to move nothing away."""
    enough = 1 << 60
    return _used_bytes(as_asked(run)) + margin_bytes(run, enough)


def fit_run(run: GgmlRun, free_bytes: int) -> Fit:
    """Return what the engine makes of `run` on a GPU with `free_bytes`."""
    target = free_bytes - margin_bytes(run, free_bytes)
    whole = as_asked(run)
    if _used_bytes(whole) <= target:
        return whole
    if run.may_shrink_context:
        whole, is_enough = _shrink(run, target)
        if is_enough:
            return whole
    if run.wanted_layers is not None or run.experts.stop:
        return whole
    if run.model.has_experts:
        return _fit_mixture(whole.run, target)
    used = _Remembered(lambda layers: Fit(run=whole.run, on_gpu=layers))
    return used.fit(_most_within(target, 0, run.model.total_layers, used))


def _used_bytes(fit: Fit) -> int:
    """Return what the engine adds up for the GPU."""
    run, placement = fit.run, fit.placement
    compute = compute_buffers(run.model, run.batch, placement, run.rules).gpu.expected_bytes
    kept = run.batch.cache_on_gpu(placement.blocks_on_gpu)
    kept += run.batch.states_of_last(placement.blocks_on_gpu)
    return placement.gpu_bytes + kept + compute


def _shrink(run: GgmlRun, target: int) -> tuple[Fit, bool]:
    """Return the run at the context that is left, and whether everything fits with it.

    Between the least context and the model's the engine takes the straight line.
    """
    streams = run.batch.streams
    largest = run.model.trained_context * streams
    least = LEAST_CONTEXT * streams
    if largest <= least:
        return as_asked(run), False
    smallest = as_asked(run.with_context(least))
    used, used_least = _used_bytes(as_asked(run)), _used_bytes(smallest)
    if not used > used_least or not target > used_least:
        return smallest, False
    tokens = least + (largest - least) * (target - used_least) // (used - used_least)
    tokens -= tokens % (_CONTEXT_STEP * streams)
    return as_asked(run.with_context(max(tokens, least))), True


class _Remembered:
    """The bytes of one fit after another, each counted once."""

    def __init__(self, fit: Callable[[int], Fit]) -> None:
        self.fit = fit
        self._known: dict[int, int] = {}

    def __call__(self, number: int) -> int:
        if number not in self._known:
            self._known[number] = _used_bytes(self.fit(number))
        return self._known[number]


def _most_within(target: int, low: int, high: int, used: Callable[[int], int]) -> int:
    """Return how far the engine gets from `low` towards `high` without using more than `target`.

    It guesses along the straight line between the two, and puts the guess in place of the one or
    the other until nothing is between them; bytes need not grow with every step, so another search
    could end elsewhere.
    """
    if used(high) <= target:
        return high
    while high - low > 1:
        middle = low + _guess(high - low, target - used(low), used(high) - used(low))
        if used(middle) <= target:
            low = middle
        else:
            high = middle
    return low


def _guess(between: int, room: int, rise: int) -> int:
    """Return how far along the straight line `room` is, of a `rise` over `between` steps.

    At least one step, and not all. Where not even nothing fits, the engine's number wraps round and
    is larger than all.
    """
    if rise <= 0 or -between * room >= rise:
        return between - 1
    return min(max(between * room // rise, 1), between - 1)


# ------------------------------------------------------------------- mixtures of experts
@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """Layers on the GPU, the output layer among them; the last `parts` without their experts."""

    layers: int
    parts: int
    first_part: HostPart = HostPart.EXPERTS

    def of(self, run: GgmlRun) -> Fit:
        """Return the run with this split.

        Whole layers come first, and the output layer counts as one of them, so that one block more
        has its experts on the GPU than is said here.
        """
        blocks = run.model.layers
        first = blocks + 1 - self.parts
        experts = HostExperts(first=first, stop=blocks, first_part=self.first_part)
        return Fit(run=replace(run, experts=experts), on_gpu=self.layers)


def _fit_mixture(run: GgmlRun, target: int) -> Fit:
    every = replace(run, experts=HostExperts(stop=run.model.layers))
    has_surplus = _used_bytes(as_asked(every)) < target
    split = _fill_without_experts(run, target)
    if not has_surplus:
        return split.of(run)

    def converted(count: int) -> Fit:
        return replace(split, parts=split.parts - count).of(run)

    used = _Remembered(converted)
    split = replace(split, parts=split.parts - _most_within(target, 0, split.parts, used))
    if split.layers > 1:
        split = _part_of_one_more(run, split, target)
    return split.of(run)


def _fill_without_experts(run: GgmlRun, target: int) -> _Split:
    """Return as many layers as fit, from the last, all but one block without its experts."""

    def used(split: _Split) -> int:
        return _used_bytes(split.of(run))

    total = run.model.total_layers
    low, high = _Split(layers=0, parts=0), _Split(layers=total, parts=total - 1)
    if used(high) <= target:
        return high
    while high.layers - low.layers > 1:
        between = high.layers - low.layers
        step = _guess(between, target - used(low), used(high) - used(low))
        # the first layer is the output layer, which is never in parts
        parts = low.parts + (step if low.parts else step - 1)
        middle = _Split(layers=low.layers + step, parts=parts)
        if used(middle) <= target:
            low = middle
        else:
            high = middle
    return low


def _part_of_one_more(run: GgmlRun, split: _Split, target: int) -> _Split:
    """Return the split with as much of the next layer as still fits, or its attention alone."""

    def has_room(part: HostPart) -> bool:
        return _used_bytes(replace(split, first_part=part).of(run)) < target

    if has_room(HostPart.ALL_BUT_UP):
        finer = has_room(HostPart.ALL_BUT_GATE)
        part = HostPart.ALL_BUT_GATE if finer else HostPart.ALL_BUT_UP
        return replace(split, first_part=part)
    if has_room(HostPart.ALL_BUT_ATTENTION):
        return replace(split, first_part=HostPart.ALL_BUT_ATTENTION)
    return split
