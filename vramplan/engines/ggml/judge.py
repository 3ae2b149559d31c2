"""The verdict on a ggml engine: what it does by itself on a card that is too small for all."""

from __future__ import annotations

from vramplan.budget.cuda_context import Process, context_band, context_source
from vramplan.budget.verdict import Graded, grade, spills, without_words
from vramplan.budget.words import compare_with_budget, describe_room
from vramplan.catalog import usable_bytes
from vramplan.engines.ggml import coverage
from vramplan.engines.ggml.defaults import CardMemory
from vramplan.engines.ggml.estimate import context_line, estimate_run
from vramplan.engines.ggml.layer_fit import Fit, has_projector_on_gpu
from vramplan.engines.ggml.load_plan import GgmlRun, read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.model import (
    Buffer,
    Card,
    Estimate,
    Judgement,
    LineKind,
    Settings,
    VerdictKind,
    buffer_bytes,
)
from vramplan.quick_dataclass import replace
from vramplan.units import format_size

_LANGUAGE = frozenset({"language_model"})


def judge_ggml(
    pipeline: GgmlPipeline, settings: Settings, card: Card, budget_bytes: int
) -> Judgement:
    """Return what the engine does on a card.

    Raises as `estimate_ggml` does.
    """
    capability, total = card.compute_capability, usable_bytes(card)
    context = context_band(card, Process.GGML)
    origin, source = context_source(card, Process.GGML)
    line = context_line(context, origin, source)
    memory = CardMemory(total_bytes=total or budget_bytes, free_bytes=budget_bytes)
    run = read_run(pipeline, settings, capability, memory)
    free = budget_bytes - context.expected_bytes
    fit, placed = estimate_run(run, line, free)
    asked = placed if _is_as_asked(run, fit, free) else estimate_run(run, line, None)[1]
    left = _context_left(asked, placed)
    if settings.get("gpu_layers") == "auto" and _has_moved(asked, placed):
        other = read_run(pipeline, {**settings, **left}, capability, memory)
        _, whole = estimate_run(other, line, None)
        # the need that decides is the whole model's; what is placed is what will run
        shown = replace(placed, need=whole.need)
        reason = _split_reason(placed, whole, budget_bytes, bool(left))
        return Judgement(estimate=shown, kind=VerdictKind.OFFLOAD, reason=reason, is_split=True)
    kind = grade(placed.need.band, budget_bytes, spills=spills(settings))
    reason = _ggml_reason(placed, kind, budget_bytes, bool(left))
    return Judgement(estimate=placed, kind=kind, reason=reason)


class GgmlGrader:
    """Grades one model on one card after another (`budget.verdict.Grader`)."""

    def __init__(self, pipeline: GgmlPipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings

    def __call__(self, card: Card, budget_bytes: int) -> Graded:
        """Return the figures of `judge_ggml`."""
        return without_words(judge_ggml(self._pipeline, self._settings, card, budget_bytes))


def _is_as_asked(run: GgmlRun, fit: Fit, free_bytes: int) -> bool:
    """Return whether it is certain that a run is loaded as where there is more than enough."""
    return (
        coverage.is_whole(run.model)
        and fit.run is run
        and fit.on_gpu == run.asked_layers
        and has_projector_on_gpu(run, free_bytes) == has_projector_on_gpu(run, None)
    )


def _context_of(found: Estimate) -> int | None:
    tokens = found.settings.get("context")
    return tokens if isinstance(tokens, int) else None


def _context_left(asked: Estimate, placed: Estimate) -> dict[str, int]:
    """Return the context as a setting, where the engine takes less of it than it would."""
    before, now = _context_of(asked), _context_of(placed)
    return {} if now is None or before == now else {"context": now}


def _has_moved(asked: Estimate, placed: Estimate) -> bool:
    """True where the engine keeps more on the CPU than it was told to."""

    def on_cpu(found: Estimate) -> list[str]:
        return [component.name for component in found.components if component.device == "cpu"]

    return asked.layers != placed.layers or on_cpu(asked) != on_cpu(placed)


def _ggml_reason(
    found: Estimate, kind: VerdictKind, budget_bytes: int, has_less_context: bool
) -> str:
    placed = _layers(found) + _cut_context(found, has_less_context)
    if kind is VerdictKind.OOM:
        compared = compare_with_budget(found.need.band, budget_bytes)
        return f"fails to {found.need.phase} with {placed}: {compared}"
    if kind is VerdictKind.OFFLOAD:
        excess = format_size(found.need.band.expected_bytes - budget_bytes, up=True)
        return (
            f"spills {excess} into system memory and slows down with {placed}: "
            f"{compare_with_budget(found.need.band, budget_bytes)}"
        )
    return f"{placed}: {describe_room(found.need.band, kind, budget_bytes)}"


def _cut_context(found: Estimate, has_less_context: bool) -> str:
    if not has_less_context:
        return ""
    return f", the context cut to {_context_of(found):,} tokens"


def _split_reason(
    placed: Estimate, whole: Estimate, budget_bytes: int, has_less_context: bool
) -> str:
    aside = [c.name for c in placed.components if c.device == "cpu" and c.name not in _LANGUAGE]
    layers = placed.layers
    assert layers is not None
    rest = ["the rest"] if layers.on_gpu < layers.total else []
    where = f", {' and '.join(rest + aside)} on the CPU" if rest or aside else ""
    needed = format_size(whole.need.band.expected_bytes, up=True)
    free = format_size(budget_bytes, up=False)
    return (
        f"{_layers(placed)}{where}{_cut_context(placed, has_less_context)}: on the GPU all of it "
        f"needs {needed} and the margin that the engine keeps free, and {free} are available; "
        f"{_both_sides(placed)}"
    )


def _both_sides(placed: Estimate) -> str:
    """Return what is on the GPU and what in host memory."""
    assert placed.buffers
    return "; ".join(
        f"{where} {_listed(placed.buffers, on_host=on_host)}"
        for where, on_host in (("the GPU holds", False), ("host memory", True))
    )


#: what is told of each side
_SIDE = {
    "weights": (LineKind.WEIGHTS,),
    "KV cache": (LineKind.KV_CACHE,),
    "compute buffers": (LineKind.COMPUTE_BUFFER, LineKind.PROJECTOR_COMPUTE),
}


def _listed(buffers: tuple[Buffer, ...], *, on_host: bool) -> str:
    """Return ``702 MiB of weights, 48 MiB of KV cache``; what is empty is left out."""
    sizes = {name: buffer_bytes(buffers, *kinds, on_host=on_host) for name, kinds in _SIDE.items()}
    return ", ".join(
        f"{format_size(size, up=True)} of {name}" for name, size in sizes.items() if size
    )


def _layers(found: Estimate) -> str:
    if found.layers is None:
        return found.title
    if found.layers.is_whole:
        return f"all {found.layers.total} layers on the GPU"
    return found.layers.in_words()
