"""What an engine allocates for the language model, line by line: counted, and where it is known.

*Exact* is said of families that the engine itself was held against (`coverage`); of others each
line has a band that follows from what a tensor or a cache can be at most, and is assumed.
"""

from __future__ import annotations

from dataclasses import replace

from vramplan.engines.ggml import coverage, recurrent_state
from vramplan.engines.ggml.compute_buffer import compute_buffers, uses_graph
from vramplan.engines.ggml.coverage import Part
from vramplan.engines.ggml.graph_buffer import graph_source
from vramplan.engines.ggml.kv_cache import cache_source, most_cache_bytes
from vramplan.engines.ggml.layer_fit import Fit
from vramplan.engines.ggml.weights import TensorRole
from vramplan.model import Band, Origin
from vramplan.quick_dataclass import dataclass

WEIGHTS_SOURCE = "counted: every tensor's shape and type"
COMPUTE_SOURCE = (
    "closed form of the graph that llama.cpp reserves (ggml-alloc.c), equal to published CUDA logs "
    "(profiles/engine_logs) of builds before #23861; high: what the CPU build b11549 holds"
)


_OTHER_CACHE = (
    "the graph with a cache of one type, beside its layers: what a cache in host memory, or of two "
    "types, changes is not known"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line's size in bytes, and where it comes from."""

    band: Band
    origin: Origin
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The language model's buffers: those with a line on the GPU, the rest in host memory.

    `experts_on_cpu`: of so many layers on the GPU the experts are in host memory.
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
    remarks: tuple[str, ...] = ()


def counted(fit: Fit) -> Figures:
    """Return what is counted for a fit, marked as assumed where the family is not known."""
    run, placement = fit.run, fit.placement
    batch, every, blocks = run.batch, run.model.layers, placement.blocks_on_gpu
    compute = compute_buffers(run.model, batch, placement, run.rules)
    origin, source = Origin.PUBLISHED, COMPUTE_SOURCE
    if uses_graph(run.model, run.rules):
        origin, source = graph_source(run.model, batch, run.rules)
    if batch.is_cache_on_host or batch.type_of_values != batch.cache_type:
        origin, source = Origin.ASSUMED, _OTHER_CACHE
        band = compute.gpu
        half, twice = band.low_bytes // 2, 2 * band.high_bytes
        wide = Band(low_bytes=half, expected_bytes=band.expected_bytes, high_bytes=twice)
        compute = replace(compute, gpu=wide)
    cache, states = batch.cache_on_gpu(blocks), batch.states_of_last(blocks)
    return Figures(
        weights=_weights(fit),
        cache=_cache(fit, cache),
        states=_states(fit, states),
        compute=Figure(band=compute.gpu, origin=origin, source=source),
        host_model_bytes=placement.host_bytes,
        host_cache_bytes=batch.cache_of_last(every) - cache,
        host_states_bytes=batch.states_of_last(every) - states,
        host_compute_bytes=compute.host_bytes,
        experts_on_cpu=placement.blocks_without_experts,
    )


def _weights(fit: Fit) -> Figure:
    """Return the weights on the GPU; of an unknown family what is in no layer may be there or not.

    Such are the table of words, norms, and the copy of a table that is the output matrix too.
    """
    model, size = fit.run.model, fit.placement.gpu_bytes
    if coverage.is_known(model, Part.WEIGHTS):
        return Figure(band=Band.exactly(size), origin=Origin.EXACT, source=WEIGHTS_SOURCE)
    rest = sum(tensor.cuda_bytes for tensor in model.tensors if tensor.role is TensorRole.INPUT)
    copies = sum(tensor.cuda_bytes for tensor in model.tensors if tensor.is_shared)
    low = size - (copies if fit.placement.output_on_gpu else 0)
    high = size + (rest if fit.on_gpu else 0)
    source = (
        f"every tensor's shape and type; where {_name(fit)} keeps those that belong to no layer is "
        "not known"
    )
    band = Band(low_bytes=low, expected_bytes=size, high_bytes=high)
    return Figure(band=band, origin=Origin.ASSUMED, source=source)


def _cache(fit: Fit, size: int) -> Figure:
    run = fit.run
    if coverage.is_known(run.model, Part.CACHE):
        return Figure(band=Band.exactly(size), origin=Origin.EXACT, source=cache_source(run.model))
    most = most_cache_bytes(run.model, run.batch, fit.placement.blocks_on_gpu)
    source = (
        f"what {_name(fit)} caches is not known: from nothing to keys, values and an index of "
        "every token in every layer"
    )
    band = Band(low_bytes=0, expected_bytes=size, high_bytes=max(size, most))
    return Figure(band=band, origin=Origin.ASSUMED, source=source)


def _states(fit: Fit, size: int) -> Figure:
    run = fit.run
    if coverage.is_known(run.model, Part.STATE):
        source = recurrent_state.SOURCE
        return Figure(band=Band.exactly(size), origin=Origin.EXACT, source=source)
    most = recurrent_state.most_state_bytes(
        run.model, run.batch.sequences, fit.placement.blocks_on_gpu
    )
    source = (
        f"what {_name(fit)} keeps of a sequence is not known: up to the largest state of the "
        "header's sizes in every layer"
    )
    band = Band(low_bytes=0, expected_bytes=size, high_bytes=max(size, most))
    return Figure(band=band, origin=Origin.ASSUMED, source=source)


def _name(fit: Fit) -> str:
    return fit.run.model.architecture or "this architecture"
