"""Layers that keep a state of each sequence instead of a cache: Mamba, Mamba 2, short convolutions.

Source: ggml-org/llama.cpp, src/models/mamba-base.cpp, src/models/lfm2.cpp.
"""

from __future__ import annotations

from vramplan.engines.ggml.graph.delta import delta_net
from vramplan.engines.ggml.graph.layer import Layer
from vramplan.engines.ggml.graph.states import States
from vramplan.engines.ggml.graph.tensor import Tensor


def recurrent_layer(states: States, layer: Layer, x: Tensor) -> Tensor:
    """Return what a recurrent layer makes of `x`, (embedding, tokens)."""
    return _KINDS[states.shape.kind](states, layer, x)


def _mamba2(states: States, layer: Layer, x: Tensor) -> Tensor:
    graph, shape = layer.graph, states.shape
    tokens, sequences, heads = states.tokens, states.sequences, shape.heads
    size = shape.inner // heads
    whole = layer.matmul(shape.inner + shape.convolved + heads, x, "ssm_in")
    whole = graph.reshape(whole, whole.shape[0], tokens, sequences)
    _, row, sequence, _ = whole.strides
    by_head = (4, 4 * size, row, sequence)
    gate = graph.view(whole, (size, heads, tokens, sequences), by_head)
    mixed = graph.view(whole, (shape.convolved, tokens, sequences, 1), whole.strides)
    steps = graph.view(whole, (heads, tokens, sequences, 1), whole.strides)
    y = states.convolved(layer, states.columns(layer, mixed), "ssm_conv1d")
    if layer.has("ssm_conv1d.bias"):
        y = layer.add_bias(y, "ssm_conv1d")
    y = graph.same("unary", y)
    _, row, sequence, _ = y.strides
    values = graph.view(y, (size, heads, tokens, sequences), (4, 4 * size, row, sequence))
    group = (shape.state, shape.groups, tokens, sequences)
    strides = (4, 4 * shape.state, row, sequence)
    into, out = graph.view(y, group, strides), graph.view(y, group, strides)
    steps = layer.add_bias(graph.copy(steps), "ssm_dt")
    scanned = states.scan(layer, values, (steps, into, out))
    y = graph.reshape(scanned, size, heads, tokens, sequences)
    y = graph.same("add", y, graph.same("mul", values, layer.weight("ssm_d")))
    y = graph.glu(graph.copy(gate), y)
    if layer.has("ssm_norm.weight"):
        y = graph.reshape(y, shape.inner // shape.groups, shape.groups, tokens, sequences)
        y = layer.norm(y, "ssm_norm")
    y = graph.reshape(y, shape.inner, tokens * sequences)
    return layer.matmul(layer.model.embedding, y, "ssm_out")


def _mamba(states: States, layer: Layer, x: Tensor) -> Tensor:
    graph, shape = layer.graph, states.shape
    tokens, sequences = states.tokens, states.sequences
    inner, rank, state = shape.inner, shape.heads, shape.state
    x = graph.reshape(x, x.shape[0], tokens, sequences)
    both = layer.matmul(2 * inner, x, "ssm_in")
    part = (inner, tokens, sequences, 1)
    new, gate = graph.view(both, part, both.strides), graph.view(both, part, both.strides)
    y = states.convolved(layer, states.columns(layer, new), "ssm_conv1d")
    y = graph.same("unary", layer.add_bias(y, "ssm_conv1d"))
    three = layer.matmul(rank + 2 * state, y, "ssm_x")
    _, row, sequence, _ = three.strides
    steps = graph.view(three, (rank, tokens, sequences, 1), three.strides)
    matrix, strides = (state, 1, tokens, sequences), (4, 4 * state, row, sequence)
    into, out = graph.view(three, matrix, strides), graph.view(three, matrix, strides)
    if layer.has("ssm_dt_norm.weight"):
        steps = layer.norm(steps, "ssm_dt_norm")
        into, out = layer.norm(into, "ssm_b_norm"), layer.norm(out, "ssm_c_norm")
    else:
        steps = graph.copy(steps)
    steps = layer.add_bias(layer.matmul(inner, steps, "ssm_dt"), "ssm_dt")
    values = graph.reshape(y, 1, inner, tokens, sequences)
    scanned = states.scan(layer, values, (steps, into, out))
    z = graph.reshape(scanned, inner, tokens, sequences)
    z = graph.same("add", z, graph.same("mul", y, layer.weight("ssm_d")))
    z = graph.glu(graph.copy(gate), z)
    z = layer.matmul(layer.model.embedding, z, "ssm_out")
    return graph.reshape(z, layer.model.embedding, tokens * sequences)


def _short(states: States, layer: Layer, x: Tensor) -> Tensor:
    """A convolution over a few tokens, gated on both sides (LFM2)."""
    graph, wide = layer.graph, layer.model.embedding
    tokens, sequences = states.tokens, states.sequences
    x = graph.reshape(x, wide, tokens, sequences)
    three = layer.matmul(3 * wide, x, "shortconv.in_proj")
    part = (wide, tokens, sequences, 1)
    before, behind, new = (graph.view(three, part, three.strides) for _ in range(3))
    new = graph.same("mul", before, new)
    y = states.convolved(layer, states.columns(layer, new), "shortconv.conv")
    y = layer.matmul(wide, graph.same("mul", behind, y), "shortconv.out_proj")
    return graph.reshape(y, wide, tokens * sequences)


_KINDS = {"mamba2": _mamba2, "mamba": _mamba, "shortconv": _short, "delta": delta_net}
