"""A layer's feed-forward network: one for every token, or the experts that each is sent to.

Source: ggml-org/llama.cpp, src/llama-graph.cpp (build_ffn, build_moe_ffn).
"""

from __future__ import annotations

from vramplan.graph.layer import Layer
from vramplan.graph.tensor import Tensor


def feed_forward(layer: Layer, x: Tensor) -> Tensor:
    """Return what a layer's feed-forward network makes of `x`."""
    if not layer.has("ffn_gate_inp.weight"):
        return _plain(layer, x, layer.shape.feed_forward)
    y = _experts(layer, x)
    if layer.has("ffn_up_shexp.weight"):
        shared = _plain(layer, x, layer.model.shared_feed_forward, "_shexp")
        if layer.has("ffn_gate_inp_shexp.weight"):
            gate = layer.graph.same("unary", layer.graph.matmul(1, x))
            shared = layer.graph.same("mul", shared, gate)
        y = layer.graph.same("add", y, shared)
    return y


def _plain(layer: Layer, x: Tensor, inner: int, suffix: str = "") -> Tensor:
    """Up, maybe gated, and down again; `suffix` tells shared experts from a layer's only ones."""
    graph, up, gate = layer.graph, f"ffn_up{suffix}", f"ffn_gate{suffix}"
    is_gated = layer.has(f"{gate}.weight")
    is_fused = not is_gated and layer.model.architecture == "phi3"
    y = layer.linear(2 * inner if is_fused else inner, x, up)
    if is_fused:
        y = graph.glu_halves(y)
    elif is_gated:
        y = graph.glu(layer.linear(inner, x, gate), y)
    else:
        y = graph.same("unary", y)
    return layer.linear(layer.model.embedding, y, f"ffn_down{suffix}")


def _experts(layer: Layer, x: Tensor) -> Tensor:
    """Return the sum of the experts that each token is sent to."""
    graph, model = layer.graph, layer.model
    used, tokens, wide = model.experts_used, x.shape[1], model.embedding
    ids, weights = _choice(layer, x)
    graph.expand(weights)
    y = graph.reshape(x, wide, 1, tokens)
    up = graph.matmul_id(model.expert_feed_forward, y, ids)
    gate = graph.matmul_id(model.expert_feed_forward, y, ids)
    made = graph.matmul_id(wide, graph.glu(gate, up), ids)
    made = graph.same("mul", made, weights)
    graph.expand(made)
    parts = []
    for _ in range(used):
        strides = (4, made.strides[2], made.strides[3], made.strides[3])
        part = graph.view(made, (wide, tokens, 1, 1), strides)
        graph.expand(part)
        parts.append(part)
    result = parts[0]
    for part in parts[1:]:
        result = graph.same("add", result, part)
        graph.expand(result)
    return graph.copy(result) if used == 1 else result


def _choice(layer: Layer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the experts of each token, and their weights (1, experts used, tokens)."""
    graph, model, habits = layer.graph, layer.model, layer.habits
    used, tokens = model.experts_used, x.shape[1]
    logits = graph.matmul(model.experts, x)
    probabilities = graph.same("soft_max" if habits.gates_experts == "softmax" else "unary", logits)
    choice = probabilities
    if layer.has("exp_probs_b.bias"):
        choice = graph.same("add", probabilities)
    ids = graph.top(choice, used)
    weights = graph.rows_of(graph.reshape(probabilities, 1, model.experts, tokens), ids)
    if habits.normalises_experts:
        weights = graph.reshape(weights, used, tokens)
        total = graph.same("clamp", graph.sum_rows(weights))
        weights = graph.reshape(graph.same("div", weights, total), 1, used, tokens)
    if habits.scales_experts:
        weights = graph.same("scale", weights)
    return ids, weights
