"""How long a token takes at least: each weight that it needs is read once, and the cache with it.

The cache is counted at the whole context, so that an empty conversation is faster. What is in host
memory is read by the CPU. Of a mixture's experts a token needs a few.
"""

from __future__ import annotations

from vramplan.budget.pace import HOST_BYTES_PER_S, Pace
from vramplan.engines.ggml.card_shares import HOST
from vramplan.engines.ggml.estimate import free_beside_contexts, run_on
from vramplan.engines.ggml.experts import HostPart
from vramplan.engines.ggml.gpu_seats import gpus_of
from vramplan.engines.ggml.layer_fit import Fit, as_asked, fit_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.weights import GgmlTensor, Placement, TensorRole
from vramplan.model import Card, Settings


def pace_ggml(
    pipeline: GgmlPipeline, settings: Settings, card: Card, budget_bytes: int | None
) -> Pace | None:
    """Return what one token takes on a card that offers so much; None stands for room for all.

    Of several cards one reads after the other. None is returned for a card whose bandwidth nobody
    knows. Raises as `estimate_ggml` does.
    """
    if not card.bandwidth_bytes_per_s:
        return None
    gpus = gpus_of(card, budget_bytes)
    run = run_on(pipeline, settings, gpus)
    fit = as_asked(run) if budget_bytes is None else fit_run(run, free_beside_contexts(run, gpus))
    on_cards, on_host = read_for_a_token(fit)
    cards = [seat.card for seat in card.seats] or [card]
    seconds = on_host / HOST_BYTES_PER_S
    for number, read in zip(run.cards, on_cards, strict=True):
        seconds += read / cards[number].bandwidth_bytes_per_s
    return Pace(seconds=seconds, result="token")


def read_for_a_token(fit: Fit) -> tuple[tuple[int, ...], int]:
    """Return the bytes that one token makes each card read, and the CPU."""
    model, batch, placement = fit.run.model, fit.run.batch, fit.placement
    on_cards, on_host = [0] * len(placement.cards), 0
    shape = model.language.experts if model.language is not None else None
    for tensor in model.tensors:
        if tensor.role is TensorRole.INPUT:  # a row of it
            continue
        size = tensor.size_bytes
        if shape is not None and HostPart.EXPERTS.has(tensor.name):
            size = size * shape.used // shape.count
        place = _place_of(tensor, placement)
        if place == HOST:
            on_host += size
        else:
            on_cards[place] += size
    whole = batch.cache_of_last(model.layers)
    for number, card in enumerate(placement.cards):
        here = batch.cache_on_card(card.first, card.stop)
        on_cards[number] += here // batch.streams
        whole -= here
    return tuple(on_cards), on_host + whole // batch.streams


def _place_of(tensor: GgmlTensor, placement: Placement) -> int:
    """Return the card that has a tensor, or HOST."""
    place = placement.card_of_output if tensor.layer is None else placement.card_of(tensor.layer)
    if placement.moved:
        found = placement.moved.find(tensor.file_name, tensor.layer)
        place = place if found is None else found
    return place
