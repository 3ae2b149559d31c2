"""The layers that guess the tokens after the next (MTP): loaded only where it is asked for.

With ``load_mtp`` their weights are loaded with the model's, and they have a context of their own:
a cache of each, and a compute buffer. They count as layers either way: the last ones. Source:
ggml-org/llama.cpp, src/llama-model.cpp (load_mtp), asked of b11549.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vramplan.engines.ggml.figures import Figure, Figures
from vramplan.model import Band, Origin
from vramplan.quick_dataclass import replace

if TYPE_CHECKING:
    from vramplan.engines.ggml.layer_fit import Fit

#: the setting that loads them
SETTING = "load_mtp"


def is_loaded(fit: Fit) -> bool:
    """Return whether a fit has such layers, and is to load them."""
    return bool(fit.run.model.next_tensors) and fit.run.settings.get(SETTING) == "on"


def with_next_tokens(fit: Fit, figures: Figures) -> Figures:
    """Return `figures` with the layers' weights, and their second context."""
    model, batch = fit.run.model, fit.run.batch
    last = model.layers + model.next_layers
    first = last - max(fit.on_gpu - 1, 0)  # the output layer is one
    on_gpu = on_host = 0
    for tensor in model.next_tensors:
        if (tensor.layer or 0) >= first:
            on_gpu += tensor.cuda_bytes
        else:
            on_host += tensor.size_bytes
    blocks = min(model.next_layers, max(fit.on_gpu - 1, 0))
    cache = max(batch.layer_caches or (batch.cache_layer_bytes,))
    compute = figures.compute.band
    source = (
        "the model's, and a second context's for the layers that guess ahead, whose graph is not "
        "known: no larger than the model's"
    )
    return replace(
        figures,
        weights=_more(figures.weights, on_gpu),
        cache=_more(figures.cache, blocks * cache),
        compute=Figure(
            band=Band(
                low_bytes=compute.low_bytes,
                expected_bytes=compute.expected_bytes,
                high_bytes=2 * compute.high_bytes,
            ),
            origin=Origin.ASSUMED,
            source=source,
        ),
        host_model_bytes=figures.host_model_bytes + on_host,
        host_cache_bytes=figures.host_cache_bytes + (model.next_layers - blocks) * cache,
        remarks=(
            *figures.remarks,
            f"load_mtp: {model.next_layers} layers that guess ahead, with a context of their own",
        ),
    )


def _more(figure: Figure, size_bytes: int) -> Figure:
    return replace(figure, band=figure.band + Band.exactly(size_bytes))
