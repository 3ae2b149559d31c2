"""The graph of a language model as llama.cpp reserves it, from the model's shapes and tensor names.

Families differ in which tensors they have (biases, norms of queries and keys, norms behind, fused
matrices, experts) and in a few habits that no tensor tells; the first are read off the names, the
second are in `families`. Source: ggml-org/llama.cpp, src/llama-graph.cpp and src/models; build
b11549's figures.
"""

from __future__ import annotations

from vramplan.graph.attention import AttentionInputs
from vramplan.graph.builder import Graph
from vramplan.graph.families import Habits
from vramplan.graph.feed_forward import feed_forward
from vramplan.graph.layer import Layer
from vramplan.graph.projections import queries_keys_values
from vramplan.graph.shapes import LanguageShape, Reserve
from vramplan.graph.split import HOST
from vramplan.graph.tensor import Tensor


def reserve_graph(shape: LanguageShape, habits: Habits, reserve: Reserve) -> Graph:
    """Return the graph that the engine reserves its compute buffer for."""
    return _Language(shape, habits, reserve).build()


class _Language:
    """One graph under construction."""

    def __init__(self, shape: LanguageShape, habits: Habits, reserve: Reserve) -> None:
        self.shape = shape
        self.habits = habits
        self.reserve = reserve
        self.graph = Graph()

    def build(self) -> Graph:
        graph, shape = self.graph, self.shape
        x = self._embed()
        self.positions = graph.input("i32", self.reserve.tokens)
        self.caches = self._caches()
        chosen = graph.input("i32", self.reserve.outputs)
        last = len(shape.layers) - 1
        for number in range(len(shape.layers)):
            layer = Layer(graph, shape, self.habits, number)
            add = self._parallel_layer if self.habits.is_parallel else self._layer
            x = add(layer, x, chosen if number == last else None)
        self._logits(x)
        return graph

    def _logits(self, x: Tensor) -> None:
        graph, habits, names = self.graph, self.habits, self.shape.names
        has_bias = "output_norm.bias" in names
        x = graph.norm(x, is_rms=habits.is_rms, weighted=True, biased=has_bias)
        x = graph.matmul(self.shape.vocabulary, x)
        if habits.scales_logits:
            x = graph.same("scale", x)
        if habits.softcaps_logits:
            for op in ("scale", "unary", "scale"):
                x = graph.same(op, x)
        x.is_output = True
        graph.expand(x)

    def _embed(self) -> Tensor:
        """Return the embedded tokens; an image's embeddings have an input beside them."""
        graph, wide = self.graph, self.shape.embedding
        tokens = graph.input("i32", self.reserve.tokens)
        images = graph.input("f32", wide, self.reserve.tokens)
        x = graph.rows(wide, tokens)
        graph.expand(x)
        graph.expand(images)
        self._mix(wide)
        for node in graph.nodes:
            node.backend = HOST  # the table of embeddings is in host memory
        if self.habits.scales_embedding:
            x = graph.same("scale", x)
        return x

    def _mix(self, wide: int) -> None:
        """Add the way of prompts that mix text and images; its result stays, although unused."""
        graph, tokens = self.graph, self.reserve.tokens
        words, images = graph.input("i32", tokens), graph.input("f32", wide, tokens)
        rows = graph.rows(wide, words)
        graph.expand(graph.write_rows(rows, graph.input("i32", tokens), graph.copy(images)))

    def _caches(self) -> dict[bool, AttentionInputs]:
        """Return the inputs of each cache; the key is whether its layers see a window only."""
        reserve = self.reserve
        widest = max(layer.kv_heads * layer.head_v for layer in self.shape.layers)
        return {
            is_windowed: AttentionInputs(
                self.graph,
                reserve,
                reserve.window_cells if is_windowed else reserve.cells,
                widest,
            )
            for is_windowed in sorted({layer.is_windowed for layer in self.shape.layers})
        }

    def _attention(self, layer: Layer, x: Tensor) -> Tensor:
        q, k, v = queries_keys_values(layer, x, self.positions)
        y = self.caches[layer.shape.is_windowed].attend(layer, q, k, v)
        return layer.linear(self.shape.embedding, y, "attn_output")

    def _layer(self, layer: Layer, x: Tensor, chosen: Tensor | None) -> Tensor:
        """Attention, then the feed-forward network; `chosen` are the rows that logits need."""
        graph, residual = self.graph, x
        y = self._attention(layer, layer.norm(x, "attn_norm"))
        is_behind = layer.has("post_attention_norm.weight")
        picks_first = self.shape.architecture != "gemma3" or not is_behind
        if chosen is not None and picks_first:
            y, residual = graph.rows_of(y, chosen), graph.rows_of(residual, chosen)
        if is_behind:
            y = layer.norm(y, "post_attention_norm")
        if chosen is not None and not picks_first:
            y, residual = graph.rows_of(y, chosen), graph.rows_of(residual, chosen)
        middle = graph.same("add", y, residual)
        y = feed_forward(layer, layer.norm(middle, "ffn_norm"))
        if layer.has("post_ffw_norm.weight"):
            y = layer.norm(y, "post_ffw_norm")
        return graph.same("add", y, middle)

    def _parallel_layer(self, layer: Layer, x: Tensor, chosen: Tensor | None) -> Tensor:
        """Attention and feed-forward side by side on one norm (Command R)."""
        graph, residual = self.graph, x
        normed = layer.norm(x, "attn_norm")
        y = self._attention(layer, normed)
        if chosen is not None:
            y = graph.rows_of(y, chosen)
            residual = graph.rows_of(residual, chosen)
            normed = graph.rows_of(normed, chosen)
        z = feed_forward(layer, normed)
        return graph.same("add", graph.same("add", z, residual), y)
