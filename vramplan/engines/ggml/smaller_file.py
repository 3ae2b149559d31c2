"""A smaller file of the same model: which usual quantisation would let all of it onto the card."""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.budget.ranked import FileFit
from vramplan.engines.ggml.estimate import estimate_on
from vramplan.engines.ggml.layer_fit import MARGIN_BYTES
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.model import (
    LANGUAGE_MODEL,
    PROJECTOR,
    Advice,
    Card,
    Estimate,
    LineKind,
    Settings,
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
    held = _on_gpu(whole, LineKind.WEIGHTS, LANGUAGE_MODEL)
    missing = _missing(whole, verdict.budget_bytes, is_fitted=is_fitted, is_ollama=is_ollama)
    if missing <= 0 or missing >= held:
        return None
    bits = _bits(whole)
    name = _largest_within(bits * (held - missing) / held)
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


def file_fit(pipeline: GgmlPipeline, settings: Settings, card: Card, budget_bytes: int) -> FileFit:
    """Return a model's file, and the largest usual quantisation of which all is on the GPU.

    Raises as `estimate_ggml` does.
    """
    run = read_run(pipeline, {**settings, "gpu_layers": "all"}, card.compute_capability)
    whole = estimate_on(pipeline, {**settings, "gpu_layers": "all"}, card)
    held, bits = _on_gpu(whole, LineKind.WEIGHTS, LANGUAGE_MODEL), _bits(whole)
    missing = _missing(
        whole,
        budget_bytes,
        is_fitted=settings.get("gpu_layers") == "auto",
        is_ollama=pipeline.is_ollama,
    )
    best = _largest_within(bits * (held - missing) / held) if held else None
    model = run.model
    shape = f"{model.architecture} {model.layers}x{model.embedding} {model.parameters}"
    title = pipeline.title.rpartition(" (")[0] or pipeline.title
    return FileFit(
        family=f"{title} {shape}",
        quantisation=model.quantisation,
        bits=bits,
        best=best,
        best_bits=None if best is None else _BITS[best],
    )


def _missing(whole: Estimate, budget_bytes: int, *, is_fitted: bool, is_ollama: bool) -> int:
    """Return by how much the whole is too large for a budget; below 0 where there is room left."""
    if not is_fitted:
        return whole.need.band.high_bytes - budget_bytes
    pools = _on_gpu(whole, LineKind.ENGINE_POOL)  # in nobody's sum: they come out of the margin
    # it keeps room for the projector twice
    again = _on_gpu(whole, LineKind.WEIGHTS, PROJECTOR) if is_ollama else 0
    return whole.need.band.expected_bytes - pools + MARGIN_BYTES + again - budget_bytes


def _bits(whole: Estimate) -> float:
    """Return the bits that a weight of the file has."""
    model = whole.components[0]
    return model.weights_bytes * 8 / model.parameters


def _largest_within(bits: float) -> str | None:
    return next((name for name, size in _BITS.items() if size <= bits), None)


def _on_gpu(whole: Estimate, kind: LineKind, component: str | None = None) -> int:
    return buffer_bytes(whole.buffers, kind, component=component)
