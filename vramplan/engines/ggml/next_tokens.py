"""The layers that guess the tokens after the next (MTP): loaded only where it is asked for.

With ``load_mtp`` their weights are loaded with the model's, and they have a context of their own:
a cache of each, and a compute buffer. They count as layers either way: the last ones. Source:
ggml-org/llama.cpp, src/llama-model.cpp (load_mtp), asked of b11549.
"""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.engines.ggml.card_shares import cards_of
from vramplan.engines.ggml.figures import Figure, Figures, over_cards
from vramplan.model import Band, Origin
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.ggml.layer_fit import Fit

#: the setting that loads them
SETTING = "load_mtp"


def is_loaded(fit: Fit) -> bool:
    """Return whether a fit has such layers, and is to load them."""
    return bool(fit.run.model.next_tensors) and fit.run.settings.get(SETTING) == "on"


def with_next_tokens(
    fit: Fit, figures: Figures, told: tuple[tuple[int, ...], int] | None = None
) -> Figures:
    """Return `figures` with the layers' weights, and their second context.

    `told` are that context's compute buffers on each card and in host memory, where the engine was
    asked; without, they are taken to be the model's once more: a layer of it, and its words.
    """
    model, batch = fit.run.model, fit.run.batch
    # the output layer is the last of them, and those that guess ahead are before it
    owners = cards_of(fit.on_gpu, fit.shares)[:-1]
    last = model.layers + model.next_layers
    cards = len(figures.weights.bands)
    weights, blocks, on_host = [0] * cards, [0] * cards, 0
    for tensor in model.next_tensors:
        at = (tensor.layer or 0) - last
        if -at <= len(owners):
            weights[owners[at]] += tensor.cuda_bytes
        else:
            on_host += tensor.size_bytes
    for owner in owners[-model.next_layers :]:
        blocks[owner] += 1
    cache = max(batch.layer_caches or (batch.cache_layer_bytes,))
    own = figures.compute
    if told is not None:
        source = f"{own.source}; and the engine's own plan of the layers' context"
        bands = [band + Band.exactly(size) for band, size in zip(own.bands, told[0], strict=True)]
        origin = Origin.ASSUMED if own.origin is Origin.ASSUMED else Origin.WITNESSED
        host_compute = told[1]
    else:
        source = (
            "the model's, and a second context's for the layers that guess ahead, whose graph is "
            "not known: taken for the model's once more, from nothing to that twice"
        )
        bands = [
            Band(
                low_bytes=band.low_bytes,
                expected_bytes=2 * band.expected_bytes,
                high_bytes=3 * band.high_bytes,
            )
            for band in own.bands
        ]
        origin, host_compute = Origin.ASSUMED, figures.host_compute_bytes
    return replace(
        figures,
        weights=_more(figures.weights, weights),
        cache=_more(figures.cache, [count * cache for count in blocks]),
        compute=over_cards(bands, origin, source),
        host_compute_bytes=figures.host_compute_bytes + host_compute,
        host_model_bytes=figures.host_model_bytes + on_host,
        host_cache_bytes=figures.host_cache_bytes + (model.next_layers - sum(blocks)) * cache,
        remarks=(
            *figures.remarks,
            f"load_mtp: {model.next_layers} layers that guess ahead, with a context of their own",
        ),
    )


def _more(figure: Figure, sizes: Sequence[int]) -> Figure:
    bands = [band + Band.exactly(size) for band, size in zip(figure.bands, sizes, strict=True)]
    return over_cards(bands, figure.origin, figure.source)
