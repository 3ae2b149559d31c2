"""The compute buffer from the graph itself: the engine's tensors through a model of its allocator.

For families in `graph.families.FAMILIES` llama.cpp b11549 holds exactly what this gives, on a CPU
(tests/accuracy/test_engine_witness.py) and with any number of layers on a CUDA card that is
pretended (tests/accuracy/test_device_witness.py); the same witness, of August 2026, holds what real
cards printed. Of a family that is not known the same is said of the nearest one, and marked as
assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from vramplan.engines.ggml.build_rules import WITNESS_BUILD, EngineRules
from vramplan.engines.ggml.closed_form import Batch, ComputeBuffers, reserved_tokens
from vramplan.engines.ggml.coverage import ENCODERS, KNOWN
from vramplan.engines.ggml.cuda_facts import ALIGNMENT, HOST_ALIGNMENT, padding_bytes
from vramplan.engines.ggml.graph.attention import cache_name
from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.families import FAMILIES, Habits
from vramplan.engines.ggml.graph.graph_allocator import allocate
from vramplan.engines.ggml.graph.language import reserve_graph
from vramplan.engines.ggml.graph.layer import ROPE_FACTORS, rope_factors_name
from vramplan.engines.ggml.graph.shapes import Reserve
from vramplan.engines.ggml.graph.split import Memory, schedule
from vramplan.engines.ggml.weights import GgmlModel, Placement, TensorRole, row_bytes
from vramplan.model import Band, Origin

if TYPE_CHECKING:
    from vramplan.engines.ggml.graph.recording import Recording

_F16, _F32 = 2, 4
#: types of caches that attention reads as f16 without room of its own (f32 is made f16 before)
AS_F16 = frozenset({"f16", "f32"})


def is_known(model: GgmlModel, rules: EngineRules) -> bool:
    """Return whether the family's graph is known, as it is since logits are a sequence's."""
    return model.architecture in FAMILIES and rules.logits_per_sequence


def has_tape(model: GgmlModel, batch: Batch, rules: EngineRules) -> bool:
    """Return whether the graph comes from a recording of the engine's, of the build asked for."""
    return not is_known(model, rules) and _recorded(model, batch, rules) is not None


def is_told(model: GgmlModel, batch: Batch, rules: EngineRules) -> bool:
    """Return whether the graph is the engine's own: known by heart, or recorded."""
    return is_known(model, rules) or has_tape(model, batch, rules)


def _recorded(model: GgmlModel, batch: Batch, rules: EngineRules) -> Recording | None:
    from vramplan.engines.ggml.graph_tape import recorded_graph  # most families need no tape

    return recorded_graph(model, batch, rules)


def graph_source(model: GgmlModel, batch: Batch, rules: EngineRules) -> tuple[Origin, str]:
    """Return where the compute buffer's figure comes from."""
    if has_tape(model, batch, rules):
        return Origin.REPLAYED, (
            f"the graph that llama.cpp b{rules.build} reserves for {model.architecture}, recorded, "
            "through a model of its allocator (ggml-alloc.c) and scheduler (ggml-backend.cpp); "
            "equal to the engine's own buffers to the byte for models that it was not recorded of"
        )
    if is_known(model, rules):
        other = rules.build != WITNESS_BUILD
        return Origin.PUBLISHED, (
            f"llama.cpp's graph of {model.architecture} through a model of its allocator "
            "(ggml-alloc.c) and scheduler (ggml-backend.cpp), equal to build b11549 within 0.02 MiB"
            + (f"; what b{rules.build} does differently as far as its rules are known" * other)
        )
    if model.architecture in FAMILIES:
        return Origin.ASSUMED, (
            f"the graph that llama.cpp b11549 has of {model.architecture}: this build's is not "
            "known; up to twice as much"
        )
    return Origin.ASSUMED, (
        f"the graph of {model.architecture or 'this architecture'} is not known: that of the "
        "nearest family at its shapes, within what the engine held of it"
    )


def graph_note(model: GgmlModel, batch: Batch, rules: EngineRules) -> str:
    """Return what a reader must know of the figure."""
    if model.architecture in FAMILIES or has_tape(model, batch, rules):
        return f"the graph of {model.architecture} is that of llama.cpp b11549"
    return (
        f"{model.architecture or 'the architecture'} is not one whose graph is known: the compute "
        "buffer is a guess"
    )


def graph_buffers(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> ComputeBuffers:
    """Return what the graph of `batch` takes on the GPU and in host memory."""
    if has_tape(model, batch, rules):
        gpu, host = tape_sizes(model, batch, placement, rules)
        return ComputeBuffers(gpu=Band.exactly(gpu), host_bytes=host)
    expected, host = split_sizes(model, batch, placement, rules)
    if rules.has_wide_mask and batch.has_flash:
        host += _F16 * batch.tokens * (batch.context + batch.window_context) * batch.streams
    low, high = _spread(model, rules)
    band = Band(
        low_bytes=expected * low // 100,
        expected_bytes=expected,
        high_bytes=expected * high // 100,
    )
    return ComputeBuffers(gpu=band, host_bytes=host)


def _spread(model: GgmlModel, rules: EngineRules) -> tuple[int, int]:
    """Return the ends of the band in percent of what is expected.

    Of families whose graph is not known b11549 was asked at eight settings each, contexts of 8,192
    and 32,768 tokens, layers on either side (`python -m tools.architectures`): what it held of the
    nearest known graph lies within these ends. A family that was never asked has the widest.
    """
    name = model.architecture
    if is_known(model, rules):
        return 98, 102
    if name in FAMILIES:
        return 98, 204
    if name in WITHOUT_CONTEXT - _FAR:
        return 10, 200
    if model.window and name in KNOWN - _PARTLY:
        return 85, 170
    if name in _PARTLY:
        return 96, 192
    return (70, 200) if name in KNOWN and name not in _FAR else (20, 500)


#: families whose attention reads no more than the batch itself
WITHOUT_CONTEXT = ENCODERS | {"llama-embed", "t5encoder"}
#: families of which the nearest graph is a lower bound
_PARTLY = frozenset({"cohere2moe"})
#: known families whose graph is unlike any that is known
_FAR = frozenset({"deepseek32", "glm-dsa", "rwkv6", "rwkv7", "t5encoder"})
#: families built like a known one, but for what changes no size by much
_NEAREST = {
    "cohere2moe": FAMILIES["cohere2"],
    "plamo3": Habits(fuses_gate=True),
}


@lru_cache(maxsize=256)
def graph_sizes(model: GgmlModel, batch: Batch, rules: EngineRules) -> int:
    """Return the whole graph's buffer on a CPU."""
    if has_tape(model, batch, rules):
        from vramplan.engines.ggml.graph.recording import cpu_bytes

        graph = _recorded(model, batch, rules)
        assert graph is not None
        return cpu_bytes(graph)
    return allocate(_graph(model, batch, rules), (HOST_ALIGNMENT,))[0]


@lru_cache(maxsize=256)
def tape_sizes(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> tuple[int, int]:
    """Return the buffers of a model's recorded graph on the GPU and on the host."""
    graph = _recorded(model, batch, rules)
    assert graph is not None
    return recording_sizes(graph, model, batch, placement, rules)


def recording_sizes(
    graph: Recording, model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> tuple[int, int]:
    """Return the buffers of the engine's own graph on the GPU and on the host."""
    from vramplan.engines.ggml.graph.recording import split_bytes

    unpacks = not {batch.cache_type, batch.type_of_values} <= AS_F16
    return split_bytes(
        graph,
        dict(weight_memories(model, placement)),
        model.layers - placement.blocks_on_gpu,
        is_cache_on_host=batch.is_cache_on_host,
        copies_weights=rules.offloads_host_weights,
        unpacks_caches=rules.reserves_unpacked_cache and unpacks,
        fuses_experts=rules.fuses_experts,
    )


@lru_cache(maxsize=256)
def split_sizes(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> tuple[int, int]:
    """Return the buffers of the graph's parts on the GPU and on the host.

    Without a layer on the GPU large batches are computed there all the same.
    """
    graph = schedule(
        _graph(model, batch, rules),
        dict(_memories(model, batch, placement)),
        copies_weights=rules.offloads_host_weights,
        fuses_experts=rules.fuses_experts,
        unpacks_caches=rules.reserves_unpacked_cache and batch.cache_type not in AS_F16,
    )
    gpu, host = allocate(graph, (ALIGNMENT, HOST_ALIGNMENT))
    return gpu, host


def _graph(model: GgmlModel, batch: Batch, rules: EngineRules) -> Graph:
    assert model.language is not None
    name = model.architecture
    habits = FAMILIES.get(name) or _NEAREST.get(name) or Habits()
    window = batch.window_context
    is_sequences = rules.logits_per_sequence and name not in WITHOUT_CONTEXT
    rows = batch.sequences if is_sequences else batch.tokens  # an encoder's are all wanted
    tokens = reserved_tokens(batch)
    reserve = Reserve(
        tokens=tokens,
        outputs=min(rows, tokens),
        cells=tokens if name in WITHOUT_CONTEXT else batch.context,
        window_cells=min(tokens, window) if name in WITHOUT_CONTEXT else window,
        sequences=batch.sequences,
        streams=batch.streams,
        has_flash=batch.has_flash,
        cache_type=batch.cache_type,
        mixes_inputs=rules.mixes_inputs,
    )
    return reserve_graph(model.language, habits, reserve)


def weight_memories(model: GgmlModel, placement: Placement) -> Iterator[tuple[str, Memory]]:
    """Yield every weight by its name, with its place."""
    first = model.layers - placement.blocks_on_gpu
    for tensor in model.tensors:
        is_on_host = tensor.role is TensorRole.INPUT
        if tensor.role is TensorRole.OUTPUT:
            is_on_host = not placement.output_on_gpu
        elif tensor.layer is not None:
            is_kept = placement.experts.keeps(tensor.name, tensor.layer)
            is_on_host = tensor.layer < first or is_kept
        yield tensor.name, Memory(size_bytes=tensor.cuda_bytes, is_on_host=is_on_host)
        if tensor.name in ROPE_FACTORS:  # beside every layer
            for number in range(model.layers):
                yield (
                    rope_factors_name(tensor.name, number),
                    Memory(
                        size_bytes=tensor.cuda_bytes,
                        is_on_host=number < first,
                        copied_as=tensor.name,
                    ),
                )


def _memories(model: GgmlModel, batch: Batch, placement: Placement) -> Iterator[tuple[str, Memory]]:
    """Yield every weight and cache with its place."""
    assert model.language is not None
    yield from weight_memories(model, placement)
    first = model.layers - placement.blocks_on_gpu
    state = model.language.state
    for number, layer in enumerate(model.language.layers):
        if state is not None and layer.has_state:
            for kind, elements in (("r", state.kept_columns), ("s", state.kept_state)):
                size = _F32 * elements * batch.sequences
                yield cache_name(kind, number), _cache(size, is_on_host=number < first)
        cells = batch.window_context if layer.is_windowed else batch.context
        is_on_host = number < first or batch.is_cache_on_host
        for kind, head, type_name in (
            ("k", layer.head_k, batch.cache_type),
            ("v", layer.head_v, batch.type_of_values),
        ):
            row = row_bytes(type_name, layer.kv_heads * head)
            size = row * cells * batch.streams + padding_bytes(type_name, head)
            yield cache_name(kind, number), _cache(size, is_on_host=is_on_host)


def _cache(size_bytes: int, *, is_on_host: bool) -> Memory:
    return Memory(size_bytes=size_bytes, is_on_host=is_on_host, is_weight=False)
