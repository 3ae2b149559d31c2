"""Linear attention over a state: the gated delta rule (Qwen 3.5).

Source: ggml-org/llama.cpp, src/models/qwen35.cpp, src/models/delta-net-base.cpp (the fused
operator, which the engine's CPU and CUDA builds have).
"""

from __future__ import annotations

from vramplan.graph.layer import Layer
from vramplan.graph.states import States
from vramplan.graph.tensor import Tensor


def delta_net(states: States, layer: Layer, x: Tensor) -> Tensor:
    """Return what the layer makes of `x`, (embedding, tokens)."""
    graph, shape = layer.graph, states.shape
    tokens, sequences, heads, size = states.tokens, states.sequences, shape.heads, shape.state
    value = shape.inner // heads
    mixed = graph.reshape(graph.matmul(shape.convolved, x), shape.convolved, tokens, sequences)
    gate = graph.matmul(shape.inner, x)
    strength = graph.reshape(graph.matmul(heads, x), 1, heads, tokens, sequences)
    strength = graph.same("unary", strength)
    decay = graph.reshape(graph.matmul(heads, x), heads, tokens, sequences)
    for op in ("add", "unary", "mul"):
        decay = graph.same(op, decay)
    decay = graph.reshape(decay, 1, heads, tokens, sequences)
    columns = states.columns(layer, mixed)
    memory = states.memory(graph, shape.kept_state)
    state = graph.rows_of(memory, states.places)
    graph.expand(state)
    state = graph.reshape(state, value, value, heads, sequences)
    y = graph.same("unary", states.convolved(columns))
    _, row, sequence, _ = y.strides
    by_key = (size, shape.groups, tokens, sequences)
    q, k = (
        graph.same(
            "scale", graph.same("rms_norm", graph.view(y, by_key, (4, 4 * size, row, sequence)))
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
    y = graph.matmul(layer.model.embedding, graph.reshape(y, shape.inner, tokens, sequences))
    return graph.reshape(y, layer.model.embedding, tokens * sequences)
