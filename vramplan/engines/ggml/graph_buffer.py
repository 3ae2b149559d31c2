"""The compute buffer from the graph itself: the engine's tensors through a model of its allocator.

For families in `graph.families.FAMILIES` llama.cpp b11549 holds exactly what this gives, on a CPU
(tests/accuracy/test_engine_witness.py) and with any number of layers on a CUDA card that is
pretended (tests/accuracy/test_device_witness.py); the same witness, of August 2026, holds what real
cards printed. Of a family that is not known the same is said of the nearest one, and marked as
assumed.
"""

from __future__ import annotations

from functools import lru_cache

from vramplan.engines.ggml.build_rules import WITNESS_BUILD, EngineRules
from vramplan.engines.ggml.card_shares import HOST
from vramplan.engines.ggml.closed_form import Batch, ComputeBuffers, is_pipeline
from vramplan.engines.ggml.coverage import KNOWN, WITHOUT_CONTEXT
from vramplan.engines.ggml.graph.families import FAMILIES
from vramplan.engines.ggml.known_graphs import known_sizes
from vramplan.engines.ggml.weights import GgmlModel, Placement
from vramplan.model import Band, Origin
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.ggml.graph.recording import Recording

_F16 = 2


def is_known(model: GgmlModel, rules: EngineRules) -> bool:
    """Return whether the family's graph is known, as it is since logits are a sequence's."""
    return model.architecture in FAMILIES and rules.logits_per_sequence


def has_tape(model: GgmlModel, batch: Batch, rules: EngineRules, cards: int = 1) -> bool:
    """Return whether the graph comes from a recording of the engine's, of the build asked for.

    For several cards it must say which norms are a layer's own.
    """
    if is_known(model, rules):
        return False
    found = _recorded(model, batch, rules)
    return found is not None and (cards == 1 or found.tells_norms)


def is_told(model: GgmlModel, batch: Batch, rules: EngineRules, cards: int = 1) -> bool:
    """Return whether the graph is the engine's own: known by heart, or recorded."""
    return is_known(model, rules) or has_tape(model, batch, rules, cards)


def _recorded(model: GgmlModel, batch: Batch, rules: EngineRules) -> Recording | None:
    from vramplan.engines.ggml.graph_tape import recorded_graph  # most families need no tape

    return recorded_graph(model, batch, rules)


def graph_source(
    model: GgmlModel, batch: Batch, rules: EngineRules, cards: int = 1
) -> tuple[Origin, str]:
    """Return where the compute buffer's figure comes from."""
    if has_tape(model, batch, rules, cards):
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


def graph_note(model: GgmlModel, batch: Batch, rules: EngineRules, cards: int = 1) -> str:
    """Return what a reader must know of the figure."""
    if model.architecture in FAMILIES or has_tape(model, batch, rules, cards):
        return f"the graph of {model.architecture} is that of llama.cpp b11549"
    return (
        f"{model.architecture or 'the architecture'} is not one whose graph is known: the compute "
        "buffer is a guess"
    )


def graph_buffers(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> ComputeBuffers:
    """Return what the graph of `batch` takes on each card and in host memory."""
    if has_tape(model, batch, rules, len(placement.cards)):
        *sizes, host = tape_sizes(model, batch, placement, rules)
        return ComputeBuffers(cards=tuple(map(Band.exactly, sizes)), host_bytes=host)
    *sizes, host = split_sizes(model, batch, placement, rules)
    if rules.has_wide_mask and batch.has_flash:
        host += _F16 * batch.tokens * (batch.context + batch.window_context) * batch.streams
    low, high = _spread(model, rules)
    bands = (
        Band(low_bytes=size * low // 100, expected_bytes=size, high_bytes=size * high // 100)
        for size in sizes
    )
    return ComputeBuffers(cards=tuple(bands), host_bytes=host)


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
    return (60, 200) if name in KNOWN and name not in _FAR else (20, 500)


#: families of which the nearest graph is a lower bound
_PARTLY = frozenset({"cohere2moe"})
#: known families whose graph is unlike any that is known
_FAR = frozenset({"deepseek32", "glm-dsa", "rwkv6", "rwkv7", "t5encoder"})


@lru_cache(maxsize=256)
def graph_sizes(model: GgmlModel, batch: Batch, rules: EngineRules) -> int:
    """Return the whole graph's buffer on a CPU."""
    if has_tape(model, batch, rules):
        from vramplan.engines.ggml.graph.recording import cpu_bytes

        graph = _recorded(model, batch, rules)
        assert graph is not None
        return cpu_bytes(graph)
    from vramplan.engines.ggml import reserved_graph

    return reserved_graph.graph_sizes(model, batch, rules)


@lru_cache(maxsize=256)
def tape_sizes(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> tuple[int, ...]:
    """Return the buffers of a model's recorded graph on each card and on the host."""
    graph = _recorded(model, batch, rules)
    assert graph is not None
    return recording_sizes(graph, model, batch, placement, rules)


def recording_sizes(
    graph: Recording, model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> tuple[int, ...]:
    """Return the buffers of the engine's own graph on each card and on the host."""
    from vramplan.engines.ggml.graph.recording import split_bytes
    from vramplan.engines.ggml.reserved_graph import norm_owners, unpacked_caches, weight_memories

    cards = len(placement.cards)
    found = (placement.card_of(number) for number in range(model.layers))
    return split_bytes(
        graph,
        dict(weight_memories(model, placement)),
        [cards if card == HOST else card for card in found],
        cards=cards,
        remotes=placement.remotes,
        is_cache_on_host=batch.is_cache_on_host,
        is_pipeline=is_pipeline(model, batch, placement),
        norms_with_layers=bool(norm_owners(model, batch, placement)),
        copies_weights=rules.offloads_host_weights,
        unpacks=unpacked_caches(model, batch, rules),
        fuses_experts=rules.fuses_experts,
    )


@lru_cache(maxsize=256)
def split_sizes(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> tuple[int, ...]:
    """Return the buffers of the graph's parts on each card, and on the host.

    Without a layer on a card large batches are computed on the first all the same.
    """

    def find() -> tuple[int, ...]:
        from vramplan.engines.ggml import reserved_graph  # what is known needs none of it

        return reserved_graph.split_sizes(model, batch, placement, rules)

    if not model.identity:
        return find()
    key = f"{model.identity} {batch} {placement} {rules}"
    return known_sizes(key, len(placement.cards) + 1, find)
