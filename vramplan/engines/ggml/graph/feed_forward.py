"""A layer's feed-forward network: one for every token, or the experts that each is sent to.

Source: ggml-org/llama.cpp, src/llama-graph.cpp (build_ffn, build_moe_ffn).
"""

from __future__ import annotations

from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.layer import Layer
from vramplan.engines.ggml.graph.shapes import ExpertShape
from vramplan.engines.ggml.graph.tensor import Tensor


def feed_forward(layer: Layer, x: Tensor) -> Tensor:
    """Return what a layer's feed-forward network makes of `x`."""
    experts = layer.model.experts
    if experts is None or not layer.has("ffn_gate_inp.weight"):
        return _plain(layer, x, layer.shape.feed_forward)
    y = _experts(layer, x, experts)
    if layer.has("ffn_up_shexp.weight"):
        shared = _plain(layer, x, experts.shared_feed_forward, "_shexp")
        if layer.has("ffn_gate_inp_shexp.weight"):
            logit = layer.matmul(1, x, "ffn_gate_inp_shexp")
            gate = layer.graph.same("unary", logit)
            if layer.habits.divides_gate:
                gate = layer.graph.same("div", gate, logit)
            shared = layer.graph.same("mul", shared, gate)
        y = layer.graph.same("add", y, shared)
    return y


def _plain(layer: Layer, x: Tensor, inner: int, suffix: str = "") -> Tensor:
    """Up, maybe gated, and down again; `suffix` tells shared experts from a layer's only ones."""
    graph, up, gate = layer.graph, f"ffn_up{suffix}", f"ffn_gate{suffix}"
    is_gated = layer.has(f"{gate}.weight")
    is_fused = layer.habits.fuses_gate
    y = layer.linear(2 * inner if is_fused else inner, x, up)
    if is_fused:
        y = graph.glu_halves(y)
    elif is_gated:
        y = graph.glu(layer.linear(inner, x, gate), y)
    else:
        y = _activated(layer, y)
    return layer.linear(layer.model.embedding, y, f"ffn_down{suffix}")


def _activated(layer: Layer, y: Tensor) -> Tensor:
    """Return an activation without a gate, which some square."""
    y = layer.graph.same("unary", y)
    return layer.graph.same("sqr", y) if layer.habits.squares else y


def _experts(layer: Layer, x: Tensor, shape: ExpertShape) -> Tensor:
    """Return the sum of the experts that each token is sent to."""
    graph, tokens, wide = layer.graph, x.shape[1], layer.model.embedding
    ids, weights = _choice(layer, x, shape)
    graph.expand(weights)
    y = graph.reshape(x, wide, 1, tokens)
    if layer.has("ffn_gate_up_exps.weight"):
        return _summed(layer, _gated_at_once(layer, shape.feed_forward, y, ids), ids, weights)
    up = _expert(layer, shape.feed_forward, y, ids, "ffn_up_exps")
    if layer.has("ffn_gate_exps.weight"):
        up = graph.glu(_expert(layer, shape.feed_forward, y, ids, "ffn_gate_exps"), up)
    else:
        up = _activated(layer, up)
    return _summed(layer, up, ids, weights)


def _gated_at_once(layer: Layer, inner: int, x: Tensor, ids: Tensor) -> Tensor:
    """Return the experts' gated product, of matrices that hold gate and up one behind the other."""
    graph = layer.graph
    both = _expert(layer, 2 * inner, x, ids, "ffn_gate_up_exps")
    half = (inner, *both.shape[1:])
    gate, up = graph.view(both, half, both.strides), graph.view(both, half, both.strides)
    return Tensor("glu", both.type, half, (gate, up))


def _summed(layer: Layer, up: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Return what each token's experts make of `up`, weighted and added together."""
    graph, tokens, wide, used = layer.graph, up.shape[2], layer.model.embedding, ids.shape[0]
    made = _expert(layer, wide, up, ids, "ffn_down_exps")
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


def _expert(layer: Layer, width: int, x: Tensor, ids: Tensor, part: str) -> Tensor:
    """Return the experts' matrices times `x`, and their biases where the layer has some."""
    y = layer.graph.matmul_id(width, x, ids, layer.name(f"{part}.weight"))
    if not layer.has(f"{part}.bias"):
        return y
    return layer.graph.same("add_id", y, layer.weight(f"{part}.bias"), ids)


def _choice(layer: Layer, x: Tensor, shape: ExpertShape) -> tuple[Tensor, Tensor]:
    """Return the experts of each token, and their weights (1, experts used, tokens)."""
    graph, habits, tokens = layer.graph, layer.habits, x.shape[1]
    probabilities = layer.linear(shape.count, x, "ffn_gate_inp")
    gate = (habits.tells_gate and shape.gate) or habits.gate
    if gate != "softmax behind":
        probabilities = graph.same("soft_max" if gate == "softmax" else "unary", probabilities)
    choice = probabilities
    if layer.has("exp_probs_b.bias"):
        choice = layer.add_bias(probabilities, "exp_probs_b")
    if shape.groups > 1:
        choice = _grouped(layer.graph, choice, shape)
    ids = graph.top(choice, shape.used)
    weights = graph.rows_of(graph.reshape(probabilities, 1, shape.count, tokens), ids)
    if gate == "softmax behind":
        weights = graph.same("soft_max", graph.reshape(weights, shape.used, tokens))
        weights = graph.reshape(weights, 1, shape.used, tokens)
    if shape.normalises if habits.tells_norm else habits.normalises_experts:
        weights = graph.reshape(weights, shape.used, tokens)
        total = graph.same("clamp", graph.sum_rows(weights))
        weights = graph.reshape(graph.same("div", weights, total), 1, shape.used, tokens)
    if shape.is_scaled:
        weights = graph.same("scale", weights)
    return ids, weights


def _grouped(graph: Graph, choice: Tensor, shape: ExpertShape) -> Tensor:
    """Return the choice among the best groups of experts; a group is as good as its best two."""
    size, tokens = shape.count // shape.groups, choice.shape[1]
    groups = graph.reshape(choice, size, shape.groups, tokens)
    best = graph.top(groups, 2)
    scores = graph.rows_of(graph.reshape(groups, 1, size, shape.groups, tokens), best)
    scores = graph.sum_rows(graph.reshape(scores, 2, shape.groups, tokens))
    chosen = graph.top(graph.reshape(scores, shape.groups, tokens), shape.groups_used)
    kept = graph.rows_of(groups, chosen)
    empty = graph.same("fill", groups)
    masked = graph.write_rows(kept, chosen, empty)
    return graph.reshape(masked, shape.count, tokens)
