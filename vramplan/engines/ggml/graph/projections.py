"""Queries, keys and values of a layer, made from its input, normed and turned by their positions.

Source: ggml-org/llama.cpp, src/llama-graph.cpp (build_qkv) and src/models.
"""

from __future__ import annotations

from vramplan.engines.ggml.graph.layer import Layer
from vramplan.engines.ggml.graph.tensor import Tensor


def queries_keys_values(
    layer: Layer, x: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's queries, keys and values, each (head size, heads, tokens)."""
    graph, habits = layer.graph, layer.habits
    rotates = habits.rotates and layer.shape.is_rotated
    factors = layer.rope_factors()
    q, k, v = _fused(layer, x) if layer.has("attn_qkv.weight") else _apart(layer, x)
    has_norms = not habits.norms_all_heads  # else they were there before the heads were parted
    if has_norms and layer.has("attn_q_norm.weight"):
        q = layer.norm(q, "attn_q_norm")
    if rotates:
        q = graph.same("rope", q, positions, *factors)
    if has_norms and layer.has("attn_k_norm.weight"):
        k = layer.norm(k, "attn_k_norm")
    if rotates:
        k = graph.same("rope", k, positions, *factors)
    if habits.scales_queries:
        q = graph.same("scale", q)
    return q, k, v


def gated_queries(layer: Layer, x: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
    """Return queries, keys and values, and the gate that stands beside the queries (Qwen 3.5)."""
    graph, shape, tokens = layer.graph, layer.shape, x.shape[1]
    size, heads = shape.head_k, shape.heads
    both = layer.linear(2 * size * heads, x, "attn_q")
    strides = (4, 8 * size, 8 * size * heads, 8 * size * heads * tokens)
    q = layer.norm(graph.view(both, (size, heads, tokens, 1), strides), "attn_q_norm")
    k = layer.linear(size * shape.kv_heads, x, "attn_k")
    k = graph.reshape(k, size, shape.kv_heads, tokens)
    v = layer.linear(shape.head_v * shape.kv_heads, x, "attn_v")
    k = layer.norm(k, "attn_k_norm")
    gate = graph.copy_as(graph.view(both, (size, heads, tokens, 1), strides), size * heads, tokens)
    v = graph.reshape(v, shape.head_v, shape.kv_heads, tokens)
    return graph.same("rope", q, positions), graph.same("rope", k, positions), v, gate


def _apart(layer: Layer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three matrices."""
    shape, reshape, tokens = layer.shape, layer.graph.reshape, x.shape[1]
    q = layer.linear(shape.heads * shape.head_k, x, "attn_q")
    k = layer.linear(shape.kv_heads * shape.head_k, x, "attn_k")
    v = layer.linear(shape.kv_heads * shape.head_v, x, "attn_v")
    if layer.habits.norms_all_heads:
        q, k = layer.norm(q, "attn_q_norm"), layer.norm(k, "attn_k_norm")
    return (
        reshape(q, shape.head_k, shape.heads, tokens),
        reshape(k, shape.head_k, shape.kv_heads, tokens),
        reshape(v, shape.head_v, shape.kv_heads, tokens),
    )


def _fused(layer: Layer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One matrix, and three views of what it gives."""
    shape = layer.shape
    widths = shape.heads * shape.head_k + shape.kv_heads * (shape.head_k + shape.head_v)
    whole = layer.linear(widths, x, "attn_qkv")

    def part(size: int, heads: int) -> Tensor:
        row = whole.strides[1]
        strides = (4, 4 * size, row, row * whole.shape[1])
        return layer.graph.view(whole, (size, heads, whole.shape[1], 1), strides)

    return (
        part(shape.head_k, shape.heads),
        part(shape.head_k, shape.kv_heads),
        part(shape.head_v, shape.kv_heads),
    )
