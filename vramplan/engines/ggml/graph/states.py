"""The memory of recurrent layers: states that are read, computed with, and written back.

A state's convolution has kept the last columns of what it saw; behind them come the new tokens.
Source: ggml-org/llama.cpp, src/llama-graph.cpp (build_rs), src/models/mamba-base.cpp.
"""

from __future__ import annotations

from vramplan.engines.ggml.graph.attention import cache_name
from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.layer import Layer
from vramplan.engines.ggml.graph.shapes import Reserve, StateShape
from vramplan.engines.ggml.graph.tensor import Tensor


class States:
    """The states of all sequences, and which of them the batch's are."""

    def __init__(self, graph: Graph, shape: StateShape, reserve: Reserve) -> None:
        self.shape = shape
        self.sequences = reserve.sequences
        self.tokens = reserve.tokens // reserve.sequences
        self.whole = graph.input("i32", self.sequences)
        self.places = graph.view(self.whole, (self.sequences, 1, 1, 1), (4, 4, 4, 4))
        # of all sequences but the first; a scan reads as many states more, and copies none of them
        self.other_places = graph.view(self.places, (self.sequences - 1, 1, 1, 1), (4, 4, 4, 4))

    def memory(self, layer: Layer, kind: str, elements: int) -> Tensor:
        """Return the memory of a layer's states, one of which is cleared first.

        `kind` is r for the columns of a convolution, s for what is kept of a scan.
        """
        graph, memory = layer.graph, layer.graph.external(elements, self.sequences)
        memory.name = cache_name(kind, layer.number)
        graph.expand(Tensor("scale", "f32", (elements, 1, 1, 1), (memory,), view_of=memory))
        return memory

    def keep_others(self, graph: Graph, rows: Tensor, memory: Tensor) -> None:
        """Add the copy of states that no token of the batch belongs to: of none, but it is there.

        Where the memory is decides where its neighbours are computed.
        """
        none = graph.view(rows, (1, 1, 1, 1), (4, 4, 4, 4))
        graph.expand(graph.copy_into(none, memory))

    def columns(self, layer: Layer, new: Tensor) -> Tensor:
        """Return the columns that were kept with the new ones behind, and keep the last again.

        `new` is (channels, tokens, sequences), the result (columns, channels, sequences).
        """
        graph, kept = layer.graph, self.shape.kernel - 1
        channels = new.shape[0]
        memory = self.memory(layer, "r", kept * channels)
        old = graph.rows_of(memory, self.whole)
        graph.expand(old)
        self.keep_others(graph, old, memory)
        old = graph.reshape(old, kept, channels, self.sequences)
        columns = graph.widen(old, graph.transpose(new))
        last = graph.view(columns, (kept, channels, self.sequences, 1), columns.strides)
        graph.expand(graph.copy_into(last, memory))
        return columns

    def convolved(self, layer: Layer, columns: Tensor, part: str) -> Tensor:
        """Return the convolution of columns over time, (channels, tokens, sequences)."""
        shape = (columns.shape[1], self.tokens, self.sequences, 1)
        return Tensor("ssm_conv", "f32", shape, (columns, layer.weight(f"{part}.weight")))

    def scan(self, layer: Layer, x: Tensor, others: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the scan over time, (inner, tokens, sequences), and keep the last states.

        `others` are the steps' lengths and the two matrices that go in and out of the state.
        """
        graph, shape = layer.graph, self.shape
        memory = self.memory(layer, "s", shape.kept_state)
        new = shape.inner * self.tokens * self.sequences
        kept = shape.kept_state * self.sequences
        steps, into, out = others
        seen = graph.reshape(memory, *memory.shape)  # a tensor of its own, of which copies are too
        sources = (seen, x, steps, layer.weight("ssm_a"), into, out, self.places)
        scanned = Tensor("ssm_scan", "f32", (new + kept, 1, 1, 1), sources)
        graph.expand(scanned)
        self.keep_others(graph, graph.rows_of(memory, self.other_places), memory)
        last = graph.view(scanned, (kept, 1, 1, 1), (4, 4 * kept, 4 * kept, 4 * kept))
        graph.expand(graph.copy_into(last, memory))
        return scanned
