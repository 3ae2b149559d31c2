"""Attention over a cache: its inputs, what is written into the cache, and the scores.

Source: ggml-org/llama.cpp, src/llama-graph.cpp (build_attn, build_attn_mha) and
src/llama-kv-cache.cpp.
"""

from __future__ import annotations

from vramplan.graph.builder import Graph
from vramplan.graph.layer import Layer
from vramplan.graph.shapes import Reserve
from vramplan.graph.tensor import ELEMENT_BYTES, Tensor


class AttentionInputs:
    """The inputs of attention over one cache, and attention itself."""

    def __init__(self, graph: Graph, reserve: Reserve, cells: int, widest_values: int) -> None:
        self.reserve = reserve
        self.cells = cells
        tokens, streams = reserve.tokens, reserve.streams
        per_token = 1 if reserve.has_flash else widest_values
        self.k_places = graph.input("i64", tokens)
        self.v_places = graph.input("i64", tokens * per_token)
        mask = "f16" if reserve.has_flash else "f32"
        self.mask = graph.input(mask, cells, tokens // streams, 1, streams)
        self.cache = graph.external(1)

    def attend(self, layer: Layer, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return attention over the cache, with the heads side by side."""
        graph, shape, streams = layer.graph, layer.shape, self.reserve.streams
        for x in (q, v, k):
            graph.expand(x)
        tokens = q.shape[2]
        each = tokens // streams
        self._store_keys(layer, k)
        self._store_values(layer, v)
        row, step = q.strides[1], q.strides[2]
        q = graph.view(
            q, (q.shape[0], q.shape[1], each, streams), (q.strides[0], row, step, step * each)
        )
        q = graph.permute(q, 0, 2, 1, 3)
        keys = self._cached(graph, shape.head_k, shape.kv_heads)
        values = self._cached(graph, shape.head_v, shape.kv_heads)
        wide = shape.head_v * shape.heads
        if self.reserve.has_flash:
            y = graph.flash(q, keys, values, self.mask, shape.head_v)
            y = graph.reshape(y, wide, tokens)
        else:
            scores = Tensor("mul_mat", "f32", (self.cells, each, shape.heads, streams), (keys, q))
            if layer.habits.softcaps_scores:
                for op in ("scale", "unary", "scale"):
                    scores = graph.same(op, scores)
            scores = graph.same("soft_max", scores, self.mask)
            summed = (shape.head_v, each, shape.heads, streams)
            y = Tensor("mul_mat", "f32", summed, (values, scores))
            y = graph.copy_as(graph.permute(y, 0, 2, 1, 3), wide, tokens)
        graph.expand(y)
        return y

    def _store_keys(self, layer: Layer, k: Tensor) -> None:
        rows = _rows(layer.graph, k)
        layer.graph.expand(layer.graph.write_rows(rows, self.k_places, self.cache))

    def _store_values(self, layer: Layer, v: Tensor) -> None:
        """Write values into the cache, where they are transposed without flash attention."""
        graph = layer.graph
        if self.reserve.has_flash:
            graph.expand(graph.write_rows(_rows(graph, v), self.v_places, self.cache))
            return
        wide, tokens = v.shape[0] * v.shape[1], v.shape[2]
        is_whole = v.strides[2] == ELEMENT_BYTES["f32"] * wide
        flat = graph.reshape(v, wide, tokens) if is_whole else graph.copy_as(v, wide, tokens)
        flat = graph.reshape(flat, 1, wide * tokens)
        cells = graph.reshape(self.cache, 1)
        graph.expand(graph.write_rows(flat, self.v_places, cells))

    def _cached(self, graph: Graph, head: int, heads: int) -> Tensor:
        """Return keys or values as attention reads them: a view of the cache, permuted."""
        shape = (head, heads, self.cells, self.reserve.streams)
        return graph.permute(graph.view(self.cache, shape, (1, 1, 1, 1)), 0, 2, 1, 3)


def _rows(graph: Graph, x: Tensor) -> Tensor:
    """Return the heads of each token side by side, as a view."""
    step = x.strides[2]
    shape = (x.shape[0] * x.shape[1], x.shape[2], 1, 1)
    return graph.view(x, shape, (x.strides[0], step, step * x.shape[2], step * x.shape[2]))
