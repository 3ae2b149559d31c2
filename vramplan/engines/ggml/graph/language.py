"""The graph of a language model as llama.cpp reserves it, from the model's shapes and tensor names.

Families differ in which tensors they have (biases, norms of queries and keys, norms behind, fused
matrices, experts) and in a few habits that no tensor tells; the first are read off the names, the
second are in `families`. Source: ggml-org/llama.cpp, src/llama-graph.cpp and src/models; build
b11549's figures.
"""

from __future__ import annotations

from vramplan.engines.ggml.graph.attention import AttentionInputs
from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.families import Habits, Pick
from vramplan.engines.ggml.graph.feed_forward import feed_forward
from vramplan.engines.ggml.graph.layer import Layer
from vramplan.engines.ggml.graph.projections import gated_queries, queries_keys_values
from vramplan.engines.ggml.graph.repeats import Repeats
from vramplan.engines.ggml.graph.shapes import LanguageShape, Reserve
from vramplan.engines.ggml.graph.tensor import Tensor
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:  # loaded for models that have such layers
    from vramplan.engines.ggml.graph.states import States

EMBEDDING = "token_embd.weight"


def reserve_graph(
    shape: LanguageShape, habits: Habits, reserve: Reserve, repeats: Repeats | None = None
) -> Graph:
    """Return the graph that the engine reserves its compute buffer for.

    `repeats` are the layers that are built, the last one among them, where some stand for others.
    """
    every = Repeats(numbers=tuple(range(len(shape.layers))))
    return _Language(shape, habits, reserve).build(repeats or every)


class _Language:
    """One graph under construction."""

    def __init__(self, shape: LanguageShape, habits: Habits, reserve: Reserve) -> None:
        self.shape = shape
        self.habits = habits
        self.reserve = reserve
        self.graph = Graph()

    def build(self, repeats: Repeats) -> Graph:
        graph, shape = self.graph, self.shape
        x = self._embed()
        places = 4 if shape.has_sections else self.habits.places
        self.positions = graph.input("i32", self.reserve.tokens * places)
        self.caches = self._caches()
        self.states = self._states()
        chosen = graph.input("i32", self.reserve.outputs)
        last = len(shape.layers) - 1
        ends: dict[int, Tensor] = {}
        for number in repeats.numbers:
            layer = Layer(graph, shape, self.habits, number)
            is_parallel = self.habits.is_parallel and not shape.is_sequential
            add = self._parallel_layer if is_parallel else self._layer
            x = self._deepened(number, add(layer, x, chosen if number == last else None))
            ends[number] = x
        self._logits(x)
        graph.compare_ends(ends, repeats)
        return graph

    def _logits(self, x: Tensor) -> None:
        graph, habits, names = self.graph, self.habits, self.shape.names
        name = "output_norm" if "output_norm.weight" in names else "token_embd_norm"  # LFM2's
        has_bias = f"{name}.bias" in names
        x = graph.norm(x, is_rms=habits.is_rms, weighted=True, biased=has_bias, name=name)
        embedded = x
        x = graph.matmul(self.shape.vocabulary, x, graph.weight("output.weight"))
        if "output.bias" in names:
            x = graph.same("add", x, graph.weight("output.bias"))
        if habits.scales_logits or "logits" in self.shape.scaled:
            x = graph.same("scale", x)
        if habits.softcaps_logits:
            for op in ("scale", "unary", "scale"):
                x = graph.same(op, x)
        x.is_output = True
        graph.expand(x)
        self._pool(embedded)

    def _pool(self, x: Tensor) -> None:
        """Add what makes one embedding a sequence of those of its tokens, where they are wanted.

        Source: llama.cpp, src/llama-graph.cpp (build_pooling).
        """
        graph, pooling, sequences = self.graph, self.reserve.pooling, self.reserve.sequences
        if not pooling:
            return
        x.is_output = True
        if pooling == "mean":
            shares = graph.input("f32", self.reserve.tokens, sequences)
            x = graph.matmul(x.shape[0], shares, graph.copy(graph.transpose(x)))
        elif pooling != "none":
            x = graph.rows_of(x, graph.input("i32", sequences))
        x.is_output = True
        graph.expand(x)

    def _embed(self) -> Tensor:
        """Return the embedded tokens.

        A prompt may be an image's embeddings instead, or mix both; that way's result stays,
        although unused. Where images bring embeddings for later layers too (Qwen3-VL), rows are as
        wide as all of them.
        """
        graph, wide, tokens = self.graph, self.shape.embedding, self.reserve.tokens
        width = wide * (1 + self.shape.deep_layers)
        words = graph.rows(wide, graph.input("i32", tokens), EMBEDDING)
        graph.expand(words)
        mixed = graph.rows(wide, graph.input("i32", tokens), EMBEDDING)
        if self.reserve.mixes_inputs:
            graph.expand(mixed)
        x = self._padded(words, width)
        graph.expand(x)
        graph.expand(graph.input("f32", width, tokens))
        if self.reserve.mixes_inputs:
            mixed = self._padded(mixed, width)
            graph.expand(mixed)
            images = graph.copy(graph.input("f32", width, tokens))
            graph.expand(graph.write_rows(mixed, graph.input("i64", tokens), images))
        if width > wide:
            x = graph.view(x, (wide, tokens, 1, 1), x.strides)
            graph.expand(x)
        self.embedded = x
        if self.habits.scales_embedding or "embedding" in self.shape.scaled:
            x = graph.same("scale", x)
        if self.habits.scales_text:
            x = self._scaled_text(x)
        return x

    def _scaled_text(self, x: Tensor) -> Tensor:
        if not self.reserve.mixes_inputs:
            return self.graph.same("scale", x)
        return self.graph.same("mul", x, self.graph.input("f32", 1, self.reserve.tokens))

    def _padded(self, x: Tensor, width: int) -> Tensor:
        if x.shape[0] == width:
            return x
        return Tensor("pad", "f32", (width, x.shape[1], 1, 1), (x,))

    def _deepened(self, number: int, x: Tensor) -> Tensor:
        """Return a layer's result with what images bring for it."""
        if number >= self.shape.deep_layers:
            return x
        part = self.graph.view(self.embedded, x.shape, self.embedded.strides)
        return self.graph.same("add", x, part)

    def _caches(self) -> dict[bool, AttentionInputs]:
        """Return the inputs of each cache; the key is whether its layers see a window only."""
        kinds = {layer.is_windowed for layer in self.shape.layers if layer.has_attention}
        return {
            kind: AttentionInputs(self.graph, self.shape, self.reserve, is_windowed=kind)
            for kind in sorted(kinds)
        }

    def _states(self) -> States | None:
        if self.shape.state is None:
            return None
        from vramplan.engines.ggml.graph.states import States

        return States(self.graph, self.shape.state, self.reserve)

    def _attention(self, layer: Layer, x: Tensor) -> Tensor:
        cache = self.caches[layer.shape.is_windowed]
        if self.shape.latent is not None:
            from vramplan.engines.ggml.graph.latent import latent_attention

            y = latent_attention(layer, self.shape.latent, x, self.positions, cache)
        elif self.habits.gates_attention:
            q, k, v, gate = gated_queries(layer, x, self.positions)
            y = cache.attend(layer, q, k, v)
            y = self.graph.same("mul", y, self.graph.same("unary", gate))
        else:
            y = cache.attend(layer, *queries_keys_values(layer, x, self.positions))
        return layer.linear(self.shape.embedding, y, "attn_output")

    def _mixed(self, layer: Layer, x: Tensor) -> Tensor:
        """Return what a layer makes of the tokens before: attention, a state, or both added."""
        y = (
            self._attention(layer, layer.norm(x, "attn_norm"))
            if layer.shape.has_attention
            else None
        )
        if self.states is None or not layer.shape.has_state:
            if y is None:
                return feed_forward(layer, layer.norm(x, "attn_norm"))
            return y
        from vramplan.engines.ggml.graph.recurrent import recurrent_layer

        state = recurrent_layer(self.states, layer, layer.norm(x, "attn_norm"))
        return state if y is None else self.graph.same("add", y, state)

    def _layer(self, layer: Layer, x: Tensor, chosen: Tensor | None) -> Tensor:
        """Attention, then the feed-forward network; `chosen` are the rows that logits need."""
        graph, residual, picks = self.graph, x, self.habits.picks
        y = self._mixed(layer, x)
        if chosen is not None and picks is Pick.FIRST:
            y, residual = graph.rows_of(y, chosen), graph.rows_of(residual, chosen)
        leads = self._leads(layer)
        if not leads:
            y = layer.norm(y, "post_attention_norm")
        if chosen is not None and picks is Pick.BEHIND_NORM:
            y, residual = graph.rows_of(y, chosen), graph.rows_of(residual, chosen)
        if self.habits.adds_mixed_to_residual:
            middle = graph.same("add", residual, y)
        else:
            middle = graph.same("add", self._scaled(y), residual)
        if chosen is not None and picks is Pick.BEHIND_SUM:
            middle = graph.rows_of(middle, chosen)
        if self.habits.is_single or not layer.has_feed_forward:
            return middle
        y = layer.norm(middle, "post_attention_norm" if leads else "ffn_norm")
        y = layer.norm(feed_forward(layer, y), "post_ffw_norm")
        if self.habits.adds_made_to_residual:
            return graph.same("add", middle, y)
        return graph.same("add", self._scaled(y), middle)

    def _leads(self, layer: Layer) -> bool:
        """Return whether the norm behind attention is the one before the feed-forward network.

        It is where the layer has no other (gpt-oss, GLM 4 MoE, Qwen 3.5).
        """
        others = ("ffn_norm.weight", "ffn_norm", "post_ffw_norm.weight")
        return not any(layer.has(other) for other in others)

    def _scaled(self, y: Tensor) -> Tensor:
        return self.graph.same("scale", y) if "residual" in self.shape.scaled else y

    def _parallel_layer(self, layer: Layer, x: Tensor, chosen: Tensor | None) -> Tensor:
        """Attention and feed-forward side by side, on one norm (Command R) or two (GPT-NeoX)."""
        graph, residual = self.graph, x
        normed = layer.norm(x, "attn_norm")
        y = self._attention(layer, normed)
        if chosen is not None:
            y = graph.rows_of(y, chosen)
            residual = graph.rows_of(residual, chosen)
            if not layer.has("ffn_norm.weight"):
                normed = graph.rows_of(normed, chosen)
        if layer.has("ffn_norm.weight"):
            normed = layer.norm(residual, "ffn_norm")
        z = feed_forward(layer, normed)
        return graph.same("add", graph.same("add", z, residual), y)
