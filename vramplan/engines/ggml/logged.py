"""Ours beside what an engine printed: the buffers of a published log, worked out at its settings.

A log tells a model's shapes and not its tensors; those are put together here as the family has
them. Matrices are of the type that the log names, the output matrix of q6_k where that is a mix of
four bits (llama.cpp, src/llama-quant.cpp), so the bytes of weights are only compared where a file
has one type. A log without a type tells nothing of what is copied at partial offload.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vramplan.catalog.engine_logs import LoggedLoad, LoggedModel
from vramplan.engine_buffer import engine_name
from vramplan.engines.ggml.build_rules import rules_of
from vramplan.engines.ggml.compute_buffer import compute_buffers
from vramplan.engines.ggml.graph.shapes import ExpertShape, LanguageShape, LayerShape
from vramplan.engines.ggml.load_plan import batch_of
from vramplan.engines.ggml.weights import GgmlModel, GgmlTensor, TensorRole, place_layers
from vramplan.model import Band, LineKind
from vramplan.quick_dataclass import dataclass, replace
from vramplan.sources.block_sizes import BLOCKS

_QKV_BIAS = ("attn_q.bias", "attn_k.bias", "attn_v.bias")
_QK_NORM = ("attn_q_norm.weight", "attn_k_norm.weight")
_BEHIND = ("post_attention_norm.weight", "post_ffw_norm.weight")
#: what a family's layers have besides LLaMA's matrices and norms
_VECTORS: Mapping[str, tuple[str, ...]] = {
    "qwen2": _QKV_BIAS,
    "qwen3": _QK_NORM,
    "olmoe": _QK_NORM,
    "gemma3": (*_QK_NORM, *_BEHIND),
    "glm4": _BEHIND,
    "gptneox": (
        "attn_norm.bias", "ffn_norm.bias", "attn_qkv.bias", "attn_output.bias", "ffn_up.bias",
        "ffn_down.bias",
    ),
}  # fmt: skip
_FUSED_QKV = frozenset({"gptneox"})
_TIED = frozenset({"qwen2", "qwen3", "gemma3"})
#: windowed layers of each period, and the period: src/models (set_swa_pattern)
_WINDOWED = {"gemma3": 6}
_FALLBACK = {"q4_k": "q5_0", "iq4_xs": "iq4_nl", "q6_k": "q8_0"}
_MATRIX = {"q4_k_m": "q4_k", "iq4_xs": "iq4_xs", "q4_0": "q4_0", "f16": "f16"}
#: quantisations whose matrices are all of one type, but for the output of four bits
_OF_ONE_TYPE = frozenset({"f16", "q4_0"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedFigure:
    """One buffer of a log and ours."""

    log: LoggedLoad
    kind: LineKind
    is_on_gpu: bool
    printed_bytes: int
    ours: Band

    @property
    def name(self) -> str:
        """Return the log's word for the buffer, ``KV`` or ``compute``."""
        return engine_name(self.kind)

    @property
    def off(self) -> float:
        """How far ours is off, as a share of what was printed."""
        return (self.ours.expected_bytes - self.printed_bytes) / self.printed_bytes


def compare_log(log: LoggedLoad) -> Iterator[LoggedFigure]:
    """Yield the weights, the cache and the compute buffer on the GPU, where they are comparable."""
    model = logged_model(log.model)
    rules = rules_of(str(log.settings["engine"]))
    has_flash = log.settings["flash_attention"] == "on"
    batch = batch_of(model, log.settings, rules, has_flash=has_flash, is_shared=True)
    placement = place_layers(model, log.on_gpu, output_first=rules.output_layer_first)
    ours = {
        LineKind.KV_CACHE: Band.exactly(batch.cache_of_last(placement.blocks_on_gpu)),
        LineKind.COMPUTE_BUFFER: compute_buffers(model, batch, placement, rules).gpu,
    }
    if log.model.quantisation in _OF_ONE_TYPE and log.model.architecture not in _TIED:
        ours[LineKind.WEIGHTS] = Band.exactly(placement.gpu_bytes)
    if log.model.quantisation is None and log.on_gpu < log.total_layers:
        del ours[LineKind.COMPUTE_BUFFER]
    for kind, band in ours.items():
        printed = log.buffer_bytes(kind, on_gpu=True)
        if printed is not None:
            yield LoggedFigure(log=log, kind=kind, is_on_gpu=True, printed_bytes=printed, ours=band)


def logged_model(told: LoggedModel) -> GgmlModel:
    """Return a model of a log's shapes."""
    tensors = tuple(_tensors(told))
    period = _WINDOWED.get(told.architecture, 0)
    layer = LayerShape(
        heads=told.heads,
        kv_heads=told.kv_heads,
        head_k=told.head_size,
        head_v=told.head_size,
        feed_forward=told.feed_forward,
    )
    windowed = replace(layer, is_windowed=True)
    return GgmlModel(
        architecture=told.architecture,
        quantisation=told.quantisation or "",
        layers=told.layers,
        embedding=told.embedding,
        feed_forward=told.feed_forward,
        heads=told.heads,
        kv_heads=told.kv_heads,
        head_size=told.head_size,
        vocabulary=told.vocabulary,
        trained_context=0,
        tensors=tensors,
        window=told.window,
        language=LanguageShape(
            architecture=told.architecture,
            embedding=told.embedding,
            vocabulary=told.vocabulary,
            layers=tuple(
                windowed if period and number % period < period - 1 else layer
                for number in range(told.layers)
            ),
            names=frozenset(tensor.name for tensor in tensors),
            experts=ExpertShape(
                count=told.experts,
                used=told.experts_used,
                feed_forward=told.expert_feed_forward,
            )
            if told.experts
            else None,
        ),
    )


def _tensors(told: LoggedModel) -> Iterator[GgmlTensor]:
    matrix = _MATRIX.get(told.quantisation or "", "q4_0")
    last = matrix if matrix == "f16" else "q6_k"
    wide, words = told.embedding, told.vocabulary
    is_tied = told.architecture in _TIED
    table = last if is_tied else matrix
    yield _tensor("token_embd.weight", (wide, words), table, TensorRole.INPUT)
    for layer in range(told.layers):
        for name, shape in _matrices(told):
            yield _tensor(f"blk.{layer}.{name}", shape, matrix, TensorRole.BLOCK, layer)
        for name, width in _vectors(told):
            yield _tensor(f"blk.{layer}.{name}", (width,), "f32", TensorRole.BLOCK, layer)
    yield _tensor("output_norm.weight", (wide,), "f32", TensorRole.OUTPUT)
    if "attn_norm.bias" in _VECTORS.get(told.architecture, ()):
        yield _tensor("output_norm.bias", (wide,), "f32", TensorRole.OUTPUT)
    yield GgmlTensor(
        name="output.weight",
        shape=(wide, words),
        type=_fitting(last, wide),
        role=TensorRole.OUTPUT,
        is_shared=is_tied,
    )


def _matrices(told: LoggedModel) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide, inner = told.embedding, told.feed_forward
    queries, keys = told.heads * told.head_size, told.kv_heads * told.head_size
    if told.architecture in _FUSED_QKV:
        yield "attn_qkv.weight", (wide, queries + 2 * keys)
    else:
        yield "attn_q.weight", (wide, queries)
        yield "attn_k.weight", (wide, keys)
        yield "attn_v.weight", (wide, keys)
    yield "attn_output.weight", (queries, wide)
    if told.experts:
        own = told.expert_feed_forward
        yield "ffn_gate_inp.weight", (wide, told.experts)
        yield "ffn_gate_exps.weight", (wide, own, told.experts)
        yield "ffn_up_exps.weight", (wide, own, told.experts)
        yield "ffn_down_exps.weight", (own, wide, told.experts)
        return
    if told.architecture == "glm4":
        yield "ffn_up.weight", (wide, 2 * inner)
    else:
        if told.architecture not in _FUSED_QKV:
            yield "ffn_gate.weight", (wide, inner)
        yield "ffn_up.weight", (wide, inner)
    yield "ffn_down.weight", (inner, wide)


def _vectors(told: LoggedModel) -> Iterator[tuple[str, int]]:
    queries, keys = told.heads * told.head_size, told.kv_heads * told.head_size
    widths = {
        "attn_q.bias": queries,
        "attn_k.bias": keys,
        "attn_v.bias": keys,
        "attn_qkv.bias": queries + 2 * keys,
        "attn_q_norm.weight": told.head_size,
        "attn_k_norm.weight": told.head_size,
        "ffn_up.bias": told.feed_forward,
    }
    for name in ("attn_norm.weight", "ffn_norm.weight", *_VECTORS.get(told.architecture, ())):
        yield name, widths.get(name, told.embedding)


def _tensor(
    name: str, shape: tuple[int, ...], kind: str, role: TensorRole, layer: int | None = None
) -> GgmlTensor:
    return GgmlTensor(name=name, shape=shape, type=_fitting(kind, shape[0]), role=role, layer=layer)


def _fitting(kind: str, width: int) -> str:
    """Return the type that rows of `width` get where whole blocks of `kind` do not fill them.

    Source: llama.cpp, src/llama-quant.cpp (tensor_type_fallback).
    """
    block = BLOCKS[kind][0]
    return kind if width % block == 0 else _FALLBACK.get(kind, "f16")
