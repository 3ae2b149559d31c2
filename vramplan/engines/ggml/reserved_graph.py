"""The graph that llama.cpp reserves for a batch, through the models of its scheduler and allocator.

What is said of its buffers is `graph_buffer`'s.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from vramplan.engines.ggml.build_rules import EngineRules
from vramplan.engines.ggml.card_shares import HOST
from vramplan.engines.ggml.closed_form import Batch, is_pipeline, reserved_tokens
from vramplan.engines.ggml.coverage import WITHOUT_CONTEXT
from vramplan.engines.ggml.cuda_facts import ALIGNMENT, HOST_ALIGNMENT, padding_bytes
from vramplan.engines.ggml.experts import Moved
from vramplan.engines.ggml.graph.attention import cache_name
from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.families import FAMILIES, Habits
from vramplan.engines.ggml.graph.graph_allocator import allocate
from vramplan.engines.ggml.graph.language import reserve_graph
from vramplan.engines.ggml.graph.layer import ROPE_FACTORS, rope_factors_name
from vramplan.engines.ggml.graph.repeats import Repeats, UnlikeError, few_of, in_periods
from vramplan.engines.ggml.graph.shapes import Reserve
from vramplan.engines.ggml.graph.split import GPU, Memory, schedule
from vramplan.engines.ggml.weights import (
    GgmlModel,
    GgmlTensor,
    Placement,
    TensorRole,
    row_bytes,
)
from vramplan.quick_dataclass import dataclass, replace

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
#: of one graph so many ways to split it are remembered
_MOST_LAYOUTS = 1024


@lru_cache(maxsize=256)
def graph_sizes(model: GgmlModel, batch: Batch, rules: EngineRules) -> int:
    """Return the whole graph's buffer on a CPU."""
    kinds = [layer.plain for layer in _layers_of(model)]
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
    sizes = _laid_out(model, batch, placement, rules)
    if batch.tokens > batch.sequences and _keeps_states_on_host(model, batch, placement):
        # the graph of a token each is reserved too: it computes with these states where they are,
        # and that may take more than a small batch, whose states are copied to a card
        small = replace(batch, tokens=batch.sequences)
        sizes = tuple(map(max, sizes, _laid_out(model, small, placement, rules)))
    return sizes


def _keeps_states_on_host(model: GgmlModel, batch: Batch, placement: Placement) -> bool:
    language = model.language
    if language is None or language.state is None:
        return False
    return any(
        layer.has_state and (batch.is_cache_on_host or placement.card_of(number) == HOST)
        for number, layer in enumerate(language.layers)
    )


def _laid_out(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> tuple[int, ...]:
    """Return the buffers of one graph's parts.

    Where layers may be anywhere, graphs that differ in how many stand for how many are one: it is
    laid out once.
    """
    known = _layouts(model, batch, rules)
    kinds = _kinds(model, batch, placement)
    elsewhere = (
        len(placement.cards),
        placement.remotes,
        placement.card_of_output,
        tuple(_found_places(placement.moved, _tensors_by_layer(model).get(None, []))),
        is_pipeline(model, batch, placement),
        bool(norm_owners(model, batch, placement)),
    )

    def find(period: int) -> tuple[int, ...]:
        repeats = few_of(kinds, period)
        # layers of a kind are the same graph, whatever their numbers
        key = elsewhere, tuple(kinds[number] for number in repeats.numbers), _places(repeats)
        if key not in known:
            memories = dict(_memories(model, batch, placement, repeats.numbers))
            if len(known) >= _MOST_LAYOUTS:
                known.clear()
            try:
                known[key] = _split(model, batch, placement, memories, rules, repeats)
            except UnlikeError:
                known[key] = None
        found = known[key]
        if found is None:
            raise UnlikeError
        return found

    return in_periods(_PERIODS, find)


@lru_cache(maxsize=32)
def _layouts(*_of: Hashable) -> dict[Hashable, tuple[int, ...] | None]:
    """Return what was laid out of a graph; None where its layers do not stand for others."""
    return {}


def _places(repeats: Repeats) -> tuple[tuple[int, int], ...]:
    """Return which of the layers that are built are to be compared."""
    place = {number: at for at, number in enumerate(repeats.numbers)}
    return tuple((place[one], place[other]) for one, other in repeats.alike)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _LayerParts:
    """A layer, and numbers that two layers share which are built alike.

    `plain` where its tensors' sizes do not matter, `sized` where they do.
    """

    plain: int
    sized: int
    tensors: tuple[GgmlTensor, ...]


@lru_cache(maxsize=32)
def _layers_of(model: GgmlModel) -> tuple[_LayerParts, ...]:
    """Return what tells a layer of the graph from another, but for the numbers in its names.

    It is its shape and which tensors it has. Images bring embeddings for the first `deep_layers`,
    and in the last one rows are chosen.
    """
    language = model.language
    assert language is not None
    count = len(language.layers)
    names: list[set[str]] = [set() for _ in range(count)]
    for name in language.names:
        kind, _, rest = name.partition(".")
        its, _, part = rest.partition(".")
        if its.isdecimal() and int(its) < count:
            names[int(its)].add(f"{kind}.{part}")
    tensors = _tensors_by_layer(model)
    numbers: dict[Hashable, int] = {}
    found = []
    for number, shape in enumerate(language.layers):
        there = frozenset(names[number])
        plain = (shape, number < language.deep_layers, number == count - 1, there)
        own = tensors.get(number, [])
        # without what stands before the layer's number, and the number
        sizes = [(one.name.split(".", 2)[-1], one.role, one.cuda_bytes) for one in own]
        found.append(
            _LayerParts(
                plain=numbers.setdefault(plain, len(numbers)),
                sized=numbers.setdefault((plain, frozenset(sizes)), len(numbers)),
                tensors=tuple(own),
            )
        )
    return tuple(found)


def _found_places(moved: Moved, tensors: Iterable[GgmlTensor]) -> Iterator[int | None]:
    """Yield where each tensor was moved to, None where it was not; nothing where none can be."""
    if moved:
        for tensor in tensors:
            yield moved.find(tensor.file_name, tensor.layer)


def _kinds(model: GgmlModel, batch: Batch, placement: Placement) -> list[Hashable]:
    """Return what tells a layer from another in a graph that is split.

    Where all of a layer is on the first GPU, which computes it, no size of a tensor matters: they
    are of those that are copied.
    """
    kinds: list[Hashable] = []
    for number, layer in enumerate(_layers_of(model)):
        owner = placement.card_of(number)
        places = tuple(_found_places(placement.moved, layer.tensors))
        is_moved = any(place is not None for place in places)
        is_whole = owner == GPU and not is_moved and not batch.is_cache_on_host
        kinds.append((owner, layer.plain if is_whole else layer.sized, places if is_moved else ()))
    return kinds


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
    return _weight_memories(model, placement, range(model.layers))


def _weight_memories(
    model: GgmlModel, placement: Placement, numbers: Iterable[int]
) -> Iterator[tuple[str, Memory]]:
    """Yield the weights of some of the layers, and of none, by name and with their places."""
    moved, factors = placement.moved, [one for one in model.tensors if one.name in ROPE_FACTORS]
    layers = _tensors_by_layer(model)

    def placed(tensor: GgmlTensor, card: int) -> tuple[str, Memory]:
        found = moved.find(tensor.file_name, tensor.layer) if moved else None
        return tensor.name, _memory(tensor.cuda_bytes, card if found is None else found)

    for tensor in layers.get(None, []):
        card = HOST if tensor.role is TensorRole.INPUT else GPU
        if tensor.role is TensorRole.OUTPUT:
            card = placement.card_of_output
        yield placed(tensor, card)
    for number in numbers:
        owner = placement.card_of(number)
        for tensor in layers.get(number, []):
            yield placed(tensor, owner)
        for tensor in factors:  # beside every layer
            name = rope_factors_name(tensor.name, number)
            yield name, _memory(tensor.cuda_bytes, owner, copied_as=tensor.name)


@lru_cache(maxsize=32)
def _tensors_by_layer(model: GgmlModel) -> dict[int | None, list[GgmlTensor]]:
    """Return a model's tensors by their layer, None for those of none."""
    found: dict[int | None, list[GgmlTensor]] = {}
    for tensor in model.tensors:
        found.setdefault(tensor.layer, []).append(tensor)
    return found


def _memories(
    model: GgmlModel, batch: Batch, placement: Placement, numbers: Sequence[int]
) -> Iterator[tuple[str, Memory]]:
    """Yield the weights and caches of some layers, and what is none's, with their places."""
    assert model.language is not None
    yield from _weight_memories(model, placement, numbers)
    state = model.language.state
    for number in numbers:
        layer = model.language.layers[number]
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
