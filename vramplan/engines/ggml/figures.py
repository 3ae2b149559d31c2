"""What an engine allocates for the language model, line by line: counted, and where it is known.

*Exact* is said of families that the engine itself was held against (`coverage`); of others each
line has a band that follows from what a tensor or a cache can be at most, and is assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vramplan.engines.ggml import coverage, recurrent_state
from vramplan.engines.ggml.compute_buffer import compute_buffers, uses_graph
from vramplan.engines.ggml.graph_buffer import graph_source, is_told
from vramplan.engines.ggml.kv_cache import cache_source, most_cache_bytes
from vramplan.engines.ggml.layer_fit import Fit
from vramplan.engines.ggml.pipeline import Described, GgmlPipeline
from vramplan.engines.ggml.weights import TensorRole
from vramplan.model import Band, Origin
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.ggml.load_plan import GgmlRun

_WEIGHTS_SOURCE = "counted: every tensor's shape and type"
_DESCRIBED_SOURCE = (
    "counted from the authors' sizes, with the type that llama-quantize gives each matrix; the "
    "file itself was not read"
)
COMPUTE_SOURCE = (
    "closed form of the graph that llama.cpp reserves (ggml-alloc.c), equal to published CUDA logs "
    "(profiles/engine_logs) of builds before #23861; high: what the CPU build b11549 holds"
)


_OTHER_CACHE = (
    "the graph with a cache of one type, beside its layers: what one in host memory, or of two "
    "types, changes is not known of this build or family"
)


_OWN_ENGINE = "llama.cpp's graph: that of Ollama's own engine is not known"
_OWN_CACHE = (
    "as llama.cpp's cache: Ollama's own engine has another, which kept every token of windowed "
    "layers too in some versions; at most keys and values of every token in every layer"
)
_OWN_STATES = "as llama.cpp keeps them: what Ollama's own engine keeps of a sequence is not known"
_OWN_WEIGHTS = "as llama.cpp would load them: how Ollama's own engine holds them is not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line's size in bytes, and where it comes from.

    Of several cards `cards` has the size on each, and `band` their sum.
    """

    band: Band
    origin: Origin
    source: str
    cards: tuple[Band, ...] = ()

    @property
    def bands(self) -> tuple[Band, ...]:
        """Return the size on each card."""
        return self.cards or (self.band,)


def weights_source(pipeline: GgmlPipeline) -> tuple[Origin, str]:
    """Return how far the weights of a known family are known, and whence."""
    file = pipeline.model
    if isinstance(file, Described) and not file.is_seen:
        return Origin.ASSUMED, _DESCRIBED_SOURCE
    return Origin.EXACT, _WEIGHTS_SOURCE


def over_cards(bands: Sequence[Band], origin: Origin, source: str) -> Figure:
    """Return a line's size on each card."""
    several = tuple(bands) if len(bands) > 1 else ()
    return Figure(band=sum(bands[1:], bands[0]), origin=origin, source=source, cards=several)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The language model's buffers: those with a line on the GPU, the rest in host memory.

    `experts_on_cpu`: of so many layers on the GPU the experts are in host memory. `has_adapters`:
    what LoRA adapters add to the graph is in the compute buffer. `draft_compute` is a draft model's
    compute buffer where the engine was asked for it.
    """

    weights: Figure
    cache: Figure
    states: Figure
    compute: Figure
    host_model_bytes: int
    host_cache_bytes: int
    host_states_bytes: int
    host_compute_bytes: int
    experts_on_cpu: int = 0
    has_adapters: bool = False
    draft_compute: Figure | None = None
    remarks: tuple[str, ...] = ()


def counted(fit: Fit) -> Figures:
    """Return what is counted for a fit, marked as assumed where the family is not known."""
    run, placement = fit.run, fit.placement
    batch, every = run.batch, run.model.layers
    compute = compute_buffers(run.model, batch, placement, run.rules)
    bands = compute.cards
    origin, source = Origin.PUBLISHED, COMPUTE_SOURCE
    if uses_graph(run.model, run.rules, len(placement.cards)):
        origin, source = graph_source(run.model, batch, run.rules, len(placement.cards))
    has_other_cache = batch.is_cache_on_host or batch.type_of_values != batch.cache_type
    if has_other_cache and not is_told(run.model, batch, run.rules, len(placement.cards)):
        origin, source = Origin.ASSUMED, _OTHER_CACHE
        bands = tuple(_wide(bands))
    if run.is_own_engine:
        bands, origin, source = of_own_engine(bands)
    cache, states = _cache(fit), _states(fit)
    return Figures(
        weights=_weights(fit),
        cache=cache,
        states=states,
        compute=over_cards(bands, origin, source),
        host_model_bytes=placement.host_bytes,
        host_cache_bytes=batch.cache_of_last(every) - cache.band.expected_bytes,
        host_states_bytes=batch.states_of_last(every) - states.band.expected_bytes,
        host_compute_bytes=compute.host_bytes,
        experts_on_cpu=placement.blocks_without_experts,
    )


def of_own_engine(bands: Iterable[Band]) -> tuple[tuple[Band, ...], Origin, str]:
    """Return what llama.cpp computes in for what Ollama's own engine does, and how far it holds."""
    return tuple(_wide(bands)), Origin.ASSUMED, _OWN_ENGINE


def encoder_weights_source(run: GgmlRun) -> tuple[Origin, str]:
    """Return how far the weights of a vision encoder are known, and whence."""
    if run.is_own_engine:  # llama.cpp widens some of them as it loads them
        return Origin.ASSUMED, _OWN_WEIGHTS
    return weights_source(run.pipeline)


def _wide(bands: Iterable[Band]) -> Iterable[Band]:
    for band in bands:
        half, twice = band.low_bytes // 2, 2 * band.high_bytes
        yield Band(low_bytes=half, expected_bytes=band.expected_bytes, high_bytes=twice)


def _weights(fit: Fit) -> Figure:
    """Return the weights on the GPU; of an unknown family what is in no layer may be there or not.

    Such are the table of words, norms, and the copy of a table that is the output matrix too.
    """
    model, parts = fit.run.model, fit.placement.cards
    if coverage.is_known(model):
        bands = [Band.exactly(part.weights_bytes) for part in parts]
        return over_cards(bands, *weights_source(fit.run.pipeline))
    rest = sum(tensor.cuda_bytes for tensor in model.tensors if tensor.role is TensorRole.INPUT)
    copies = sum(tensor.cuda_bytes for tensor in model.tensors if tensor.is_shared)
    source = (
        f"every tensor's shape and type; where {_name(fit)} keeps those that belong to no layer is "
        "not known"
    )
    bands = [
        Band(
            low_bytes=part.weights_bytes - (copies if part.has_output else 0),
            expected_bytes=part.weights_bytes,
            high_bytes=part.weights_bytes + (rest if part.layers else 0),
        )
        for part in parts
    ]
    return over_cards(bands, Origin.ASSUMED, source)


def _cache(fit: Fit) -> Figure:
    run, parts = fit.run, fit.placement.cards
    sizes = [run.batch.cache_on_card(part.first, part.stop) for part in parts]
    if coverage.is_known(run.model) and not run.is_own_engine:
        return over_cards([*map(Band.exactly, sizes)], Origin.EXACT, cache_source(run.model))
    most = [
        most_cache_bytes(run.model, run.batch, part.stop - part.first, run.model.layers - part.stop)
        for part in parts
    ]
    if coverage.is_known(run.model):  # ollama/ollama, kvcache/causal.go, by the version
        bands = [
            Band(low_bytes=one // 2, expected_bytes=one, high_bytes=max(one, high))
            for one, high in zip(sizes, most, strict=True)
        ]
        return over_cards(bands, Origin.ASSUMED, _OWN_CACHE)
    source = (
        f"what {_name(fit)} caches is not known: from nothing to keys, values and an index of "
        "every token in every layer"
    )
    return over_cards(_up_to(sizes, most), Origin.ASSUMED, source)


def _up_to(sizes: Sequence[int], most: Sequence[int]) -> list[Band]:
    return [
        Band(low_bytes=0, expected_bytes=size, high_bytes=max(size, high))
        for size, high in zip(sizes, most, strict=True)
    ]


def _states(fit: Fit) -> Figure:
    run, parts = fit.run, fit.placement.cards
    sizes = [run.batch.states_on_card(part.first, part.stop) for part in parts]
    if coverage.is_known(run.model):
        bands = [*map(Band.exactly, sizes)]
        if run.is_own_engine:
            return over_cards([*_wide(bands)], Origin.ASSUMED, _OWN_STATES)
        return over_cards(bands, Origin.EXACT, recurrent_state.SOURCE)
    most = [
        recurrent_state.most_state_bytes(run.model, run.batch.sequences, part.stop - part.first)
        for part in parts
    ]
    source = (
        f"what {_name(fit)} keeps of a sequence is not known: up to the largest state of the "
        "header's sizes in every layer"
    )
    return over_cards(_up_to(sizes, most), Origin.ASSUMED, source)


def _name(fit: Fit) -> str:
    return fit.run.model.architecture or "this architecture"
