"""Attention over a cache: its inputs, what is written into the cache, and the scores.

Source: ggml-org/llama.cpp, src/llama-graph.cpp (build_attn, build_attn_mha) and
src/llama-kv-cache.cpp.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod

from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.layer import Layer
from vramplan.engines.ggml.graph.shapes import LanguageShape, LayerShape, Reserve
from vramplan.engines.ggml.graph.tensor import ELEMENT_BYTES, Tensor, contiguous

#: quantised caches hold keys and values turned by a Hadamard matrix, of at least this size
_TURN = 64


class AttentionInputs:
    """The inputs of attention over one cache, and attention itself.

    There is a cache of the layers that see all, and one of those that see a window.
    """

    def __init__(
        self, graph: Graph, model: LanguageShape, reserve: Reserve, *, is_windowed: bool
    ) -> None:
        self.reserve = reserve
        self.cells = cells = reserve.window_cells if is_windowed else reserve.cells
        tokens, streams = reserve.tokens, reserve.streams
        attending = [layer for layer in model.layers if layer.has_attention]
        layers = [layer for layer in attending if layer.is_windowed == is_windowed]
        self.widest_values = max(layer.kv_heads * layer.head_v for layer in attending)
        per_token = 1 if reserve.has_flash else self.widest_values
        self.k_places = graph.input("i64", tokens)
        self.v_places = graph.input("i64", tokens * per_token) if model.holds_values else None
        mask = "f16" if reserve.has_flash else "f32"
        self.mask = graph.input(mask, cells, tokens // streams, 1, streams)
        # where a state is kept beside caches of both kinds, the engine turns nothing: see
        # build_inp_mem_hybrid_iswa in llama-graph.cpp
        is_mixed = model.state is not None and any(layer.is_windowed for layer in attending)
        self.k_turn, self.v_turn = (None, None) if is_mixed else self._turns(graph, layers)

    def _turns(
        self, graph: Graph, layers: Collection[LayerShape]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the matrices that turn keys and values, each where the cache is quantised.

        All heads must be of one size, a multiple of 64, and values be held. Source:
        llama-kv-cache.cpp (build_input_k_rot, build_input_v_rot).
        """
        if self.v_places is None:
            return None, None
        k_heads, v_heads = ({x.head_k for x in layers}, {x.head_v for x in layers})
        k_turn = v_turn = None
        in_blocks = self.reserve.is_quantised
        if in_blocks("k") and len(k_heads) == 1 and not (head := min(k_heads)) % _TURN:
            size = head & -head  # the largest power of two that divides it
            k_turn = graph.input("f32", size, size)
        if in_blocks("v") and len(v_heads) == 1 and not min(v_heads) % _TURN:
            v_turn = graph.input("f32", _TURN, _TURN)
        return k_turn, v_turn

    def attend(
        self, layer: Layer, q: Tensor, k: Tensor, v: Tensor, unpacked: int | None = None
    ) -> Tensor:
        """Return attention over the cache, with the heads side by side.

        `unpacked` is the size to which heads of values are unpacked behind it (latent attention).
        """
        graph = layer.graph
        q, k, v = (
            _turned(graph, q, self.k_turn),
            _turned(graph, k, self.k_turn),
            _turned(graph, v, self.v_turn),
        )
        is_windowed = any(one.is_windowed for one in layer.model.layers)
        for x in (q, k, v) if is_windowed else (q, v, k):  # build_attn's order for either cache
            graph.expand(x)
        self._store_keys(layer, k)
        if self.v_places is not None:
            self._store_values(layer, v, self.v_places)
        y = (self._fused if self.reserve.has_flash else self._scored)(layer, q, unpacked)
        graph.expand(y)
        return _turned(graph, y, self.v_turn)

    def _queries(self, layer: Layer, q: Tensor) -> Tensor:
        """Return the queries of each sequence apart, (head, tokens, heads, sequences)."""
        each, step = q.shape[2] // self.reserve.streams, q.strides[2]
        shape = (q.shape[0], q.shape[1], each, self.reserve.streams)
        strides = (q.strides[0], q.strides[1], step, step * each)
        return layer.graph.permute(layer.graph.view(q, shape, strides), 0, 2, 1, 3)

    def _fused(self, layer: Layer, q: Tensor, unpacked: int | None) -> Tensor:
        """Flash attention: scores are never there."""
        graph, shape = layer.graph, layer.shape
        keys = self._cached(layer, "k", shape.head_k)
        values = self._cached(layer, "v", shape.head_v)
        keys, values = (
            graph.copy(one, "f16") if one.type == "f32" else one for one in (keys, values)
        )
        masks = (self.mask, *_sinks(layer))
        y = graph.flash(self._queries(layer, q), keys, values, *masks, width=shape.head_v)
        if unpacked is not None:
            y = layer.matmul(unpacked, graph.permute(y, 0, 2, 1, 3), "attn_v_b")
            y = graph.copy(graph.permute(y, 0, 2, 1, 3))
        return graph.reshape(y, y.shape[0] * y.shape[1], y.shape[2] * y.shape[3])

    def _scored(self, layer: Layer, q: Tensor, unpacked: int | None) -> Tensor:
        """Attention that writes its scores down."""
        graph, shape = layer.graph, layer.shape
        keys = self._cached(layer, "k", shape.head_k)
        values = self._cached(layer, "v", shape.head_v)
        q = self._queries(layer, q)
        each, streams = q.shape[1], q.shape[3]
        scores = Tensor("mul_mat", "f32", (self.cells, each, shape.heads, streams), (keys, q))
        if layer.habits.softcaps_scores:
            for op in ("scale", "unary", "scale"):
                scores = graph.same(op, scores)
        scores = graph.same("soft_max", scores, self.mask, *_sinks(layer))
        if self.v_places is None:  # values are not held transposed, as a part of the keys
            size = (self.cells, shape.head_v, shape.kv_heads, streams)
            values = Tensor("cont", values.type, size, (values,))
        summed = (shape.head_v, each, shape.heads, streams)
        y = Tensor("mul_mat", "f32", summed, (values, scores))
        if unpacked is not None:
            y = layer.matmul(unpacked, y, "attn_v_b")
        wide = y.shape[0] * shape.heads
        y = graph.copy_as(graph.permute(y, 0, 2, 1, 3), wide, each * streams)
        # "all nodes between the KV store and the attention output are run on the CPU"
        y.is_on_host = self.reserve.is_cache_on_host
        return y

    def _store_keys(self, layer: Layer, k: Tensor) -> None:
        rows = _rows(layer.graph, k)
        layer.graph.expand(layer.graph.write_rows(rows, self.k_places, self._cache(layer, "k")))

    def _store_values(self, layer: Layer, v: Tensor, places: Tensor) -> None:
        """Write values into the cache, where they are transposed without flash attention."""
        graph = layer.graph
        if self.reserve.has_flash:
            graph.expand(graph.write_rows(_rows(graph, v), places, self._cache(layer, "v")))
            return
        wide, tokens = v.shape[0] * v.shape[1], v.shape[2]
        is_whole = v.strides[2] == ELEMENT_BYTES["f32"] * wide
        flat = graph.reshape(v, wide, tokens) if is_whole else graph.copy_as(v, wide, tokens)
        if wide < self.widest_values:  # all layers' values are held as if they were the widest
            wide = self.widest_values
            flat = Tensor("pad", "f32", (wide, tokens, 1, 1), (flat,))
        flat = graph.reshape(flat, 1, wide * tokens)
        cells = graph.reshape(self._cache(layer, "v"), 1)
        graph.expand(graph.write_rows(flat, places, cells))

    def _cache(self, layer: Layer, kind: str) -> Tensor:
        """Return the memory that a layer's keys or values are held in."""
        part = kind if self.v_places is not None else "k"  # else values are a part of the keys
        type_name = self.reserve.element_type(part)
        cache = Tensor("none", type_name, (1, 1, 1, 1), is_external=True)
        cache.name = cache_name(part, layer.number)
        return cache

    def _cached(self, layer: Layer, kind: str, head: int) -> Tensor:
        """Return keys or values as attention reads them: a view of the cache, permuted."""
        graph, shape = layer.graph, (head, layer.shape.kv_heads, self.cells, self.reserve.streams)
        return graph.permute(graph.view(self._cache(layer, kind), shape, (1, 1, 1, 1)), 0, 2, 1, 3)


def cache_name(kind: str, layer: int) -> str:
    """Return what the memory of a layer's keys (k) or values (v) is called in a graph."""
    return f"cache_{kind}.{layer}"


def _sinks(layer: Layer) -> tuple[Tensor, ...]:
    """Return the logits that a layer's scores have beside them (gpt-oss)."""
    return (layer.weight("attn_sinks.weight"),) if layer.has("attn_sinks.weight") else ()


def _rows(graph: Graph, x: Tensor) -> Tensor:
    """Return the heads of each token side by side, as a view."""
    step = x.strides[2]
    shape = (x.shape[0] * x.shape[1], x.shape[2], 1, 1)
    return graph.view(x, shape, (x.strides[0], step, step * x.shape[2], step * x.shape[2]))


def _turned(graph: Graph, x: Tensor, turn: Tensor | None) -> Tensor:
    """Return `x` times a matrix, over so many elements at once as it has rows."""
    if turn is None:
        return x
    size = turn.shape[0]
    count = prod(x.shape) // size
    is_whole = x.strides == contiguous(x.type, x.shape)
    flat = graph.reshape(x, size, count) if is_whole else graph.copy_as(x, size, count)
    return graph.reshape(graph.matmul(size, flat, turn), *x.shape)
