"""The budget of a ggml engine (llama.cpp, Ollama): a few buffers, allocated at load and kept.

`estimate_ggml` gives the budget when all that is asked for goes to the GPU; `fit_layers` gives what
the engine does on a card that may be too small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from vramplan.engines.ggml import engine_pools, lm_studio
from vramplan.engines.ggml.card_shares import HOST as NOWHERE
from vramplan.engines.ggml.closed_form import is_pipeline
from vramplan.engines.ggml.compute_buffer import uses_graph
from vramplan.engines.ggml.experts import Moved
from vramplan.engines.ggml.figures import Figures, encoder_weights_source, of_own_engine
from vramplan.engines.ggml.gpu_seats import Gpu, gpus_of, memory_of, oldest_capability
from vramplan.engines.ggml.graph_buffer import graph_note
from vramplan.engines.ggml.layer_fit import Fit, has_projector_on_gpu, layers_of
from vramplan.engines.ggml.load_plan import NEUTRAL, GgmlRun, read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.weights import Placement, TensorRole
from vramplan.engines.ggml.witnessed import settle
from vramplan.model import (
    HOST,
    LANGUAGE_MODEL,
    PROJECTOR,
    Band,
    Buffer,
    Card,
    CardShare,
    Component,
    Device,
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
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING
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
) -> Estimate:
    """Return the budget of `pipeline` when its engine gets all the memory it asks for.

    `gpu_layers` auto means all layers here, `context` auto what the engine begins with; `context`
    is the CUDA context's band. Raises UsageError for a setting that cannot be, CatalogError for a
    `ggml` mapping that does not say what it must.
    """
    gpu = Gpu(
        compute_capability=compute_capability,
        context=context,
        context_origin=context_origin,
        context_source=context_source,
    )
    return estimate_whole(pipeline, settings, (gpu,))


def estimate_on(pipeline: GgmlPipeline, settings: Settings, card: Card) -> Estimate:
    """Return the budget of `pipeline` on a card's kind, when it gets all the memory it asks for."""
    return estimate_whole(pipeline, settings, gpus_of(card))


def estimate_whole(pipeline: GgmlPipeline, settings: Settings, gpus: Sequence[Gpu]) -> Estimate:
    """Return the budget of all that is asked for on GPUs of this kind, whether they have room.

    Several share it by what is free on each. Raises as `estimate_ggml` does.
    """
    return estimate_run(run_on(pipeline, settings, gpus), gpus, None)[1]


def run_on(pipeline: GgmlPipeline, settings: Settings, gpus: Sequence[Gpu]) -> GgmlRun:
    """Return what an engine is asked to load on these GPUs. Raises as `estimate_ggml` does."""
    return read_run(pipeline, settings, oldest_capability(gpus), memory_of(gpus))


def free_beside_contexts(run: GgmlRun, gpus: Sequence[Gpu]) -> list[int]:
    """Return what the engine finds free on each of the GPUs that it takes, in bytes."""
    return [
        (gpus[number].budget_bytes or 0) - gpus[number].context.expected_bytes
        for number in run.cards
    ]


def estimate_run(
    run: GgmlRun, gpus: Sequence[Gpu], free_bytes: Sequence[int] | None
) -> tuple[Fit, Estimate]:
    """Return what the engine makes of a run on GPUs with so much free on each, and the budget.

    None stands for all that it asks for. Raises as `estimate_ggml` does.
    """
    fit, figures = settle(run, free_bytes)
    first = None if free_bytes is None else free_bytes[0]
    return fit, _budget(fit, figures, gpus, free_bytes=first)


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
    gpu = Gpu(
        compute_capability=compute_capability,
        context=context,
        context_origin=context_origin,
        context_source=context_source,
        total_bytes=total_bytes or budget_bytes,
        budget_bytes=budget_bytes,
    )
    estimate = estimate_placed(pipeline, settings, (gpu,))
    assert estimate.layers is not None
    return estimate.layers, estimate


def estimate_placed(
    pipeline: GgmlPipeline, settings: Settings, gpus: Sequence[Gpu], *, may_pipeline: bool = True
) -> Estimate:
    """Return the budget of what the engine puts on GPUs, each of which has a budget.

    Without `may_pipeline` several work one after the other, which takes less. Raises as
    `estimate_ggml` does.
    """
    run = run_on(pipeline, settings, gpus)
    run = replace(run, batch=replace(run.batch, may_pipeline=may_pipeline))
    return estimate_run(run, gpus, free_beside_contexts(run, gpus))[1]


def _context_line(gpu: Gpu, device: Device) -> Line:
    return Line(
        kind=LineKind.CUDA_CONTEXT,
        device=device,
        name="CUDA context",
        phase=None,
        component=None,
        band=gpu.context,
        origin=gpu.context_origin,
        source=gpu.context_source,
    )


def _budget(fit: Fit, figures: Figures, gpus: Sequence[Gpu], *, free_bytes: int | None) -> Estimate:
    run, placement = fit.run, fit.placement
    vision = run.vision if has_projector_on_gpu(run, free_bytes) else None
    found = [line for line in _lines(fit, gpus, figures, vision) if line.band.high_bytes]
    lines = tuple(sorted(found, key=lambda line: line.device.gpu or 0))
    # each of the cards that the engine takes has a context, whatever else is on it
    holding = sorted({*run.cards, *([] if vision is None else [run.projector_card])})
    contexts = tuple(_context_line(gpus[one], Device(gpu=one)) for one in holding)
    device = sum((line.band for line in (*lines, *contexts[1:])), contexts[0].band)
    context_bytes = sum(line.band.expected_bytes for line in contexts)
    used = device.expected_bytes - context_bytes
    timeline = _timeline(lines)
    buffers = tuple(_buffers(fit, figures, lines, vision))
    return Estimate(
        pipeline=run.pipeline.name,
        title=run.pipeline.title,
        runtime=run.pipeline.runtime,
        settings=_shown_settings(run, len(gpus)),
        compute_capability=run.compute_capability,
        components=tuple(_components(run, placement, figures, vision)),
        phases=_phases(timeline, context_bytes),
        lines=(*lines, *contexts),
        peak=Peak(
            phase="prefill",
            component=LANGUAGE_MODEL,
            allocated_bytes=used,
            reserved_bytes=used,
            device=device,
        ),
        need=Need(band=device, phase="load", component=LANGUAGE_MODEL),
        timeline=timeline,
        buffers=buffers,
        layers=LayerSplit(
            total=run.model.total_layers,
            on_gpu=fit.on_gpu,
            experts_on_cpu=figures.experts_on_cpu,
            are_experts=not run.moved.patterns,
        ),
        notes=(
            *_notes(run, placement, figures, vision),
            *_remote_notes(run, gpus),
            *_runtime_notes(fit, figures, buffers, device.expected_bytes),
        ),
        cards=tuple(_shares(fit, gpus, (*lines, *contexts), buffers)) if len(gpus) > 1 else (),
    )


#: what matters on several cards only
_SHARING = ("split_mode", "tensor_split", "main_gpu")


def _shown_settings(run: GgmlRun, cards: int) -> Settings:
    """Return the settings without those that mean nothing here: nobody asked for them."""
    hidden = {key for key, value in NEUTRAL.items() if run.settings.get(key) == value}
    hidden |= set(_SHARING) if cards == 1 else set()
    return {key: value for key, value in run.settings.items() if key not in hidden}


def _shares(
    fit: Fit, gpus: Sequence[Gpu], lines: Sequence[Line], buffers: Sequence[Buffer]
) -> Iterator[CardShare]:
    """Yield what each of several cards has."""
    layers = dict(zip(fit.run.cards, layers_of(fit), strict=True))
    for number, gpu in enumerate(gpus):
        device = Device(gpu=number)
        yield CardShare(
            device=device,
            card=gpu.name,
            card_title=gpu.title,
            need=sum((one.band for one in lines if one.device == device), Band.exactly(0)),
            layers=layers.get(number, 0),
            buffers=tuple(one for one in buffers if one.device == device),
        )


def _lines(
    fit: Fit, gpus: Sequence[Gpu], figures: Figures, vision: VisionModel | None
) -> Iterator[Line]:
    """Yield what is on each GPU, in the order in which it gets there.

    They have no phase: buffers are kept from load on, pools from their first use on.
    """
    run = fit.run
    for kind, figure in (
        (LineKind.WEIGHTS, figures.weights),
        (LineKind.KV_CACHE, figures.cache),
        (LineKind.RECURRENT_STATE, figures.states),
        (LineKind.COMPUTE_BUFFER, figures.compute),
    ):
        for number, band in zip(run.cards, figure.bands, strict=True):
            yield _line(
                kind, LANGUAGE_MODEL, band, figure.origin, figure.source, Device(gpu=number)
            )
    if vision is not None:
        yield from _vision_lines(run, vision)
    if run.adapters or run.has_control_vector or run.draft is not None:
        from vramplan.engines.ggml.lines_beside import lines_beside

        yield from lines_beside(fit, figures)
    for number, compute in zip(run.cards, figures.compute.bands, strict=True):
        if compute.high_bytes:
            capability = gpus[number].compute_capability
            band = engine_pools.language_pool(run.model, run.batch, capability)
            source, device = engine_pools.SOURCE, Device(gpu=number)
            yield _line(LineKind.ENGINE_POOL, LANGUAGE_MODEL, band, Origin.ASSUMED, source, device)


def _vision_lines(run: GgmlRun, vision: VisionModel) -> Iterator[Line]:
    from vramplan.engines.ggml.projector_compute import projector_compute, projector_source

    device = Device(gpu=run.projector_card)
    known = encoder_weights_source(run)
    for component, role in _PARTS:
        band = Band.exactly(vision.part(role)[1])
        yield _line(LineKind.WEIGHTS, component, band, *known, device)
    band = projector_compute(vision, has_flash=run.has_vision_flash)
    found = projector_source(vision)
    if run.is_own_engine:
        (band,), origin, said = of_own_engine([band])
        found = origin, said
    yield _line(LineKind.PROJECTOR_COMPUTE, VISION_ENCODER, band, *found, device)
    band = engine_pools.vision_pool(vision, has_flash=run.has_vision_flash)
    source = engine_pools.SOURCE
    yield _line(LineKind.ENGINE_POOL, VISION_ENCODER, band, Origin.ASSUMED, source, device)


_VISION = frozenset({VISION_ENCODER, PROJECTOR})
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


def _line(
    kind: LineKind, component: str, band: Band, origin: Origin, source: str, device: Device
) -> Line:
    return Line(
        kind=kind,
        device=device,
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
    if run.adapters or run.draft is not None:
        from vramplan.engines.ggml.lines_beside import components_beside

        yield from components_beside(run)
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
    fit: Fit, figures: Figures, lines: tuple[Line, ...], vision: VisionModel | None
) -> Iterator[Buffer]:
    """Yield the lines as the engine's buffers, then what it holds in host memory."""
    run = fit.run
    for line in lines:
        yield Buffer(
            kind=line.kind,
            device=line.device,
            size_bytes=line.band.expected_bytes,
            component=PROJECTOR if line.component in _VISION else LANGUAGE_MODEL,
        )
    on_host = {
        LineKind.WEIGHTS: figures.host_model_bytes,
        LineKind.KV_CACHE: figures.host_cache_bytes,
        LineKind.RECURRENT_STATE: figures.host_states_bytes,
        LineKind.COMPUTE_BUFFER: figures.host_compute_bytes,
    }
    if run.adapters or run.has_control_vector or run.draft is not None:
        from vramplan.engines.ggml.lines_beside import host_bytes_beside

        for kind, size_bytes in host_bytes_beside(fit).items():
            on_host[kind] += size_bytes
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


def _runtime_notes(
    fit: Fit, figures: Figures, buffers: Sequence[Buffer], used_bytes: int
) -> Iterator[str]:
    """Yield what the program that started the engine would say of it."""
    run = fit.run
    if run.pipeline.is_lm_studio:
        yield from lm_studio.notes(run.settings, tuple(buffers))
    elif run.is_ollama and (run.version is None or run.version.has_server):
        from vramplan.engines.ggml.ollama_ps import note

        yield note(fit, figures, buffers, used_bytes)


def _moved_note(run: GgmlRun) -> str:
    """Return how much the patterns of ``override_tensor`` put where."""
    found: dict[int, list[int]] = {}
    for tensor in run.model.tensors:
        place = Moved(patterns=run.moved.patterns).find(tensor.file_name, tensor.layer)
        if place is not None and not tensor.is_shared:
            found.setdefault(place, []).append(tensor.size_bytes)
    if not found:
        return "override_tensor: no tensor is called so, and nothing is moved"
    said = "; ".join(
        f"{len(sizes)} tensors of {format_size(sum(sizes), up=True)} "
        + ("in host memory" if place == NOWHERE else f"on gpu {run.cards[place]}")
        for place, sizes in sorted(found.items())
    )
    return f"override_tensor: {said}; a big batch copies what is in host memory to the GPU"


def _remote_notes(run: GgmlRun, gpus: Sequence[Gpu]) -> Iterator[str]:
    """Yield in which order the engine has cards of other machines, and what comes of it."""
    if not run.remotes:
        return
    if len(run.cards) > 1:
        order = ", ".join(gpus[number].name for number in run.cards)
        yield (
            f"llama.cpp counts cards of other machines first, so layers begin there, and "
            f"tensor_split and main_gpu mean this order: {order}"
        )
    if run.vision is not None and len(run.cards) > 1 and run.first_here not in run.cards[:1]:
        yield (
            "the engine's fit leaves room for the projector on the first card in this order, and "
            f"the projector goes to {gpus[run.first_here].name}"
        )


def _notes(
    run: GgmlRun, placement: Placement, figures: Figures, vision: VisionModel | None
) -> Iterator[str]:
    yield from figures.remarks
    if uses_graph(run.model, run.rules) and figures.compute.origin is not Origin.WITNESSED:
        yield graph_note(run.model, run.batch, run.rules, len(run.cards))
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
    if is_pipeline(run.model, run.batch, placement):
        from vramplan.engines.ggml.graph.split import PIPELINE_COPIES

        yield (
            f"the cards work in a pipeline: {PIPELINE_COPIES} copies of what goes into the graph, "
            "and from one card to the next, are in the compute buffers"
        )
    if placement.on_gpu < run.model.total_layers:
        states = figures.host_states_bytes
        yield (
            f"{placement.on_gpu} of {run.model.total_layers} layers on the GPU; on the host "
            f"{format_size(figures.host_model_bytes, up=True)} of weights, "
            f"{format_size(figures.host_cache_bytes, up=True)} of KV cache"
            + (f", {format_size(states, up=True)} of recurrent state" if states else "")
        )
    if run.moved.patterns:
        yield _moved_note(run)
    if run.adapters or run.has_control_vector or run.draft is not None:
        from vramplan.engines.ggml.lines_beside import notes_beside

        yield from notes_beside(run)
    if figures.experts_on_cpu and not run.moved.patterns:
        yield (
            f"of {figures.experts_on_cpu} layers on the GPU the experts are in host "
            "memory; a big batch copies them to the GPU, a matrix at a time"
        )
    if run.vision is not None:
        from vramplan.engines.ggml.projector_compute import projector_notes

        yield from projector_notes(run.vision)
        if vision is None:
            yield "the projector is on the CPU"
