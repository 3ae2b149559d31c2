"""Layers that keep a state of each sequence instead of a cache: Mamba, Mamba 2, short convolutions.

A state's convolution has kept the last columns of what it saw; behind them come the new tokens.
Source: ggml-org/llama.cpp, src/models/mamba-base.cpp, src/models/lfm2.cpp, src/llama-graph.cpp
(build_rs). What it copies of sequences that are not in the batch is nothing here.
"""

from __future__ import annotations

from vramplan.graph.builder import Graph
from vramplan.graph.layer import Layer
from vramplan.graph.shapes import Reserve, StateShape
from vramplan.graph.tensor import Tensor


class States:
    """The states of all sequences, and which of them the batch's are."""

    def __init__(self, graph: Graph, shape: StateShape, reserve: Reserve) -> None:
        self.shape = shape
        self.sequences = reserve.streams
        self.tokens = reserve.tokens // reserve.streams
        self.places = graph.view(
            graph.input("i32", self.sequences), (self.sequences, 1, 1, 1), (4, 4, 4, 4)
        )

    def add(self, layer: Layer, x: Tensor) -> Tensor:
        """Return what a recurrent layer makes of `x`, (embedding, tokens)."""
        make = {"mamba2": self._mamba2, "mamba": self._mamba, "shortconv": self._short}
        return make[self.shape.kind](layer, x)

    # ------------------------------------------------------------------ states
    def _memory(self, graph: Graph, elements: int) -> Tensor:
        """Return the memory of a layer's states, one of which is cleared first."""
        memory = graph.external(elements, self.sequences)
        graph.expand(Tensor("scale", "f32", (elements, 1, 1, 1), (memory,), view_of=memory))
        return memory

    def _columns(self, layer: Layer, new: Tensor) -> Tensor:
        """Return the columns that were kept with the new ones behind, and keep the last again.

        `new` is (channels, tokens, sequences), the result (columns, channels, sequences).
        """
        graph, kept = layer.graph, self.shape.kernel - 1
        channels = new.shape[0]
        memory = self._memory(graph, kept * channels)
        old = graph.rows_of(memory, self.places)
        graph.expand(old)
        old = graph.reshape(old, kept, channels, self.sequences)
        columns = graph.widen(old, graph.transpose(new))
        last = graph.view(columns, (kept, channels, self.sequences, 1), columns.strides)
        graph.expand(graph.copy_into(last, memory))
        return columns

    def _convolved(self, columns: Tensor) -> Tensor:
        shape = (columns.shape[1], self.tokens, self.sequences, 1)
        return Tensor("ssm_conv", "f32", shape, (columns,))

    def _scan(self, layer: Layer, x: Tensor, others: tuple[Tensor, ...]) -> Tensor:
        """Return the scan over time, (inner, tokens, sequences), and keep the last states.

        `others` are the steps' lengths and the two matrices that go in and out of the state.
        """
        graph, shape = layer.graph, self.shape
        memory = self._memory(graph, shape.kept_state)
        new = shape.inner * self.tokens * self.sequences
        kept = shape.kept_state * self.sequences
        scanned = Tensor(
            "ssm_scan", "f32", (new + kept, 1, 1, 1), (memory, x, *others, self.places)
        )
        graph.expand(scanned)
        last = graph.view(scanned, (kept, 1, 1, 1), (4, 4 * kept, 4 * kept, 4 * kept))
        graph.expand(graph.copy_into(last, memory))
        return scanned

    # ------------------------------------------------------------------ layers
    def _mamba2(self, layer: Layer, x: Tensor) -> Tensor:
        graph, shape = layer.graph, self.shape
        tokens, sequences, heads = self.tokens, self.sequences, shape.heads
        size = shape.inner // heads
        whole = graph.matmul(shape.inner + shape.convolved + heads, x)
        whole = graph.reshape(whole, whole.shape[0], tokens, sequences)
        _, row, sequence, _ = whole.strides
        by_head = (4, 4 * size, row, sequence)
        gate = graph.view(whole, (size, heads, tokens, sequences), by_head)
        mixed = graph.view(whole, (shape.convolved, tokens, sequences, 1), whole.strides)
        steps = graph.view(whole, (heads, tokens, sequences, 1), whole.strides)
        y = self._convolved(self._columns(layer, mixed))
        if layer.has("ssm_conv1d.bias"):
            y = graph.same("add", y)
        y = graph.same("unary", y)
        _, row, sequence, _ = y.strides
        values = graph.view(y, (size, heads, tokens, sequences), (4, 4 * size, row, sequence))
        group = (shape.state, shape.groups, tokens, sequences)
        strides = (4, 4 * shape.state, row, sequence)
        into, out = graph.view(y, group, strides), graph.view(y, group, strides)
        steps = graph.same("add", graph.copy(steps))
        scanned = self._scan(layer, values, (steps, into, out))
        y = graph.reshape(scanned, size, heads, tokens, sequences)
        y = graph.same("add", y, graph.same("mul", values))
        y = graph.glu(graph.copy(gate), y)
        if layer.has("ssm_norm.weight"):
            y = graph.reshape(y, shape.inner // shape.groups, shape.groups, tokens, sequences)
            y = layer.norm(y, "ssm_norm")
        y = graph.reshape(y, shape.inner, tokens * sequences)
        return graph.matmul(layer.model.embedding, y)

    def _mamba(self, layer: Layer, x: Tensor) -> Tensor:
        graph, shape = layer.graph, self.shape
        tokens, sequences = self.tokens, self.sequences
        inner, rank, state = shape.inner, shape.heads, shape.state
        x = graph.reshape(x, x.shape[0], tokens, sequences)
        both = graph.matmul(2 * inner, x)
        part = (inner, tokens, sequences, 1)
        new, gate = graph.view(both, part, both.strides), graph.view(both, part, both.strides)
        y = self._convolved(self._columns(layer, new))
        y = graph.same("unary", graph.same("add", y))
        three = graph.matmul(rank + 2 * state, y)
        _, row, sequence, _ = three.strides
        steps = graph.view(three, (rank, tokens, sequences, 1), three.strides)
        matrix, strides = (state, 1, tokens, sequences), (4, 4 * state, row, sequence)
        into, out = graph.view(three, matrix, strides), graph.view(three, matrix, strides)
        if layer.has("ssm_dt_norm.weight"):
            steps = layer.norm(steps, "ssm_dt_norm")
            into, out = layer.norm(into, "ssm_b_norm"), layer.norm(out, "ssm_c_norm")
        else:
            steps = graph.copy(steps)
        steps = graph.same("add", graph.matmul(inner, steps))
        values = graph.reshape(y, 1, inner, tokens, sequences)
        scanned = self._scan(layer, values, (steps, into, out))
        z = graph.reshape(scanned, inner, tokens, sequences)
        z = graph.same("add", z, graph.same("mul", y))
        z = graph.glu(graph.copy(gate), z)
        z = graph.matmul(layer.model.embedding, z)
        return graph.reshape(z, layer.model.embedding, tokens * sequences)

    def _short(self, layer: Layer, x: Tensor) -> Tensor:
        """A convolution over a few tokens, gated on both sides (LFM2)."""
        graph, wide = layer.graph, layer.model.embedding
        tokens, sequences = self.tokens, self.sequences
        x = graph.reshape(x, wide, tokens, sequences)
        three = graph.matmul(3 * wide, x)
        part = (wide, tokens, sequences, 1)
        before, behind, new = (graph.view(three, part, three.strides) for _ in range(3))
        new = graph.same("mul", before, new)
        y = self._convolved(self._columns(layer, new))
        y = graph.matmul(wide, graph.same("mul", behind, y))
        return graph.reshape(y, wide, tokens * sequences)
