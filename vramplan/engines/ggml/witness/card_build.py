"""What llama.cpp puts where on a card, and what it allocates: what the engine can be asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vramplan.engines.ggml.build_rules import WITNESS_ENGINE
from vramplan.engines.ggml.card_memory import CardMemory
from vramplan.engines.ggml.compute_buffer import compute_buffers
from vramplan.engines.ggml.graph_buffer import is_told
from vramplan.engines.ggml.layer_fit import fit_run, margin_bytes, other_margin_bytes
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.model import HOST, Buffer, Device, LineKind, Settings
from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CardBuild:
    """What the build b11549 allocates for a model file on a card, and what it was asked.

    `settings` are those the engine begins with, `context` is what is left of it. `margins_bytes`
    are what it is to leave free on each of the `cards` that it uses. Of
    weights in host memory it has what the engine prints: the part of the file that is mapped.
    """

    settings: Settings
    margins_bytes: tuple[int, ...]
    layers: tuple[int, int]  # on the GPU, of
    context: int
    buffers: tuple[Buffer, ...]
    is_known: bool
    cards: tuple[int, ...]


def card_build(
    pipeline: GgmlPipeline, settings: Settings, compute_capability: str, card: CardMemory
) -> CardBuild:
    """Return what llama.cpp's build b11549 does with a model file on `card`, or on several.

    Raises UsageError for settings that cannot be.
    """
    chosen = {**settings, "engine": WITNESS_ENGINE}
    run = read_run(pipeline, chosen, compute_capability, card)
    assert run.model.language is not None
    free = [card.cards[number].beside_context_bytes for number in run.cards]
    fit = fit_run(run, free)
    batch, placement = fit.run.batch, fit.placement
    compute = compute_buffers(run.model, batch, placement, run.rules)
    parts, every = placement.cards, run.model.layers
    caches = [batch.cache_on_card(part.first, part.stop) for part in parts]
    states = [batch.states_on_card(part.first, part.stop) for part in parts]
    sizes = {
        LineKind.WEIGHTS: ([part.weights_bytes for part in parts], placement.mapped_bytes),
        LineKind.KV_CACHE: (caches, batch.cache_of_last(every) - sum(caches)),
        LineKind.RECURRENT_STATE: (states, batch.states_of_last(every) - sum(states)),
        LineKind.COMPUTE_BUFFER: (
            [band.expected_bytes for band in compute.cards],
            compute.host_bytes,
        ),
    }
    return CardBuild(
        settings={**run.settings, "context": "auto"} if run.may_shrink_context else run.settings,
        margins_bytes=(
            margin_bytes(run, free[0]),
            *(other_margin_bytes(run, free[0]) for _ in free[1:]),
        ),
        layers=(placement.on_gpu, run.model.total_layers),
        context=batch.context * batch.streams,
        buffers=tuple(
            Buffer(kind=kind, device=device, size_bytes=size)
            for kind, (on_cards, on_host) in sizes.items()
            for device, size in (*_numbered(on_cards), (HOST, on_host))
        ),
        is_known=is_told(run.model, batch, run.rules, len(run.cards)),
        cards=run.cards,
    )


def _numbered(sizes: Sequence[int]) -> Iterator[tuple[Device, int]]:
    """Yield the sizes with the cards that the engine sees, by its own numbers."""
    for number, size in enumerate(sizes):
        yield Device(gpu=number), size
