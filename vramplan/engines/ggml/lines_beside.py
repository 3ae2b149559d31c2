"""The lines of what is loaded beside a model: adapters, control vectors, a draft model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vramplan.engines.ggml.figures import Figure, Figures, counted
from vramplan.engines.ggml.files_beside import adapter_bytes, vector_bytes
from vramplan.engines.ggml.layer_fit import Fit, as_asked
from vramplan.engines.ggml.load_plan import GgmlRun
from vramplan.model import Band, Component, Device, Line, LineKind, Origin

LORA, VECTOR, DRAFT = "lora", "control_vector", "draft_model"

_COUNTED = "counted: every tensor's shape and type, beside the matrix that it belongs to"
_VECTORS = "counted: a vector of the model's states in each layer but the first"
_SECOND = (
    "assumed: a product with an adapted matrix has a second result beside its own; from nothing, "
    "where the graph has room for it elsewhere, to one more of the largest"
)
_SAMPLING = (
    "the draft model's own graph; what sampling on the GPU adds to it is not known (up to as much "
    "again)"
)


def lines_beside(fit: Fit, told: Figures) -> Iterator[Line]:
    """Yield what files beside the model take on the GPUs; `told` are the model's own figures."""
    run, placement = fit.run, fit.placement
    if run.adapters:
        found = adapter_bytes(run.adapters, run.model, placement, run.batch.tokens)
        yield from _exact("LoRA adapters", LORA, run.cards, found.cards, _COUNTED)
        scratch = () if told.has_adapters else zip(run.cards, found.scratch, strict=True)
        for number, size in scratch:
            band = Band(low_bytes=0, expected_bytes=size, high_bytes=2 * size)
            yield _line(
                LineKind.COMPUTE_BUFFER, "adapters' results", LORA, number, band,
                Origin.ASSUMED, _SECOND,
            )  # fmt: skip
    if run.has_control_vector:
        sizes = vector_bytes(run.model, placement).cards
        yield from _exact("control vectors", VECTOR, run.cards, sizes, _VECTORS)
    if run.draft is not None:
        yield from _draft_lines(run, run.draft, told.draft_compute)


def _exact(
    name: str, component: str, cards: Sequence[int], sizes: Sequence[int], source: str
) -> Iterator[Line]:
    for number, size in zip(cards, sizes, strict=True):
        band = Band.exactly(size)
        yield _line(LineKind.WEIGHTS, name, component, number, band, Origin.EXACT, source)


def _draft_lines(run: GgmlRun, draft: GgmlRun, compute: Figure | None) -> Iterator[Line]:
    figures = counted(as_asked(draft))
    for kind, name, figure in (
        (LineKind.WEIGHTS, "draft weights", figures.weights),
        (LineKind.KV_CACHE, "draft KV cache", figures.cache),
        (LineKind.RECURRENT_STATE, "draft recurrent state", figures.states),
    ):
        for number, band in zip(run.cards, figure.bands, strict=True):
            yield _line(kind, name, DRAFT, number, band, figure.origin, figure.source)
    if compute is not None:
        for number, band in zip(run.cards, compute.bands, strict=True):
            yield _line(
                LineKind.COMPUTE_BUFFER, "draft compute buffer", DRAFT, number, band,
                compute.origin, compute.source,
            )  # fmt: skip
        return
    for number, band in zip(run.cards, figures.compute.bands, strict=True):
        wide = Band(
            low_bytes=band.low_bytes,
            expected_bytes=band.expected_bytes,
            high_bytes=2 * band.high_bytes,
        )
        yield _line(
            LineKind.COMPUTE_BUFFER, "draft compute buffer", DRAFT, number, wide,
            Origin.ASSUMED, _SAMPLING,
        )  # fmt: skip


def _line(
    kind: LineKind, name: str, component: str, card: int, band: Band, origin: Origin, source: str
) -> Line:
    return Line(
        kind=kind,
        device=Device(gpu=card),
        name=name,
        phase=None,
        component=component,
        band=band,
        origin=origin,
        source=source,
    )


def components_beside(run: GgmlRun) -> Iterator[Component]:
    """Yield the adapters, as one, and the draft model."""
    if run.adapters:
        yield Component(
            name=LORA,
            parameters=sum(one.parameters for one in run.adapters),
            dtype=run.adapters[0].dtype,
            weights_bytes=sum(one.size_bytes for one in run.adapters),
            device="gpu" if run.asked_layers == run.model.total_layers else "split",
        )
    if run.draft is not None:
        yield Component(
            name=DRAFT,
            parameters=run.draft.model.parameters,
            dtype=run.draft.model.quantisation,
            weights_bytes=run.draft.model.weights_bytes,
            device="gpu",
        )


def host_bytes_beside(fit: Fit) -> Counter[LineKind]:
    """Return what files beside the model take in host memory, by kind."""
    run, found = fit.run, Counter[LineKind]()
    if run.adapters:
        adapters = adapter_bytes(run.adapters, run.model, fit.placement, run.batch.tokens)
        found[LineKind.WEIGHTS] += adapters.host
    if run.has_control_vector:
        found[LineKind.WEIGHTS] += vector_bytes(run.model, fit.placement).host
    if run.draft is not None:
        figures: Figures = counted(as_asked(run.draft))
        found[LineKind.WEIGHTS] += figures.host_model_bytes
        found[LineKind.COMPUTE_BUFFER] += figures.host_compute_bytes
    return found


def notes_beside(run: GgmlRun) -> Iterator[str]:
    """Yield what a reader must know of these files."""
    if run.adapters or run.has_control_vector:
        yield "the engine's fit knows no adapters and control vectors: they come out of its margin"
    if run.draft is not None:
        yield (
            "the draft model has all its layers on the GPU, a context as long as the model's and a "
            f"cache in f16, and guesses {run.guesses} tokens ahead: "
            f"{'Ollama' if run.is_ollama else 'llama.cpp'}'s defaults, and the fit counts it"
        )
