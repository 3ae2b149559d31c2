"""A smaller file of the same model: which usual quantisation would let all of it onto the card."""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.engines.ggml.layer_fit import MARGIN_BYTES
from vramplan.model import (
    LANGUAGE_MODEL,
    PROJECTOR,
    Advice,
    Estimate,
    LineKind,
    Verdict,
    buffer_bytes,
)
from vramplan.units import format_size

#: bits a weight of llama-quantize's types, measured on Llama 3.1 8B; those below three bits are
#: left out, for which a smaller model is the better answer.
#: Source: llama.cpp, tools/quantize/README.md
_BITS: Mapping[str, float] = {
    "q8_0": 8.5008,
    "q6_k": 6.5633,
    "q5_k_m": 5.7036,
    "q4_k_m": 4.8944,
    "q4_k_s": 4.6672,
    "iq4_xs": 4.4597,
    "q3_k_l": 4.2979,
    "q3_k_m": 3.9960,
    "q3_k_s": 3.6429,
    "iq3_xxs": 3.2548,
    "q2_k": 3.1593,
}


def smaller_file(
    whole: Estimate, verdict: Verdict, *, is_fitted: bool, is_ollama: bool
) -> Advice | None:
    """Return the largest usual quantisation with which `whole` would be on the GPU, or None.

    `whole` is the estimate with every layer there. Where the engine decides (`is_fitted`) its
    margin must be left over; else the high end of the need must be within the budget.
    """
    held, model = _on_gpu(whole, LineKind.WEIGHTS, LANGUAGE_MODEL), whole.components[0]
    missing = whole.need.band.high_bytes - verdict.budget_bytes
    if is_fitted:
        pools = _on_gpu(whole, LineKind.ENGINE_POOL)  # in nobody's sum: they come out of the margin
        # it keeps room for the projector twice
        again = _on_gpu(whole, LineKind.WEIGHTS, PROJECTOR) if is_ollama else 0
        needed = whole.need.band.expected_bytes - pools + MARGIN_BYTES + again
        missing = needed - verdict.budget_bytes
    if missing <= 0 or missing >= held:
        return None
    bits = model.weights_bytes * 8 / model.parameters
    most = bits * (held - missing) / held
    name = next((name for name, size in _BITS.items() if size <= most), None)
    if name is None:
        return None
    less = round(held * (1 - _BITS[name] / bits))
    return Advice(
        change=f"a smaller file of the model: {name}, {_BITS[name]:.1f} bits a weight where this "
        f"one has {bits:.1f}",
        effect=f"about {format_size(less)} less: all layers on the GPU",
        cost="another download, and answers get worse with fewer bits",
        need_bytes=whole.need.band.expected_bytes - less,
    )


def _on_gpu(whole: Estimate, kind: LineKind, component: str | None = None) -> int:
    return buffer_bytes(whole.buffers, kind, component=component)
