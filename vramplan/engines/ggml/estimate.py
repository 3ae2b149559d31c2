"""The budget of a ggml engine (llama.cpp, Ollama): a few buffers, allocated at load and kept.

`estimate_ggml` gives the budget when all that is asked for goes to the GPU; `fit_layers` gives what
the engine does on a card that may be too small.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from vramplan.budget.cuda_context import Process, context_band, context_source
from vramplan.engines.ggml import engine_pools
from vramplan.engines.ggml.compute_buffer import uses_graph
from vramplan.engines.ggml.defaults import CardMemory
from vramplan.engines.ggml.figures import WEIGHTS_SOURCE, Figures
from vramplan.engines.ggml.graph_buffer import graph_note
from vramplan.engines.ggml.layer_fit import Fit, has_projector_on_gpu
from vramplan.engines.ggml.load_plan import GgmlRun, read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.weights import Placement, TensorRole
from vramplan.engines.ggml.witnessed import settle
from vramplan.model import (
    GPU,
    HOST,
    LANGUAGE_MODEL,
    PROJECTOR,
    Band,
    Buffer,
    Card,
    Component,
    Estimate,
    LayerSplit,
    Line,
    LineKind,
    Need,
    Origin,
    Peak,
    PhaseUse,
    Settings,
    TimelinePoint,
)
from vramplan.units import format_size

if TYPE_CHECKING:
    from vramplan.engines.ggml.vision_model import VisionModel

VISION_ENCODER = "vision_encoder"


def estimate_ggml(
    pipeline: GgmlPipeline,
    settings: Settings,
    compute_capability: str,
    context: Band,
    *,
    context_origin: Origin = Origin.PUBLISHED,
    context_source: str = "given by the caller",
    card: CardMemory | None = None,
) -> Estimate:
    """Return the budget of `pipeline` when its engine gets all the memory it asks for.

    `gpu_layers` auto means all layers here, `context` auto what the engine begins with; `context`
    is the CUDA context's band. Raises UsageError for a setting that cannot be, CatalogError for a
    `ggml` mapping that does not say what it must.
    """
    run = read_run(pipeline, settings, compute_capability, card)
    fit, figures = settle(run, None)
    line = _context_line(context, context_origin, context_source)
    return _budget(fit, figures, line, free_bytes=None)


def estimate_on(pipeline: GgmlPipeline, settings: Settings, card: Card) -> Estimate:
    """Return the budget of `pipeline` on a card's kind, when it gets all the memory it asks for."""
    origin, source = context_source(card, Process.GGML)
    return estimate_ggml(
        pipeline,
        settings,
        card.compute_capability,
        context_band(card, Process.GGML),
        context_origin=origin,
        context_source=source,
    )


def fit_layers(
    pipeline: GgmlPipeline,
    settings: Settings,
    compute_capability: str,
    context: Band,
    budget_bytes: int,
    *,
    context_origin: Origin = Origin.PUBLISHED,
    context_source: str = "given by the caller",
    total_bytes: int | None = None,
) -> tuple[LayerSplit, Estimate]:
    """Return how many layers the engine puts on a card with `budget_bytes`, and the budget then.

    `total_bytes` are the card's, where others hold some of it or a margin is kept. See `layer_fit`
    for the rules. The engine sees what is free beside the CUDA context. Raises as `estimate_ggml`
    does.
    """
    card = CardMemory(total_bytes=total_bytes or budget_bytes, free_bytes=budget_bytes)
    run = read_run(pipeline, settings, compute_capability, card)
    free = budget_bytes - context.expected_bytes
    fit, figures = settle(run, free)
    line = _context_line(context, context_origin, context_source)
    estimate = _budget(fit, figures, line, free_bytes=free)
    assert estimate.layers is not None
    return estimate.layers, estimate


def _context_line(context: Band, origin: Origin, source: str) -> Line:
    return Line(
        kind=LineKind.CUDA_CONTEXT,
        device=GPU,
        name="CUDA context",
        phase=None,
        component=None,
        band=context,
        origin=origin,
        source=source,
    )


def _budget(fit: Fit, figures: Figures, context: Line, *, free_bytes: int | None) -> Estimate:
    run, placement = fit.run, fit.placement
    vision = run.vision if has_projector_on_gpu(run, free_bytes) else None
    lines = tuple(line for line in _lines(run, figures, vision) if line.band.high_bytes)
    device = sum((line.band for line in lines), context.band)
    used = device.expected_bytes - context.band.expected_bytes
    timeline = _timeline(lines)
    return Estimate(
        pipeline=run.pipeline.name,
        title=run.pipeline.title,
        runtime=run.pipeline.runtime,
        settings=run.settings,
        compute_capability=run.compute_capability,
        components=tuple(_components(run, placement, figures, vision)),
        phases=_phases(timeline, context.band.expected_bytes),
        lines=(*lines, context),
        peak=Peak(
            phase="prefill",
            component=LANGUAGE_MODEL,
            allocated_bytes=used,
            reserved_bytes=used,
            device=device,
        ),
        need=Need(band=device, phase="load", component=LANGUAGE_MODEL),
        timeline=timeline,
        buffers=tuple(_buffers(run, figures, lines, vision)),
        layers=LayerSplit(
            total=run.model.total_layers,
            on_gpu=fit.on_gpu,
            experts_on_cpu=figures.experts_on_cpu,
        ),
        notes=tuple(_notes(run, placement, figures, vision)),
    )


def _lines(run: GgmlRun, figures: Figures, vision: VisionModel | None) -> Iterator[Line]:
    """Yield what is on the GPU, in the order in which it gets there.

    They have no phase: buffers are kept from load on, pools from their first use on.
    """
    for kind, figure in (
        (LineKind.WEIGHTS, figures.weights),
        (LineKind.KV_CACHE, figures.cache),
        (LineKind.RECURRENT_STATE, figures.states),
        (LineKind.COMPUTE_BUFFER, figures.compute),
    ):
        yield _line(kind, LANGUAGE_MODEL, figure.band, figure.origin, figure.source)
    if vision is not None:
        yield from _vision_lines(run, vision)
    if figures.compute.band.high_bytes:
        band = engine_pools.language_pool(run.model, run.batch, run.compute_capability)
        source = engine_pools.SOURCE
        yield _line(LineKind.ENGINE_POOL, LANGUAGE_MODEL, band, Origin.ASSUMED, source)


def _vision_lines(run: GgmlRun, vision: VisionModel) -> Iterator[Line]:
    from vramplan.engines.ggml.projector_compute import projector_compute, projector_source

    for component, role in _PARTS:
        band = Band.exactly(vision.part(role)[1])
        yield _line(LineKind.WEIGHTS, component, band, Origin.EXACT, WEIGHTS_SOURCE)
    band = projector_compute(vision, has_flash=run.has_vision_flash)
    found = projector_source(vision)
    yield _line(LineKind.PROJECTOR_COMPUTE, VISION_ENCODER, band, *found)
    band = engine_pools.vision_pool(vision, has_flash=run.has_vision_flash)
    yield _line(LineKind.ENGINE_POOL, VISION_ENCODER, band, Origin.ASSUMED, engine_pools.SOURCE)


_PARTS = ((VISION_ENCODER, TensorRole.VISION), (PROJECTOR, TensorRole.PROJECTOR))


#: what people read on each line
_LABELS = {
    LineKind.WEIGHTS: "weights",
    LineKind.KV_CACHE: "KV cache",
    LineKind.RECURRENT_STATE: "recurrent state",
    LineKind.COMPUTE_BUFFER: "compute buffer",
    LineKind.PROJECTOR_COMPUTE: "projector compute",
    LineKind.ENGINE_POOL: "engine pools",
}


def _line(kind: LineKind, component: str, band: Band, origin: Origin, source: str) -> Line:
    return Line(
        kind=kind,
        device=GPU,
        name=_LABELS[kind],
        phase=None,
        component=component,
        band=band,
        origin=origin,
        source=source,
    )


def _components(
    run: GgmlRun, placement: Placement, figures: Figures, vision: VisionModel | None
) -> Iterator[Component]:
    is_whole = placement.on_gpu == run.model.total_layers and not figures.experts_on_cpu
    yield Component(
        name=LANGUAGE_MODEL,
        parameters=run.model.parameters,
        dtype=run.model.quantisation,
        weights_bytes=run.model.weights_bytes,
        device="gpu" if is_whole else "split" if placement.on_gpu else "cpu",
    )
    if run.vision is None:
        return
    for component, role in _PARTS:
        parameters, size_bytes = run.vision.part(role)
        yield Component(
            name=component,
            parameters=parameters,
            dtype=run.vision.quantisation,
            weights_bytes=size_bytes,
            device="cpu" if vision is None else "gpu",
        )


def _timeline(lines: tuple[Line, ...]) -> tuple[TimelinePoint, ...]:
    """Return the bytes after each line came to be; generating takes nothing more."""
    steps = list(accumulate(line.band.expected_bytes for line in lines))
    points = [
        _point(_phase_of(line), line.component or LANGUAGE_MODEL, used)
        for line, used in zip(lines, steps, strict=True)
    ]
    return (*points, _point("generate", LANGUAGE_MODEL, steps[-1] if steps else 0))


def _point(phase: str, component: str, used_bytes: int) -> TimelinePoint:
    return TimelinePoint(
        phase=phase, component=component, allocated_bytes=used_bytes, reserved_bytes=used_bytes
    )


def _phase_of(line: Line) -> str:
    """Return the phase in which a line's memory is first taken."""
    if line.kind is not LineKind.ENGINE_POOL:
        return "load"
    return "encode_image" if line.component == VISION_ENCODER else "prefill"


def _phases(timeline: tuple[TimelinePoint, ...], context_bytes: int) -> tuple[PhaseUse, ...]:
    """Return each phase's peak: its last point, because nothing is ever given back."""
    last = {point.phase: point for point in timeline}
    return tuple(
        PhaseUse(
            name=phase,
            component=LANGUAGE_MODEL if phase == "load" else point.component,
            allocated_peak_bytes=point.allocated_bytes,
            reserved_peak_bytes=point.reserved_bytes,
            device_used_bytes=point.reserved_bytes + context_bytes,
        )
        for phase, point in last.items()
    )


def _buffers(
    run: GgmlRun, figures: Figures, lines: tuple[Line, ...], vision: VisionModel | None
) -> Iterator[Buffer]:
    """Yield the lines as the engine's buffers, then what it holds in host memory."""
    for line in lines:
        yield Buffer(
            kind=line.kind,
            device=line.device,
            size_bytes=line.band.expected_bytes,
            component=LANGUAGE_MODEL if line.component == LANGUAGE_MODEL else PROJECTOR,
        )
    on_host = {
        LineKind.WEIGHTS: figures.host_model_bytes,
        LineKind.KV_CACHE: figures.host_cache_bytes,
        LineKind.RECURRENT_STATE: figures.host_states_bytes,
        LineKind.COMPUTE_BUFFER: figures.host_compute_bytes,
    }
    for kind, size_bytes in on_host.items():
        yield Buffer(kind=kind, device=HOST, size_bytes=size_bytes)
    if run.vision is not None and vision is None:
        from vramplan.engines.ggml.projector_compute import projector_compute

        band = projector_compute(run.vision, has_flash=run.has_vision_flash)
        for kind, size_bytes in (
            (LineKind.WEIGHTS, run.vision.weights_bytes),
            (LineKind.PROJECTOR_COMPUTE, band.expected_bytes),
        ):
            yield Buffer(kind=kind, device=HOST, size_bytes=size_bytes, component=PROJECTOR)


def _notes(
    run: GgmlRun, placement: Placement, figures: Figures, vision: VisionModel | None
) -> Iterator[str]:
    yield from figures.remarks
    if uses_graph(run.model, run.rules) and figures.compute.origin is not Origin.WITNESSED:
        yield graph_note(run.model, run.batch, run.rules)
    yield (
        f"compute buffers follow the rules of llama.cpp b{run.rules.build} on CUDA, "
        f"{'with' if run.batch.has_flash else 'without'} flash attention"
    )
    yield from run.remarks
    if not run.rules.fits and (run.wanted_layers is None or run.may_shrink_context):
        yield (
            f"b{run.rules.build} fits nothing to the card by itself: auto is answered as newer "
            "builds do"
        )
    yield "the token embedding stays in host memory whatever gpu_layers says"
    if placement.on_gpu < run.model.total_layers:
        states = figures.host_states_bytes
        yield (
            f"{placement.on_gpu} of {run.model.total_layers} layers on the GPU; on the host "
            f"{format_size(figures.host_model_bytes, up=True)} of weights, "
            f"{format_size(figures.host_cache_bytes, up=True)} of KV cache"
            + (f", {format_size(states, up=True)} of recurrent state" if states else "")
        )
    if figures.experts_on_cpu:
        yield (
            f"of {figures.experts_on_cpu} layers on the GPU the experts are in host "
            "memory; a big batch copies them to the GPU, a matrix at a time"
        )
    if run.vision is not None:
        from vramplan.engines.ggml.projector_compute import projector_notes

        yield from projector_notes(run.vision)
        if vision is None:
            yield "the projector is on the CPU"
