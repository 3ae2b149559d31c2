"""A smaller file of the same model: which usual quantisation would let all of it onto the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from vramplan.budget.ranked import FileFit
from vramplan.engines.ggml.estimate import estimate_on
from vramplan.engines.ggml.layer_fit import MARGIN_BYTES
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.quantise_rules import Mixture, quantised
from vramplan.engines.ggml.weights import GgmlModel, GgmlTensor, TensorRole
from vramplan.model import (
    PROJECTOR,
    Advice,
    Card,
    Estimate,
    LineKind,
    Settings,
    Verdict,
    buffer_bytes,
)
from vramplan.quick_dataclass import dataclass, replace
from vramplan.units import format_size

#: quantisations of llama-quantize that people share, the largest first; those below three bits are
#: left out, for which a smaller model is the better answer
_USUAL = (
    "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s", "iq4_xs", "q3_k_l", "q3_k_m", "q3_k_s",
    "iq3_xxs", "q2_k",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """A quantisation of a model: bits a weight, and the bytes of weights with all of it on a card.

    The table of words, which stays in host memory, is among the bits alone.
    """

    name: str
    bits: float
    on_card_bytes: int


@lru_cache(maxsize=64)
def _sizes(model: GgmlModel) -> tuple[_Size, ...]:
    """Return what the model takes as it is, and in the usual quantisations, the largest first."""
    own = [one for one in model.tensors if not one.is_shared]
    shape = model.language
    mixture = Mixture(
        quantisation="",
        architecture=model.architecture,
        layers=model.layers,
        heads_a_key=max(model.heads // max(model.kv_heads, 1), 1),
        experts=shape.experts.count if shape is not None and shape.experts is not None else 0,
    )
    found = [_size(model, model.quantisation, {})]
    for name in _USUAL:
        types = quantised(
            [(one.name, one.shape) for one in own], replace(mixture, quantisation=name)
        )
        found.append(_size(model, name, {tensor: kind for tensor, _, kind in types}))
    return tuple(found)


def _size(model: GgmlModel, name: str, types: Mapping[str, str]) -> _Size:
    file_bytes = on_card_bytes = 0
    # layers are alike: a tensor of each kind is looked at once
    kinds = Counter(
        (one.shape, types.get(one.file_name, one.type), one.role is TensorRole.INPUT, one.is_shared)
        for one in model.tensors
    )
    for (shape, kind, is_input, is_shared), count in kinds.items():
        one = GgmlTensor(name="", shape=shape, type=kind, role=TensorRole.BLOCK)
        file_bytes += 0 if is_shared else one.size_bytes * count
        on_card_bytes += 0 if is_input else one.cuda_bytes * count
    return _Size(name=name, bits=file_bytes * 8 / model.parameters, on_card_bytes=on_card_bytes)


def smaller_file(
    model: GgmlModel, whole: Estimate, verdict: Verdict, *, is_fitted: bool, is_ollama: bool
) -> Advice | None:
    """Return the largest usual quantisation with which `whole` would be on the GPU, or None.

    `whole` is the estimate of `model` with every layer there. Where the engine decides
    (`is_fitted`) its margin must be left over; else the high end of the need must be within the
    budget.
    """
    missing = _missing(whole, verdict.budget_bytes, is_fitted=is_fitted, is_ollama=is_ollama)
    if missing <= 0:
        return None
    now = _sizes(model)[0]
    best = _largest_within(model, now.on_card_bytes - missing)
    if best is None:
        return None
    less = now.on_card_bytes - best.on_card_bytes
    return Advice(
        change=f"a smaller file of the model: {best.name}, {best.bits:.1f} bits a weight where "
        f"this one has {now.bits:.1f}",
        effect=f"{format_size(less)} less: all layers on the GPU",
        cost="another download, and answers get worse with fewer bits",
        need_bytes=whole.need.band.expected_bytes - less,
    )


def file_fit(pipeline: GgmlPipeline, settings: Settings, card: Card, budget_bytes: int) -> FileFit:
    """Return a model's file, and the largest usual quantisation of which all is on the GPU.

    Raises as `estimate_ggml` does.
    """
    run = read_run(pipeline, {**settings, "gpu_layers": "all"}, card.compute_capability)
    whole = estimate_on(pipeline, {**settings, "gpu_layers": "all"}, card)
    missing = _missing(
        whole,
        budget_bytes,
        is_fitted=settings.get("gpu_layers") == "auto",
        is_ollama=pipeline.is_ollama,
    )
    model = run.model
    now = _sizes(model)[0]
    best = _largest_within(model, now.on_card_bytes - missing)
    shape = f"{model.architecture} {model.layers}x{model.embedding} {model.parameters}"
    title = pipeline.title.rpartition(" (")[0] or pipeline.title
    return FileFit(
        family=f"{title} {shape}",
        quantisation=model.quantisation,
        bits=now.bits,
        best=None if best is None else best.name,
        best_bits=None if best is None else best.bits,
    )


def _largest_within(model: GgmlModel, on_card_bytes: int) -> _Size | None:
    """Return the usual quantisation with most bits of which no more is on a card."""
    usual = _sizes(model)[1:]
    return next((one for one in usual if one.on_card_bytes <= on_card_bytes), None)


def _missing(whole: Estimate, budget_bytes: int, *, is_fitted: bool, is_ollama: bool) -> int:
    """Return by how much the whole is too large for a budget; below 0 where there is room left."""
    if not is_fitted:
        return whole.need.band.high_bytes - budget_bytes
    pools = _on_gpu(whole, LineKind.ENGINE_POOL)  # in nobody's sum: they come out of the margin
    # it keeps room for the projector twice
    again = _on_gpu(whole, LineKind.WEIGHTS, PROJECTOR) if is_ollama else 0
    return whole.need.band.expected_bytes - pools + MARGIN_BYTES + again - budget_bytes


def _on_gpu(whole: Estimate, kind: LineKind, component: str | None = None) -> int:
    return buffer_bytes(whole.buffers, kind, component=component)
