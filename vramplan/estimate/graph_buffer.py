"""The compute buffer from the graph itself: the engine's tensors through a model of its allocator.

For families in `graph.families.FAMILIES` the CPU build b11549 of llama.cpp (xllamacpp's) holds
exactly what this gives (tests/accuracy/test_engine_witness.py). On CUDA the embedding is
looked up on the host and what the GPU needs of it is copied; no CUDA log of such a build was at
hand, so the band reaches from a twentieth below up to what the CPU build holds. Of a family that is
not known the same is said of the nearest one, and marked as assumed.
"""

from __future__ import annotations

from functools import lru_cache

from vramplan.estimate.compute_buffer import Batch, ComputeBuffers
from vramplan.estimate.engine_rules import EngineRules
from vramplan.estimate.ggml_model import GgmlModel, Placement, TensorRole
from vramplan.graph.allocator import allocate
from vramplan.graph.families import FAMILIES, Habits
from vramplan.graph.language import reserve_graph
from vramplan.graph.shapes import Reserve
from vramplan.graph.split import gpu_part
from vramplan.model import Band, Origin

_CUDA_ALIGNMENT = 128
_CPU_ALIGNMENT = 32
_F32 = 4


def is_known(model: GgmlModel, rules: EngineRules) -> bool:
    """Return whether the family's graph is known, as it is since logits are a sequence's."""
    return model.architecture in FAMILIES and rules.logits_per_sequence


def graph_source(model: GgmlModel, rules: EngineRules) -> tuple[Origin, str]:
    """Return where the compute buffer's figure comes from."""
    if is_known(model, rules):
        return Origin.PUBLISHED, (
            f"llama.cpp's graph of {model.architecture} through a model of its allocator "
            "(ggml-alloc.c), equal to the CPU build b11549; high is all that the CPU build holds"
        )
    if model.architecture in FAMILIES:
        return Origin.ASSUMED, (
            f"the graph that llama.cpp b11549 has of {model.architecture}: this build's is not "
            "known; up to twice as much"
        )
    return Origin.ASSUMED, (
        f"the graph of {model.architecture or 'this architecture'} is not known: that of a "
        "LLaMA of its shapes, up to twice as much"
    )


def graph_note(model: GgmlModel) -> str:
    """Return what a reader must know of the figure."""
    if model.architecture in FAMILIES:
        return f"the graph of {model.architecture} is that of llama.cpp b11549"
    return (
        f"{model.architecture or 'the architecture'} is not one whose graph is known: weights and "
        "KV cache are counted, the compute buffer is a guess"
    )


def graph_buffers(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> ComputeBuffers:
    """Return what the graph of `batch` takes on the GPU and in host memory."""
    rows = batch.sequences if rules.logits_per_sequence else batch.tokens
    whole, part = graph_sizes(model, batch, rows)
    is_partial = placement.on_gpu < model.total_layers
    copies = rules.offloads_host_weights and placement.blocks_on_gpu < model.layers
    if not placement.on_gpu and not copies:
        return ComputeBuffers(gpu=Band.exactly(0), host_bytes=whole)
    extra = 0
    if copies:
        largest = max(t.size_bytes for t in model.tensors if t.role is TensorRole.BLOCK)
        extra = largest + batch.cache_layer_bytes
    elif not placement.output_on_gpu:
        extra = max(t.size_bytes for t in model.tensors if t.role is TensorRole.OUTPUT)
    expected = part + extra
    factor = 1 if is_known(model, rules) else 2
    high = factor * max(expected, whole + extra)
    band = Band(low_bytes=expected * 19 // 20, expected_bytes=expected, high_bytes=high)
    hidden = batch.tokens * model.embedding * _F32
    mask = batch.tokens * batch.context * (2 if batch.has_flash else 4)
    host = 4 * hidden + mask if not is_partial else whole
    return ComputeBuffers(gpu=band, host_bytes=host)


@lru_cache(maxsize=256)
def graph_sizes(model: GgmlModel, batch: Batch, rows: int) -> tuple[int, int]:
    """Return the whole graph's buffer on a CPU, and the GPU's part of it."""
    assert model.language is not None
    habits = FAMILIES.get(model.architecture, Habits())
    tokens = -(-batch.tokens // batch.sequences) * batch.sequences  # as many of each sequence
    reserve = Reserve(
        tokens=tokens,
        outputs=min(rows, tokens),
        cells=batch.context,
        window_cells=batch.window_context,
        streams=batch.sequences,
        has_flash=batch.has_flash,
        cache_type=batch.cache_type,
    )
    whole = allocate(reserve_graph(model.language, habits, reserve), (_CPU_ALIGNMENT,))[0]
    graph = gpu_part(reserve_graph(model.language, habits, reserve))
    return whole, allocate(graph, (_CUDA_ALIGNMENT,))[0]
