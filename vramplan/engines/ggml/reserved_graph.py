"""The graph that llama.cpp reserves for a batch, through the models of its scheduler and allocator.

What is said of its buffers is `graph_buffer`'s.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import lru_cache

from vramplan.engines.ggml.build_rules import EngineRules
from vramplan.engines.ggml.closed_form import Batch
from vramplan.engines.ggml.coverage import WITHOUT_CONTEXT
from vramplan.engines.ggml.cuda_facts import ALIGNMENT, HOST_ALIGNMENT, padding_bytes
from vramplan.engines.ggml.graph.attention import cache_name
from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.families import FAMILIES, Habits
from vramplan.engines.ggml.graph.graph_allocator import allocate
from vramplan.engines.ggml.graph.language import reserve_graph
from vramplan.engines.ggml.graph.layer import ROPE_FACTORS, rope_factors_name
from vramplan.engines.ggml.graph.repeats import Repeats, few_of, in_periods
from vramplan.engines.ggml.graph.shapes import Reserve
from vramplan.engines.ggml.graph.split import Memory, schedule
from vramplan.engines.ggml.weights import GgmlModel, Placement, TensorRole, row_bytes

_F32 = 4
#: types of caches that attention reads as f16 without room of its own (f32 is made f16 before)
AS_F16 = frozenset({"f16", "f32"})
#: families built like a known one, but for what changes no size by much
_NEAREST = {
    "cohere2moe": FAMILIES["cohere2"],
    "plamo3": Habits(fuses_gate=True),
}
_ON_HOST = (HOST_ALIGNMENT,)
#: nearly every family's layers leave memory as the one before did
_PERIODS = (1, 6)


@lru_cache(maxsize=256)
def graph_sizes(model: GgmlModel, batch: Batch, rules: EngineRules) -> int:
    """Return the whole graph's buffer on a CPU."""
    kinds = _kinds(model, {})
    return in_periods(
        _PERIODS,
        lambda period: allocate(_graph(model, batch, rules, few_of(kinds, period)), _ON_HOST)[0],
    )


def split_sizes(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> tuple[int, int]:
    """Return the buffers of the graph's parts on the GPU and on the host.

    Without a layer on the GPU large batches are computed there all the same.
    """
    memories = dict(_memories(model, batch, placement))
    kinds = _kinds(model, memories)
    return in_periods(
        _PERIODS,
        lambda period: _split(model, batch, memories, rules, few_of(kinds, period)),
    )


def _split(
    model: GgmlModel,
    batch: Batch,
    memories: Mapping[str, Memory],
    rules: EngineRules,
    repeats: Repeats,
) -> tuple[int, int]:
    graph = schedule(
        _graph(model, batch, rules, repeats),
        memories,
        copies_weights=rules.offloads_host_weights,
        fuses_experts=rules.fuses_experts,
        unpacks_caches=rules.reserves_unpacked_cache and batch.cache_type not in AS_F16,
    )
    gpu, host = allocate(graph, (ALIGNMENT, HOST_ALIGNMENT))
    return gpu, host


def _kinds(model: GgmlModel, memories: Mapping[str, Memory]) -> list[Hashable]:
    """Return what tells a layer of the graph from another, but for the numbers in its names.

    Where all of a layer is on the GPU it is its shape and which tensors it has: their sizes are of
    those that are copied. Images bring embeddings for the first `deep_layers`, and in the last one
    rows are chosen.
    """
    language = model.language
    assert language is not None
    count = len(language.layers)
    parts: list[dict[str, Memory]] = [{} for _ in range(count)]
    for name, memory in memories.items():
        kind, _, rest = name.partition(".")
        number, _, part = rest.partition(".")
        if number.isdecimal() and int(number) < count:
            parts[int(number)][f"{kind}.{part}"] = memory
    names: list[set[str]] = [set() for _ in range(count)]
    for name in language.names:
        kind, _, rest = name.partition(".")
        number, _, part = rest.partition(".")
        if number.isdecimal() and int(number) < count:
            names[int(number)].add(f"{kind}.{part}")
    return [
        (
            shape,
            number < language.deep_layers,
            number == count - 1,
            frozenset(there),
            frozenset(held.items() if any(one.is_on_host for one in held.values()) else held),
        )
        for number, (shape, there, held) in enumerate(
            zip(language.layers, names, parts, strict=True)
        )
    ]


def _graph(model: GgmlModel, batch: Batch, rules: EngineRules, repeats: Repeats) -> Graph:
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
    return reserve_graph(model.language, habits, reserve, repeats)


def reserved_tokens(batch: Batch) -> int:
    """Return the tokens of a batch: as many of each sequence."""
    return -(-batch.tokens // batch.sequences) * batch.sequences


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
