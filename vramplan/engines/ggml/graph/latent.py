"""Multi-head latent attention (DeepSeek): keys and values are unpacked of one row a token.

Files of today have the unpacking matrices apart, so that queries are packed instead and attention
runs over the rows themselves, like one key head for all; old files unpack every head first.
Source: ggml-org/llama.cpp, src/models/deepseek2.cpp.
"""

from __future__ import annotations

from vramplan.engines.ggml.graph.attention import AttentionInputs
from vramplan.engines.ggml.graph.layer import Layer
from vramplan.engines.ggml.graph.shapes import LatentShape
from vramplan.engines.ggml.graph.tensor import Tensor


def latent_attention(
    layer: Layer, shape: LatentShape, x: Tensor, positions: Tensor, cache: AttentionInputs
) -> Tensor:
    """Return attention of `x`, with the heads side by side."""
    graph, heads, tokens = layer.graph, layer.shape.heads, x.shape[1]
    if layer.has("attn_q_a.weight"):
        packed = layer.norm(layer.matmul(shape.q_rank, x, "attn_q_a"), "attn_q_a_norm")
        q = layer.matmul(heads * shape.head_k, packed, "attn_q_b")
    else:
        q = layer.matmul(heads * shape.head_k, x, "attn_q")
    q = graph.reshape(q, shape.head_k, heads, tokens)
    row = layer.matmul(shape.rank + shape.rope, x, "attn_kv_a_mqa")
    step = row.strides[1]
    packed = graph.view(row, (shape.rank, tokens, 1, 1), (4, step, step * tokens, step * tokens))
    turned = graph.view(row, (shape.rope, 1, tokens, 1), (4, step, step, step * tokens))
    turned = graph.same("rope", turned, positions)
    packed = layer.norm(packed, "attn_kv_a_norm")
    if not shape.is_absorbed:
        return _unpacked(layer, shape, (q, packed, turned), positions, cache)
    plain = graph.view(q, (shape.head_k - shape.rope, heads, tokens, 1), q.strides)
    q_turned = graph.view(q, (shape.rope, heads, tokens, 1), q.strides)
    q_turned = graph.same("rope", q_turned, positions)
    absorbed = layer.matmul(shape.rank, graph.permute(plain, 0, 2, 1, 3), "attn_k_b")
    q = graph.widen(graph.permute(absorbed, 0, 2, 1, 3), q_turned)
    packed = graph.reshape(packed, shape.rank, 1, tokens)
    k = graph.widen(packed, turned)
    return cache.attend(layer, q, k, packed, unpacked=shape.head_v)


def _unpacked(
    layer: Layer,
    shape: LatentShape,
    parts: tuple[Tensor, Tensor, Tensor],
    positions: Tensor,
    cache: AttentionInputs,
) -> Tensor:
    """Return attention over heads that are unpacked first; `parts` are queries, row, turned row."""
    graph, heads = layer.graph, layer.shape.heads
    q, packed, turned = parts
    tokens = packed.shape[1]
    plain = shape.head_k - shape.rope
    both = layer.matmul(heads * (plain + shape.head_v), packed, "attn_kv_b")
    head = 4 * (plain + shape.head_v)
    strides = (4, head, head * heads, head * heads * tokens)
    k = graph.view(both, (plain, heads, tokens, 1), strides)
    v = graph.copy(graph.view(both, (shape.head_v, heads, tokens, 1), strides))
    q = graph.same("rope", q, positions)
    repeated = Tensor("repeat", "f32", (shape.rope, heads, tokens, 1), (turned,))
    return cache.attend(layer, q, graph.widen(k, repeated), v)
