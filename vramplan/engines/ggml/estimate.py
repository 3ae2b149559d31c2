"""The budget of a ggml engine (llama.cpp, Ollama): a few buffers, allocated at load and kept.

`estimate_ggml` gives the budget when all that is asked for goes to the GPU; `fit_layers` gives what
the engine does on a card that may be too small.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from vramplan.budget.cuda_context import SOURCE, context_band
from vramplan.engines.ggml import engine_pools, recurrent_state
from vramplan.engines.ggml.closed_form import ComputeBuffers
from vramplan.engines.ggml.compute_buffer import compute_buffers, uses_graph
from vramplan.engines.ggml.defaults import CardMemory
from vramplan.engines.ggml.graph_buffer import graph_note, graph_source
from vramplan.engines.ggml.kv_cache import cache_source
from vramplan.engines.ggml.layer_fit import Fit, as_asked, fit_run, has_projector_on_gpu
from vramplan.engines.ggml.load_plan import GgmlRun, read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.weights import Placement, TensorRole
from vramplan.model import (
    Band,
    Card,
    Component,
    Estimate,
    GgmlBuffers,
    LayerSplit,
    Need,
    Origin,
    Peak,
    PhaseUse,
    Settings,
    Term,
    TimelinePoint,
)
from vramplan.units import format_size

if TYPE_CHECKING:
    from vramplan.engines.ggml.vision_model import VisionModel

LANGUAGE_MODEL = "language_model"
VISION_ENCODER = "vision_encoder"
PROJECTOR = "projector"
STATE = "recurrent state"

_WEIGHTS_SOURCE = "counted: every tensor's shape and type"
_COMPUTE_SOURCE = (
    "closed form of the graph that llama.cpp reserves (ggml-alloc.c), equal to published CUDA logs "
    "(profiles/engine_logs) of builds before #23861; high: what the CPU build b11549 holds"
)


def estimate_ggml(
    pipeline: GgmlPipeline,
    settings: Settings,
    compute_capability: str,
    context: Band,
    *,
    context_source: str = "given by the caller",
    card: CardMemory | None = None,
) -> Estimate:
    """Return the budget of `pipeline` when its engine gets all the memory it asks for.

    `gpu_layers` auto means all layers here, `context` auto what the engine begins with; `context`
    is the CUDA context's band. Raises UsageError for a setting that cannot be, CatalogError for a
    `ggml` mapping that does not say what it must.
    """
    run = read_run(pipeline, settings, compute_capability, card)
    return _budget(as_asked(run), _context_term(context, context_source), free_bytes=None)


def estimate_on(pipeline: GgmlPipeline, settings: Settings, card: Card) -> Estimate:
    """Return the budget of `pipeline` on a card's kind, when it gets all the memory it asks for."""
    capability = card.compute_capability
    return estimate_ggml(pipeline, settings, capability, context_band(), context_source=SOURCE)


def fit_layers(
    pipeline: GgmlPipeline,
    settings: Settings,
    compute_capability: str,
    context: Band,
    budget_bytes: int,
    *,
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
    fit = fit_run(run, free)
    estimate = _budget(fit, _context_term(context, context_source), free_bytes=free)
    assert estimate.layers is not None
    return estimate.layers, estimate


def _context_term(context: Band, source: str) -> Term:
    return Term(
        name="CUDA context",
        phase=None,
        component=None,
        band=context,
        origin=Origin.PUBLISHED,
        source=source,
    )


def _budget(fit: Fit, context: Term, *, free_bytes: int | None) -> Estimate:
    run, placement = fit.run, fit.placement
    vision = run.vision if has_projector_on_gpu(run, free_bytes) else None
    compute = compute_buffers(run.model, run.batch, placement, run.rules)
    terms = tuple(term for term in _terms(run, placement, compute, vision) if term.band.high_bytes)
    device = sum((term.band for term in terms), context.band)
    used = device.expected_bytes - context.band.expected_bytes
    timeline = _timeline(terms)
    return Estimate(
        pipeline=run.pipeline.name,
        title=run.pipeline.title,
        runtime=run.pipeline.runtime,
        settings=run.settings,
        compute_capability=run.compute_capability,
        components=tuple(_components(run, placement, vision)),
        phases=_phases(timeline, context.band.expected_bytes),
        terms=(*terms, context),
        peak=Peak(
            phase="prefill",
            component=LANGUAGE_MODEL,
            allocated_bytes=used,
            reserved_bytes=used,
            device=device,
        ),
        need=Need(band=device, phase="load", component=LANGUAGE_MODEL),
        timeline=timeline,
        buffers=_buffers(run, placement, compute, terms),
        layers=LayerSplit(
            total=run.model.total_layers,
            on_gpu=fit.on_gpu,
            experts_on_cpu=placement.blocks_without_experts,
        ),
        notes=tuple(_notes(run, placement, vision)),
    )


def _terms(
    run: GgmlRun, placement: Placement, compute: ComputeBuffers, vision: VisionModel | None
) -> Iterator[Term]:
    """Yield what is on the GPU, in the order in which it gets there.

    Terms have no phase: buffers are kept from load on, pools from their first use on.
    """
    exact, published, assumed = Origin.EXACT, Origin.PUBLISHED, Origin.ASSUMED
    weights = Band.exactly(placement.gpu_bytes)
    yield _term("weights", LANGUAGE_MODEL, weights, exact, _WEIGHTS_SOURCE)
    cache = Band.exactly(run.batch.cache_of_last(placement.blocks_on_gpu))
    yield _term("KV cache", LANGUAGE_MODEL, cache, exact, cache_source(run.model))
    states = Band.exactly(run.batch.states_of_last(placement.blocks_on_gpu))
    yield _term(STATE, LANGUAGE_MODEL, states, exact, recurrent_state.SOURCE)
    origin, source = published, _COMPUTE_SOURCE
    if uses_graph(run.model, run.rules):
        origin, source = graph_source(run.model, run.rules)
    yield _term("compute buffer", LANGUAGE_MODEL, compute.gpu, origin, source)
    if vision is not None:
        yield from _vision_terms(run, vision)
    if compute.gpu.high_bytes:
        band = engine_pools.language_pool(run.model, run.batch, run.compute_capability)
        yield _term("engine pools", LANGUAGE_MODEL, band, assumed, engine_pools.SOURCE)


def _vision_terms(run: GgmlRun, vision: VisionModel) -> Iterator[Term]:
    from vramplan.engines.ggml.projector import projector_compute, projector_source

    for component, role in _PARTS:
        band = Band.exactly(vision.part(role)[1])
        yield _term("weights", component, band, Origin.EXACT, _WEIGHTS_SOURCE)
    band = projector_compute(vision, has_flash=run.has_vision_flash)
    found = projector_source(vision)
    yield _term("projector compute", VISION_ENCODER, band, *found)
    band = engine_pools.vision_pool(vision, has_flash=run.has_vision_flash)
    yield _term("engine pools", VISION_ENCODER, band, Origin.ASSUMED, engine_pools.SOURCE)


_PARTS = ((VISION_ENCODER, TensorRole.VISION), (PROJECTOR, TensorRole.PROJECTOR))


def _term(name: str, component: str, band: Band, origin: Origin, source: str) -> Term:
    return Term(name=name, phase=None, component=component, band=band, origin=origin, source=source)


def _components(
    run: GgmlRun, placement: Placement, vision: VisionModel | None
) -> Iterator[Component]:
    is_whole = placement.on_gpu == run.model.total_layers and not placement.blocks_without_experts
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


def _timeline(terms: tuple[Term, ...]) -> tuple[TimelinePoint, ...]:
    """Return the bytes after each term came to be; generating takes nothing more."""
    steps = list(accumulate(term.band.expected_bytes for term in terms))
    points = [
        _point(_phase_of(term), term.component or LANGUAGE_MODEL, used)
        for term, used in zip(terms, steps, strict=True)
    ]
    return (*points, _point("generate", LANGUAGE_MODEL, steps[-1] if steps else 0))


def _point(phase: str, component: str, used_bytes: int) -> TimelinePoint:
    return TimelinePoint(
        phase=phase, component=component, allocated_bytes=used_bytes, reserved_bytes=used_bytes
    )


def _phase_of(term: Term) -> str:
    """Return the phase in which a term's memory is first taken."""
    if term.name != "engine pools":
        return "load"
    return "encode_image" if term.component == VISION_ENCODER else "prefill"


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
    run: GgmlRun, placement: Placement, compute: ComputeBuffers, terms: tuple[Term, ...]
) -> GgmlBuffers:
    def on_gpu(name: str, *components: str) -> int:
        return sum(
            term.band.expected_bytes
            for term in terms
            if term.name == name and term.component in components
        )

    projector = on_gpu("weights", VISION_ENCODER, PROJECTOR)
    host_projector = host_projector_compute = 0
    if run.vision is not None and not projector:
        from vramplan.engines.ggml.projector import projector_compute

        host_projector = run.vision.weights_bytes
        band = projector_compute(run.vision, has_flash=run.has_vision_flash)
        host_projector_compute = band.expected_bytes
    return GgmlBuffers(
        model_bytes=placement.gpu_bytes,
        kv_cache_bytes=on_gpu("KV cache", LANGUAGE_MODEL),
        recurrent_state_bytes=on_gpu(STATE, LANGUAGE_MODEL),
        compute_bytes=compute.gpu.expected_bytes,
        host_model_bytes=placement.host_bytes + host_projector,
        host_kv_cache_bytes=run.batch.cache_of_last(run.model.layers)
        - run.batch.cache_of_last(placement.blocks_on_gpu),
        host_compute_bytes=compute.host_bytes + host_projector_compute,
        projector_bytes=projector,
        projector_compute_bytes=on_gpu("projector compute", VISION_ENCODER),
        pool_bytes=on_gpu("engine pools", LANGUAGE_MODEL, VISION_ENCODER),
    )


def _notes(run: GgmlRun, placement: Placement, vision: VisionModel | None) -> Iterator[str]:
    if uses_graph(run.model, run.rules):
        yield graph_note(run.model)
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
        everything = run.batch.cache_of_last(run.model.layers)
        host_cache = everything - run.batch.cache_of_last(placement.blocks_on_gpu)
        states = run.batch.states_of_last(run.model.layers)
        states -= run.batch.states_of_last(placement.blocks_on_gpu)
        yield (
            f"{placement.on_gpu} of {run.model.total_layers} layers on the GPU; on the host "
            f"{format_size(placement.host_bytes, up=True)} of weights, "
            f"{format_size(host_cache, up=True)} of KV cache"
            + (f", {format_size(states, up=True)} of recurrent state" if states else "")
        )
    if placement.blocks_without_experts:
        yield (
            f"of {placement.blocks_without_experts} layers on the GPU the experts are in host "
            "memory; a big batch copies them to the GPU, a matrix at a time"
        )
    if run.vision is not None:
        from vramplan.engines.ggml.projector import projector_notes

        yield from projector_notes(run.vision)
        if vision is None:
            yield "the projector is on the CPU"
