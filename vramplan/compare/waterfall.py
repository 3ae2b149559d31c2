"""From a model's weights to the number that nvidia-smi shows, step by step.

Each step is measured where something measured it, else it is the estimate's or the difference
between two measurements, and says which. What is left at the end is unaccounted.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import Run
from vramplan.model import Estimate, LineKind
from vramplan.quick_dataclass import dataclass


class Basis(StrEnum):
    """Where the measured side of a step comes from."""

    MEASURED = "measured"
    DIFFERENCE = "difference"  # between two measurements
    ESTIMATE = "estimate"  # nothing tells it apart: the estimate stands in


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the waterfall; `estimate_bytes` is None for what no estimate knows.

    `kind` is None for what is no line of a budget: other processes, the system's share.
    """

    kind: LineKind | None
    name: str
    estimate_bytes: int | None
    bytes: int
    basis: Basis


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """The steps, what they add up to, what was shown, and what nobody accounts for."""

    steps: tuple[Step, ...]
    shown_bytes: int
    shown_by: str

    @property
    def accounted_bytes(self) -> int:
        """The sum of the steps."""
        return sum(step.bytes for step in self.steps)

    @property
    def unaccounted_bytes(self) -> int:
        """What is shown and in no step; negative where the steps add up to more."""
        return self.shown_bytes - self.accounted_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was seen of a card with the process's memory still held; None is not known.

    `shown_bytes` is the figure to be explained and `shown_by` whose it is. `includes_reserve` says
    whether that figure has what the system keeps inside.
    """

    shown_bytes: int
    shown_by: str
    includes_reserve: bool = False
    system_reserved_bytes: int | None = None
    others_bytes: int | None = None
    process_bytes: int | None = None
    weights_bytes: int | None = None
    allocated_peak_bytes: int | None = None
    reserved_bytes: int | None = None
    context_bytes: int | None = None


#: what each step is called
_NAMES = {
    LineKind.WEIGHTS: "weights",
    LineKind.KV_CACHE: "KV cache",
    LineKind.RECURRENT_STATE: "recurrent state",
    LineKind.ACTIVATIONS: "activations",
    LineKind.COMPUTE_BUFFER: "compute buffer",
    LineKind.WORKSPACE: "workspace",
    LineKind.ALLOCATOR_SLACK: "allocator slack",
    LineKind.CUDA_CONTEXT: "CUDA context",
}
#: what nothing measures apart from activations
_AT_WORK = (
    LineKind.ACTIVATIONS,
    LineKind.GRADIENTS,
    LineKind.OPTIMIZER_STATE,
    LineKind.COMPUTE_BUFFER,
    LineKind.PROJECTOR_COMPUTE,
)
_SCRATCH = (LineKind.WORKSPACE, LineKind.ENGINE_POOL)


def draw_waterfall(estimate: Estimate, seen: Observed) -> Waterfall:
    """Return how the figure that is shown comes about."""
    return Waterfall(
        steps=tuple(step for step in _steps(estimate, seen) if step.bytes or step.estimate_bytes),
        shown_bytes=seen.shown_bytes,
        shown_by=seen.shown_by,
    )


def draw_seen(seen: Observed) -> Waterfall:
    """Return whose the figure is that is shown, where no pipeline is named that could explain it.

    torch's own message tells its tensors and what it holds besides; nvidia-smi tells processes.
    """
    return Waterfall(
        steps=tuple(step for step in _told(seen) if step.bytes),
        shown_bytes=seen.shown_bytes,
        shown_by=seen.shown_by,
    )


def _told(seen: Observed) -> Iterator[Step]:
    live, reserved, process = seen.allocated_peak_bytes, seen.reserved_bytes, seen.process_bytes
    if live is not None:
        yield _only(LineKind.ACTIVATIONS, "live tensors", live)
        if reserved is not None:
            name = _NAMES[LineKind.ALLOCATOR_SLACK]
            yield _only(LineKind.ALLOCATOR_SLACK, name, reserved - live, Basis.DIFFERENCE)
            if process is not None:
                name = _NAMES[LineKind.CUDA_CONTEXT]
                yield _only(LineKind.CUDA_CONTEXT, name, process - reserved, Basis.DIFFERENCE)
    elif process is not None:
        yield _only(None, "process", process)
    if seen.others_bytes is not None:
        yield _only(None, "other processes", seen.others_bytes)


def _only(kind: LineKind | None, name: str, size_bytes: int, basis: Basis = Basis.MEASURED) -> Step:
    return Step(kind=kind, name=name, estimate_bytes=None, bytes=size_bytes, basis=basis)


def _steps(estimate: Estimate, seen: Observed) -> Iterator[Step]:
    weights = estimate.bytes_of(LineKind.WEIGHTS)
    cache = estimate.bytes_of(LineKind.KV_CACHE)
    state = estimate.bytes_of(LineKind.RECURRENT_STATE)
    workspace = estimate.bytes_of(*_SCRATCH)
    activations = estimate.bytes_of(*_AT_WORK)
    slack = estimate.bytes_of(LineKind.ALLOCATOR_SLACK)

    has_buffer = estimate.bytes_of(LineKind.COMPUTE_BUFFER) > 0
    at_work = LineKind.COMPUTE_BUFFER if has_buffer else LineKind.ACTIVATIONS
    held = _or_estimate(seen.weights_bytes, weights)
    parts = (held, cache, state, workspace)
    held, cache_in, state_in, workspace_in = _within(seen, parts)
    yield _step(LineKind.WEIGHTS, weights, seen.weights_bytes, held)
    yield _step(LineKind.KV_CACHE, cache, None, cache_in)
    yield _step(LineKind.RECURRENT_STATE, state, None, state_in)
    if seen.allocated_peak_bytes is None:
        yield _step(at_work, activations, None)
    else:
        live = seen.allocated_peak_bytes - held - cache_in - state_in - workspace_in
        yield _difference(at_work, activations, live)
    yield _step(LineKind.WORKSPACE, workspace, None, workspace_in)
    if seen.reserved_bytes is None or seen.allocated_peak_bytes is None:
        yield _step(LineKind.ALLOCATOR_SLACK, slack, None)
    else:
        kept = seen.reserved_bytes - seen.allocated_peak_bytes
        yield _difference(LineKind.ALLOCATOR_SLACK, slack, kept)
    yield _context_step(estimate.bytes_of(LineKind.CUDA_CONTEXT), seen)
    if seen.others_bytes is not None:
        yield _only(None, "other processes", seen.others_bytes)
    if seen.includes_reserve and seen.system_reserved_bytes is not None:
        yield _only(None, "system reserved", seen.system_reserved_bytes)


def _context_step(context: int, seen: Observed) -> Step:
    """Return the CUDA context: what the process holds beside what torch has reserved."""
    if seen.process_bytes is not None and seen.reserved_bytes is not None:
        outside = seen.process_bytes - seen.reserved_bytes
        return _difference(LineKind.CUDA_CONTEXT, context, outside)
    return _step(LineKind.CUDA_CONTEXT, context, seen.context_bytes)


def _within(seen: Observed, parts: tuple[int, ...]) -> tuple[int, ...]:
    """Return the parts as large as what was allocated in all has room for, one after the other.

    A run that stopped while it loaded has not the weights that the estimate would put in; where
    weights are measured apart the parts stay as they are.
    """
    if seen.allocated_peak_bytes is None or seen.weights_bytes is not None:
        return parts
    room, found = seen.allocated_peak_bytes, []
    for size in parts:
        found.append(min(size, room))
        room -= found[-1]
    return tuple(found)


def _step(
    kind: LineKind, estimated: int, measured: int | None, stand_in: int | None = None
) -> Step:
    size = _or_estimate(measured, estimated if stand_in is None else stand_in)
    basis = Basis.ESTIMATE if size == estimated else Basis.DIFFERENCE
    return Step(
        kind=kind,
        name=_NAMES[kind],
        estimate_bytes=estimated,
        bytes=size,
        basis=basis if measured is None else Basis.MEASURED,
    )


def _difference(kind: LineKind, estimated: int, left: int) -> Step:
    return Step(
        kind=kind,
        name=_NAMES[kind],
        estimate_bytes=estimated,
        bytes=left,
        basis=Basis.DIFFERENCE,
    )


def _or_estimate(measured: int | None, estimated: int) -> int:
    return estimated if measured is None else measured


def observe_run(run: Run, *, smi_used_bytes: int | None) -> Observed | None:
    """Return what was seen at the end of a run, or None where the card was not looked at.

    `smi_used_bytes` is what nvidia-smi said at that instant, if it was asked.
    """
    held = run.held
    if held is None or held.device is None:
        return None
    device = held.device
    peaks = [one.torch for one in run.stretches if one.torch is not None]
    loaded = [part.allocated_bytes for part in run.components]
    is_moved = run.settings.get("offload", "none") != "none"
    shown = device.used_bytes if smi_used_bytes is None else smi_used_bytes
    return Observed(
        shown_bytes=shown,
        shown_by="NVML" if smi_used_bytes is None else "nvidia-smi",
        includes_reserve=_includes_reserve(shown, device),
        system_reserved_bytes=device.reserved_bytes,
        others_bytes=_others(run, device, held.process_used_bytes),
        process_bytes=held.process_used_bytes,
        weights_bytes=(
            None
            if is_moved or not loaded or None in loaded
            else sum(size for size in loaded if size is not None)
        ),
        allocated_peak_bytes=max((one.allocated_peak_bytes for one in peaks), default=None),
        reserved_bytes=held.torch.reserved_bytes if held.torch else None,
        context_bytes=_first_context(run),
    )


def _includes_reserve(shown: int, device: DeviceMemory) -> bool:
    """Return whether a figure is nearer to what is used with the system's share than without."""
    if device.reserved_bytes is None:
        return False
    without, with_it = device.used_bytes, device.used_bytes + device.reserved_bytes
    return abs(shown - with_it) < abs(shown - without)


def _others(run: Run, device: DeviceMemory, own: int | None) -> int | None:
    """Return what other processes hold: as listed, else what was used before the run."""
    sizes = [one.used_bytes for one in device.processes or ()]
    if own is not None and sizes and None not in sizes:
        return sum(size for size in sizes if size is not None) - own
    return run.before.used_bytes if run.before is not None else None


def _first_context(run: Run) -> int | None:
    """Return the context alone, from the process's figure or from how the card's rose."""
    for step in run.context:
        if step.process_used_bytes is not None:
            return step.process_used_bytes - step.reserved_bytes
        if run.before is not None:
            return step.device_used_bytes - run.before.used_bytes - step.reserved_bytes
    return None
