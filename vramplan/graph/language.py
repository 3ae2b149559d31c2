"""The graph of a language model as llama.cpp reserves it, from the model's shapes and tensor names.

Families differ in which tensors they have (biases, norms of queries and keys, norms behind, fused
matrices, experts) and in a few habits that no tensor tells; the first are read off the names, the
second are in `Habits`. Source: ggml-org/llama.cpp, src/llama-graph.cpp (build_attn, build_ffn,
build_moe_ffn), src/llama-kv-cache.cpp and src/models; build b11549's figures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vramplan.graph.builder import Graph
from vramplan.graph.split import HOST
from vramplan.graph.tensor import ELEMENT_BYTES, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What a family does that its tensors do not tell.

    `is_parallel`: attention and feed-forward read the same norm and are added together. `has_glu`:
    the feed-forward is gated. `softcaps`: scores, and logits at the end, go through tanh.
    `scales_queries`: queries are multiplied before attention. `scales_embedding`: the embedded
    tokens are. `is_rms`: norms have no mean. `normalises_experts`: the experts' weights are made to
    add up to one. `rotates`: positions turn queries and keys. `outputs_early`: rows are chosen
    before the last layer's residual, else after it.
    """

    is_parallel: bool = False
    is_rms: bool = True
    softcaps_scores: bool = False
    softcaps_logits: bool = False
    scales_queries: bool = False
    scales_embedding: bool = False
    scales_logits: bool = False
    normalises_experts: bool = True
    scales_experts: bool = False
    rotates: bool = True
    gates_experts: str = "softmax"
    has_positions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """What one layer is made of; sizes in elements."""

    heads: int
    kv_heads: int
    head_k: int
    head_v: int
    feed_forward: int
    is_windowed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageShape:
    """A language model's shapes; `names` are its tensors' names."""

    architecture: str
    embedding: int
    vocabulary: int
    layers: tuple[LayerShape, ...]
    names: Collection[str]
    experts: int = 0
    experts_used: int = 0
    expert_feed_forward: int = 0
    shared_feed_forward: int = 0
    widths: Mapping[str, int] = field(default_factory=dict)

    def has(self, layer: int, part: str) -> bool:
        """Return whether a layer has a tensor, such as ``attn_q.bias``."""
        return f"blk.{layer}.{part}" in self.names


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """The graph that is reserved: `tokens` of a batch, `outputs` rows of logits, caches' cells.

    `streams` is how many sequences have caches of their own; `window_cells` are the cells of layers
    that see a window only. `kv_type` is the cache's type, for which rotations may be needed.
    """

    tokens: int
    outputs: int
    cells: int
    window_cells: int = 0
    streams: int = 1
    has_flash: bool = True
    k_is_quantised: bool = False
    v_is_quantised: bool = False


FAMILIES: Mapping[str, Habits] = {
    "llama": Habits(),
    "mistral3": Habits(),
    "qwen2": Habits(),
    "qwen3": Habits(),
    "qwen3moe": Habits(),
    "qwen2moe": Habits(normalises_experts=False),
    "olmoe": Habits(normalises_experts=False),
    "gemma": Habits(scales_embedding=True, scales_queries=True),
    "gemma2": Habits(
        softcaps_scores=True, softcaps_logits=True, scales_queries=True, scales_embedding=True
    ),
    "gemma3": Habits(scales_queries=True, scales_embedding=True),
    "phi3": Habits(scales_queries=True),
    "command-r": Habits(is_parallel=True, is_rms=False, scales_logits=True),
    "gptneox": Habits(is_rms=False),
}


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
        self.inputs: dict[bool, _AttentionInputs] = {}
        self.positions: Tensor | None = None

    def build(self) -> Graph:
        graph, shape = self.graph, self.shape
        x = self._embed()
        self.positions = graph.input("i32", self.reserve.tokens)
        self._attention_inputs()
        chosen = graph.input("i32", self.reserve.outputs)
        last = len(shape.layers) - 1
        for number in range(len(shape.layers)):
            x = self._layer(number, x, chosen if number == last else None)
        x = self._norm(x, "output_norm")
        x = graph.matmul(shape.vocabulary, x)
        if self.habits.scales_logits:
            x = graph.same("scale", x)
        if self.habits.softcaps_logits:
            for op in ("scale", "unary", "scale"):
                x = graph.same(op, x)
        x.is_output = True
        graph.expand(x)
        return graph

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

    def _attention_inputs(self) -> None:
        kinds = {layer.is_windowed for layer in self.shape.layers}
        for is_windowed in sorted(kinds):
            cells = self.reserve.window_cells if is_windowed else self.reserve.cells
            widest = max(layer.kv_heads * layer.head_v for layer in self.shape.layers)
            self.inputs[is_windowed] = _AttentionInputs(self.graph, self.reserve, cells, widest)

    # ------------------------------------------------------------------ layers
    def _layer(self, number: int, x: Tensor, chosen: Tensor | None) -> Tensor:
        if self.habits.is_parallel:
            return self._parallel_layer(number, x, chosen)
        graph, shape = self.graph, self.shape
        residual = x
        y = self._norm(x, f"blk.{number}.attn_norm")
        y = self._attention(number, y)
        is_behind = shape.has(number, "post_attention_norm.weight")
        picks_first = shape.architecture != "gemma3" or not is_behind
        if chosen is not None and picks_first:
            y = graph.rows_of(y, chosen)
            residual = graph.rows_of(residual, chosen)
        if is_behind:
            y = self._norm(y, f"blk.{number}.post_attention_norm")
        if chosen is not None and not picks_first:
            y = graph.rows_of(y, chosen)
            residual = graph.rows_of(residual, chosen)
        middle = graph.same("add", y, residual)
        y = self._norm(middle, f"blk.{number}.ffn_norm")
        y = self._feed_forward(number, y)
        if shape.has(number, "post_ffw_norm.weight"):
            y = self._norm(y, f"blk.{number}.post_ffw_norm")
        return graph.same("add", y, middle)

    def _parallel_layer(self, number: int, x: Tensor, chosen: Tensor | None) -> Tensor:
        """Attention and feed-forward side by side on one norm (Command R)."""
        graph = self.graph
        normed = self._norm(x, f"blk.{number}.attn_norm")
        y = self._attention(number, normed)
        residual = x
        if chosen is not None:
            y = graph.rows_of(y, chosen)
            residual = graph.rows_of(residual, chosen)
            normed = graph.rows_of(normed, chosen)
        z = self._feed_forward(number, normed)
        return graph.same("add", graph.same("add", z, residual), y)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        names = self.shape.names
        return self.graph.norm(
            x,
            is_rms=self.habits.is_rms,
            weighted=f"{name}.weight" in names,
            biased=f"{name}.bias" in names,
        )

    # --------------------------------------------------------------- attention
    def _attention(self, number: int, x: Tensor) -> Tensor:
        graph, layer = self.graph, self.shape.layers[number]
        q, k, v = self._queries_keys_values(number, x)
        if self.shape.has(number, "attn_q_norm.weight"):
            q = graph.norm(q, is_rms=self.habits.is_rms, weighted=True)
        if self.habits.rotates:
            assert self.positions is not None
            q = graph.same("rope", q, self.positions)
        if self.shape.has(number, "attn_k_norm.weight"):
            k = graph.norm(k, is_rms=self.habits.is_rms, weighted=True)
        if self.habits.rotates:
            assert self.positions is not None
            k = graph.same("rope", k, self.positions)
        if self.habits.scales_queries:
            q = graph.same("scale", q)
        y = self.inputs[layer.is_windowed].attend(graph, layer, q, k, v, self.habits)
        y = graph.matmul(self.shape.embedding, y)
        return graph.same("add", y) if self.shape.has(number, "attn_output.bias") else y

    def _queries_keys_values(self, number: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        graph, layer = self.graph, self.shape.layers[number]
        tokens = x.shape[1]
        widths = (
            layer.heads * layer.head_k,
            layer.kv_heads * layer.head_k,
            layer.kv_heads * layer.head_v,
        )
        if self.shape.has(number, "attn_qkv.weight"):
            whole = graph.matmul(sum(widths), x)
            if self.shape.has(number, "attn_qkv.bias"):
                whole = graph.same("add", whole)
            heads = (
                (layer.head_k, layer.heads),
                (layer.head_k, layer.kv_heads),
                (layer.head_v, layer.kv_heads),
            )
            return tuple(  # type: ignore[return-value]  # three of them
                graph.view(
                    whole,
                    (size, count, tokens, 1),
                    (4, 4 * size, whole.strides[1], whole.strides[1] * tokens),
                )
                for size, count in heads
            )
        made = []
        for part, width in zip(("q", "k", "v"), widths, strict=True):
            one = graph.matmul(width, x)
            if self.shape.has(number, f"attn_{part}.bias"):
                one = graph.same("add", one)
            made.append(one)
        q, k, v = made
        return (
            graph.reshape(q, layer.head_k, layer.heads, tokens),
            graph.reshape(k, layer.head_k, layer.kv_heads, tokens),
            graph.reshape(v, layer.head_v, layer.kv_heads, tokens),
        )

    # ------------------------------------------------------------ feed-forward
    def _feed_forward(self, number: int, x: Tensor) -> Tensor:
        shape = self.shape
        if shape.has(number, "ffn_gate_inp.weight"):
            y = self._experts(number, x)
            if shape.has(number, "ffn_up_shexp.weight"):
                shared = self._plain(number, x, shape.shared_feed_forward, "_shexp")
                if shape.has(number, "ffn_gate_inp_shexp.weight"):
                    gate = self.graph.same("unary", self.graph.matmul(1, x))
                    shared = self.graph.same("mul", shared, gate)
                y = self.graph.same("add", y, shared)
            return y
        return self._plain(number, x, shape.layers[number].feed_forward, "")

    def _plain(self, number: int, x: Tensor, inner: int, suffix: str) -> Tensor:
        graph, has = self.graph, self.shape.has
        is_gated = has(number, f"ffn_gate{suffix}.weight")
        is_fused = not is_gated and self.shape.architecture == "phi3"
        y = graph.matmul(2 * inner if is_fused else inner, x)
        if has(number, f"ffn_up{suffix}.bias"):
            y = graph.same("add", y)
        if is_fused:
            y = graph.glu_halves(y)
        elif is_gated:
            gate = graph.matmul(inner, x)
            if has(number, f"ffn_gate{suffix}.bias"):
                gate = graph.same("add", gate)
            y = graph.glu(gate, y)
        else:
            y = graph.same("unary", y)
        y = graph.matmul(self.shape.embedding, y)
        return graph.same("add", y) if has(number, f"ffn_down{suffix}.bias") else y

    def _experts(self, number: int, x: Tensor) -> Tensor:
        """Return the sum of the experts that each token is sent to."""
        graph, shape = self.graph, self.shape
        used, tokens, wide = shape.experts_used, x.shape[1], shape.embedding
        logits = graph.matmul(shape.experts, x)
        op = "soft_max" if self.habits.gates_experts == "softmax" else "unary"
        probabilities = graph.same(op, logits)
        choice = probabilities
        if shape.has(number, "exp_probs_b.bias"):
            choice = graph.same("add", probabilities)
        ids = graph.top(choice, used)
        weights = graph.rows_of(graph.reshape(probabilities, 1, shape.experts, tokens), ids)
        if self.habits.normalises_experts:
            weights = graph.reshape(weights, used, tokens)
            total = graph.same("clamp", graph.sum_rows(weights))
            weights = graph.reshape(graph.same("div", weights, total), 1, used, tokens)
        if self.habits.scales_experts:
            weights = graph.same("scale", weights)
        graph.expand(weights)
        y = graph.reshape(x, wide, 1, tokens)
        inner = shape.expert_feed_forward
        up = graph.matmul_id(inner, y, ids)
        gate = graph.matmul_id(inner, y, ids)
        made = graph.matmul_id(wide, graph.glu(gate, up), ids)
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
            result.strides = (4, 4 * wide, 4 * wide * tokens, 4 * wide * tokens)
            graph.expand(result)
        return graph.copy(result) if used == 1 else result


class _AttentionInputs:
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

    def attend(
        self,
        graph: Graph,
        layer: LayerShape,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        habits: Habits,
    ) -> Tensor:
        """Return attention over the cache, with the heads side by side."""
        for x in (q, v, k):
            graph.expand(x)
        tokens = q.shape[2]
        self._store(graph, layer, k, v, tokens)
        streams = self.reserve.streams
        each = tokens // streams
        q = graph.view(
            q,
            (q.shape[0], q.shape[1], each, streams),
            (q.strides[0], q.strides[1], q.strides[2], q.strides[2] * each),
        )
        q = graph.permute(q, 0, 2, 1, 3)
        keys = self._cached(graph, layer.head_k, layer.kv_heads)
        values = self._cached(graph, layer.head_v, layer.kv_heads)
        wide = layer.head_v * layer.heads
        if self.reserve.has_flash:
            y = graph.flash(q, keys, values, self.mask, layer.head_v)
            y = graph.reshape(y, wide, tokens)
        else:
            shape = (self.cells, each, layer.heads, streams)
            scores = Tensor("mul_mat", "f32", shape, (keys, q))
            if habits.softcaps_scores:
                for op in ("scale", "unary", "scale"):
                    scores = graph.same(op, scores)
            scores = graph.same("soft_max", scores, self.mask)
            shape = (layer.head_v, each, layer.heads, streams)
            y = Tensor("mul_mat", "f32", shape, (values, scores))
            y = graph.copy_as(graph.permute(y, 0, 2, 1, 3), wide, tokens)
        graph.expand(y)
        return y

    def _store(self, graph: Graph, layer: LayerShape, k: Tensor, v: Tensor, tokens: int) -> None:
        """Write keys and values into the cache; values are transposed without flash attention."""
        wide = layer.kv_heads * layer.head_k
        flat = graph.view(k, (wide, tokens, 1, 1), (4, k.strides[2], k.strides[3], k.strides[3]))
        graph.expand(graph.write_rows(flat, self.k_places, self.cache))
        wide = layer.kv_heads * layer.head_v
        if self.reserve.has_flash:
            flat = graph.view(
                v, (wide, tokens, 1, 1), (4, v.strides[2], v.strides[3], v.strides[3])
            )
        else:
            is_whole = v.strides[2] == ELEMENT_BYTES["f32"] * wide
            flat = graph.reshape(v, wide, tokens) if is_whole else graph.copy_as(v, wide, tokens)
            flat = graph.reshape(flat, 1, wide * tokens)
            cells = graph.reshape(self.cache, 1)
            graph.expand(graph.write_rows(flat, self.v_places, cells))
            return
        graph.expand(graph.write_rows(flat, self.v_places, self.cache))

    def _cached(self, graph: Graph, head: int, heads: int) -> Tensor:
        """Return keys or values as attention reads them: a view of the cache, permuted."""
        shape = (head, heads, self.cells, self.reserve.streams)
        return graph.permute(graph.view(self.cache, shape, (1, 1, 1, 1)), 0, 2, 1, 3)
