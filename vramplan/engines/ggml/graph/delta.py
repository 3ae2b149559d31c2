"""Linear attention over a state: the gated delta rule (Qwen 3.5; of Qwen3-Next not all is known).

Source: ggml-org/llama.cpp, src/models/qwen35.cpp, src/models/qwen3next.cpp,
src/models/delta-net-base.cpp (the fused operator, which the engine's CPU and CUDA builds have).
"""

from __future__ import annotations

from vramplan.engines.ggml.graph.layer import Layer
from vramplan.engines.ggml.graph.states import States
from vramplan.engines.ggml.graph.tensor import Tensor


def delta_net(states: States, layer: Layer, x: Tensor) -> Tensor:
    """Return what the layer makes of `x`, (embedding, tokens)."""
    graph, shape = layer.graph, states.shape
    tokens, sequences, heads, size = states.tokens, states.sequences, shape.heads, shape.state
    value = shape.inner // heads
    graph.expand(x)  # before the states are looked up
    mixed, gate = (_apart if layer.has("attn_qkv.weight") else _fused)(states, layer, x)
    strength, decay = _strength_and_decay(states, layer, x)
    columns = states.columns(layer, mixed)
    memory = states.memory(layer, "s", shape.kept_state)
    state = graph.rows_of(memory, states.whole)
    graph.expand(state)
    states.keep_others(graph, state, memory)
    state = graph.reshape(state, value, value, heads, sequences)
    y = graph.same("unary", states.convolved(layer, columns, "ssm_conv1d"))
    _, row, sequence, _ = y.strides
    by_key = (size, shape.groups, tokens, sequences)
    q, k = (
        _for_each_head(
            states,
            layer,
            graph.same(
                "scale", graph.same("rms_norm", graph.view(y, by_key, (4, 4 * size, row, sequence)))
            ),
        )
        for _ in range(2)
    )
    v = graph.view(y, (value, heads, tokens, sequences), (4, 4 * value, row, sequence))
    rows = (tokens + value) * sequences
    made = Tensor(
        "gated_delta_net", "f32", (shape.inner, rows, 1, 1), (q, k, v, decay, strength, state)
    )
    y = graph.reshape(made, value, heads, tokens, sequences)
    last = graph.reshape(made, value, value, heads, sequences)
    graph.expand(graph.copy_into(last, memory))
    gate = graph.same("unary", graph.reshape(gate, value, heads, tokens, sequences))
    y = graph.same("mul", layer.norm(y, "ssm_norm"), gate)
    y = graph.reshape(y, shape.inner, tokens, sequences)
    y = layer.matmul(layer.model.embedding, y, "ssm_out")
    return graph.reshape(y, layer.model.embedding, tokens * sequences)


def _for_each_head(states: States, layer: Layer, x: Tensor) -> Tensor:
    """Return queries or keys once for each head that shares them: Qwen3-Next repeats them."""
    shape, tokens = states.shape, states.tokens * states.sequences
    if not layer.has("ssm_ba.weight") or shape.heads == shape.groups:
        return x
    repeated = (shape.state, shape.heads // shape.groups, shape.groups, tokens)
    x = layer.graph.reshape(x, shape.state, 1, shape.groups, tokens)
    x = Tensor("repeat", x.type, repeated, (x,))
    return layer.graph.reshape(x, shape.state, shape.heads, states.tokens, states.sequences)


def _apart(states: States, layer: Layer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries, keys and values side by side, and the gate, of two matrices."""
    graph, shape = layer.graph, states.shape
    mixed = layer.matmul(shape.convolved, x, "attn_qkv")
    mixed = graph.reshape(mixed, shape.convolved, states.tokens, states.sequences)
    return mixed, layer.matmul(shape.inner, x, "attn_gate")


def _fused(states: States, layer: Layer, x: Tensor) -> tuple[Tensor, Tensor]:
    """The same of one matrix, in which each group has all four (the first Qwen3-Next files)."""
    graph, shape = layer.graph, states.shape
    tokens, sequences, groups = states.tokens, states.sequences, shape.groups
    value = shape.inner // groups
    whole = layer.matmul(shape.convolved + shape.inner, x, "ssm_in")
    whole = graph.reshape(whole, 2 * shape.state + 2 * value, groups, tokens, sequences)

    def part(size: int) -> Tensor:
        return graph.view(whole, (size, groups, tokens, sequences), whole.strides)

    gate = graph.copy(part(value))
    q, k, v = (
        graph.copy_as(part(size), size * groups, tokens, sequences)
        for size in (shape.state, shape.state, value)
    )
    return graph.widen(graph.widen(q, k), v), gate


def _strength_and_decay(states: States, layer: Layer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much each head takes in and forgets, (1, heads, tokens, sequences)."""
    graph, shape = layer.graph, states.shape
    tokens, sequences, heads = states.tokens, states.sequences, shape.heads
    if layer.has("ssm_ba.weight"):
        each = heads // shape.groups
        made = layer.matmul(2 * heads, x, "ssm_ba")
        both = graph.reshape(made, 2 * each, shape.groups, tokens, sequences)
        half = (each, shape.groups, tokens, sequences)
        strength = graph.same("unary", graph.copy(graph.view(both, half, both.strides)))
        strength = graph.reshape(strength, 1, heads, tokens, sequences)
        decay = graph.copy_as(graph.view(both, half, both.strides), heads, tokens, sequences)
    else:
        made = layer.matmul(heads, x, "ssm_beta")
        strength = graph.reshape(made, 1, heads, tokens, sequences)
        strength = graph.same("unary", strength)
        decay = graph.reshape(layer.matmul(heads, x, "ssm_alpha"), heads, tokens, sequences)
    decay = graph.same("unary", layer.add_bias(decay, "ssm_dt"))
    decay = graph.same("mul", decay, layer.weight("ssm_a"))
    return strength, graph.reshape(decay, 1, heads, tokens, sequences)
