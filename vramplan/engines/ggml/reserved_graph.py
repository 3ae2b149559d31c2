"""The graph that llama.cpp reserves for a batch, through the models of its scheduler and allocator.

What is said of its buffers is `graph_buffer`'s.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import lru_cache

from vramplan.engines.ggml.build_rules import EngineRules
from vramplan.engines.ggml.card_shares import HOST
from vramplan.engines.ggml.closed_form import Batch, is_pipeline, reserved_tokens
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
from vramplan.engines.ggml.graph.split import GPU, Memory, schedule
from vramplan.engines.ggml.weights import GgmlModel, Placement, TensorRole, row_bytes
from vramplan.quick_dataclass import replace

_F32 = 4
#: of fewer tokens norms are computed where their layer is, however many layers are on a card
_SMALL_BATCH = 32
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
) -> tuple[int, ...]:
    """Return the buffers of the graph's parts on each card, and on the host.

    Without a layer on a card large batches are computed on the first all the same.
    """
    memories = dict(_memories(model, batch, placement))
    owners = [placement.card_of(number) for number in range(model.layers)]
    kinds = list(zip(_kinds(model, memories), owners, strict=True))

    def sizes_of(reserved: Batch) -> tuple[int, ...]:
        return in_periods(
            _PERIODS,
            lambda period: _split(
                model, reserved, placement, memories, rules, few_of(kinds, period)
            ),
        )

    sizes = sizes_of(batch)
    if batch.tokens > batch.sequences and _keeps_states_on_host(model, memories):
        # the graph of a token each is reserved too: it computes with these states where they are,
        # and that may take more than a small batch, whose states are copied to a card
        sizes = tuple(map(max, sizes, sizes_of(replace(batch, tokens=batch.sequences))))
    return sizes


def _keeps_states_on_host(model: GgmlModel, memories: Mapping[str, Memory]) -> bool:
    if model.language is None or model.language.state is None:
        return False
    names = (cache_name("s", number) for number in range(model.layers))
    return any(name in memories and memories[name].is_on_host for name in names)


def _split(  # what decides of a graph's parts
    model: GgmlModel,
    batch: Batch,
    placement: Placement,
    memories: Mapping[str, Memory],
    rules: EngineRules,
    repeats: Repeats,
) -> tuple[int, ...]:
    cards = len(placement.cards)
    graph = schedule(
        _graph(model, batch, rules, repeats),
        memories,
        copies_weights=rules.offloads_host_weights,
        fuses_experts=rules.fuses_experts,
        unpacks=unpacked_caches(model, batch, rules),
        gpus=cards,
        remotes=placement.remotes,
        is_pipeline=is_pipeline(model, batch, placement),
        owners=norm_owners(model, batch, placement),
    )
    return tuple(allocate(graph, (ALIGNMENT,) * cards + (HOST_ALIGNMENT,)))


def unpacked_caches(model: GgmlModel, batch: Batch, rules: EngineRules) -> str:
    """Return which of keys (k) and values (v) flash attention has room for as f16."""
    if not rules.reserves_unpacked_cache:
        return ""
    assert model.language is not None
    types = {"k": batch.cache_type, "v": batch.type_of_values}
    if not model.language.holds_values:  # they are a part of the keys
        types["v"] = types["k"]
    return "".join(kind for kind, one in types.items() if one not in AS_F16)


def norm_owners(model: GgmlModel, batch: Batch, placement: Placement) -> list[int]:
    """Return the backend of each layer, where the engine says which one computes its norms.

    Source: llama.cpp, src/llama-context.cpp (graph_get_cb).
    """
    cards = len(placement.cards)
    is_small = batch.tokens < _SMALL_BATCH
    if not is_small and (cards == 1 or placement.on_gpu < model.total_layers):
        return []
    found = (placement.card_of(number) for number in range(model.layers))
    return [cards if card == HOST else card for card in found]


def _kinds(model: GgmlModel, memories: Mapping[str, Memory]) -> list[Hashable]:
    """Return what tells a layer of the graph from another, but for the numbers in its names.

    Where all of a layer is on one GPU it is its shape and which tensors it has: their sizes are of
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
            frozenset(held.items() if _is_copied(held) else held),
        )
        for number, (shape, there, held) in enumerate(
            zip(language.layers, names, parts, strict=True)
        )
    ]


def _is_copied(held: Mapping[str, Memory]) -> bool:
    """Return whether some of a layer's tensors are read on another side than theirs."""
    return len({HOST if one.is_on_host else one.gpu for one in held.values()} | {GPU}) > 1


def _graph(model: GgmlModel, batch: Batch, rules: EngineRules, repeats: Repeats) -> Graph:
    assert model.language is not None
    name = model.architecture
    habits = FAMILIES.get(name) or _NEAREST.get(name) or Habits()
    window = batch.window_context
    is_sequences = rules.logits_per_sequence and name not in WITHOUT_CONTEXT
    is_sequences = is_sequences and not batch.has_all_outputs
    one_each = batch.outputs or batch.sequences
    rows = one_each if is_sequences else batch.tokens  # an encoder's are all wanted
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
        value_type=batch.type_of_values,
        is_cache_on_host=batch.is_cache_on_host,
        mixes_inputs=rules.mixes_inputs,
        pooling=batch.pooling,
    )
    return reserve_graph(model.language, habits, reserve, repeats)


def weight_memories(model: GgmlModel, placement: Placement) -> Iterator[tuple[str, Memory]]:
    """Yield every weight by its name, with its place."""
    owners = [placement.card_of(number) for number in range(model.layers)]
    moved = placement.moved
    for tensor in model.tensors:
        card = GPU
        if tensor.role is TensorRole.INPUT:
            card = HOST
        elif tensor.role is TensorRole.OUTPUT:
            card = placement.card_of_output
        elif tensor.layer is not None:
            card = owners[tensor.layer]
        if moved:
            found = moved.find(tensor.file_name, tensor.layer)
            card = card if found is None else found
        yield tensor.name, _memory(tensor.cuda_bytes, card)
        if tensor.name in ROPE_FACTORS:  # beside every layer
            for number, owner in enumerate(owners):
                name = rope_factors_name(tensor.name, number)
                yield name, _memory(tensor.cuda_bytes, owner, copied_as=tensor.name)


def _memories(model: GgmlModel, batch: Batch, placement: Placement) -> Iterator[tuple[str, Memory]]:
    """Yield every weight and cache with its place."""
    assert model.language is not None
    yield from weight_memories(model, placement)
    state = model.language.state
    for number, layer in enumerate(model.language.layers):
        card = HOST if batch.is_cache_on_host else placement.card_of(number)
        if state is not None and layer.has_state:
            for kind, elements in (("r", state.kept_columns), ("s", state.kept_state)):
                size = _F32 * elements * batch.sequences
                yield cache_name(kind, number), _memory(size, card, is_weight=False)
        cells = batch.window_context if layer.is_windowed else batch.context
        for kind, head, type_name in (
            ("k", layer.head_k, batch.cache_type),
            ("v", layer.head_v, batch.type_of_values),
        ):
            row = row_bytes(type_name, layer.kv_heads * head)
            size = row * cells * batch.streams + padding_bytes(type_name, head)
            yield cache_name(kind, number), _memory(size, card, is_weight=False)


def _memory(size_bytes: int, card: int, *, is_weight: bool = True, copied_as: str = "") -> Memory:
    return Memory(
        size_bytes=size_bytes,
        is_on_host=card == HOST,
        is_weight=is_weight,
        copied_as=copied_as,
        gpu=max(card, GPU),
    )
