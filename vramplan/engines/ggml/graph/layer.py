"""One layer of a language model under construction: what all of its parts are handed."""

from __future__ import annotations

from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.families import Habits
from vramplan.engines.ggml.graph.shapes import LanguageShape, LayerShape
from vramplan.engines.ggml.graph.tensor import Tensor

#: what a file calls the factors of its rotations, those first that the engine prefers
ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight")


def rope_factors_name(name: str, layer: int) -> str:
    """Return what the factors that a layer reads are called in a graph."""
    return f"blk.{layer}.{name}"


class Layer:
    """A layer's number within its model, and the graph that it is added to."""

    __slots__ = ("graph", "habits", "model", "number")

    def __init__(self, graph: Graph, model: LanguageShape, habits: Habits, number: int) -> None:
        self.graph = graph
        self.model = model
        self.habits = habits
        self.number = number

    @property
    def shape(self) -> LayerShape:
        """The layer's own shape."""
        return self.model.layers[self.number]

    def has(self, part: str) -> bool:
        """Return whether the layer has a tensor, such as ``attn_q.bias``."""
        return part not in self.habits.ignores and self.model.has(self.number, part)

    @property
    def has_feed_forward(self) -> bool:
        """Whether the layer has a feed-forward network, or experts."""
        return self.has("ffn_up.weight") or self.has("ffn_gate_inp.weight")

    def norm(self, x: Tensor, part: str) -> Tensor:
        """Return a norm of `x` with the weight and bias that the layer has, else `x` itself.

        A few weights are called without ``.weight`` (Falcon-H1's ffn_norm).
        """
        if not (self.has(f"{part}.weight") or self.has(part)):
            return x
        if self.has(part):
            normed = self.graph.norm(
                x, is_rms=self.habits.is_rms, weighted=False, layer=self.number
            )
            return self.graph.same("mul", normed, self.weight(part))
        return self.graph.norm(
            x,
            is_rms=self.habits.is_rms,
            weighted=True,
            biased=self.has(f"{part}.bias"),
            name=self.name(part),
            layer=self.number,
        )

    def linear(self, width: int, x: Tensor, part: str) -> Tensor:
        """Return a matrix of `width` rows times `x`, and its bias where the layer has one."""
        y = self.matmul(width, x, part)
        return self.add_bias(y, part) if self.has(f"{part}.bias") else y

    def matmul(self, width: int, x: Tensor, part: str) -> Tensor:
        """Return a matrix of `width` rows times `x`, without a bias."""
        return self.graph.matmul(width, x, self.graph.weight(f"{self.name(part)}.weight"))

    def weight(self, part: str) -> Tensor:
        """Return a weight that is called without ``.weight``."""
        return self.graph.weight(self.name(part))

    def rope_factors(self) -> tuple[Tensor, ...]:
        """Return the factors of the angles that positions turn by, where the file has some.

        They are outside the layers and in memory beside each: of the long and the short ones, of
        one size, the context takes either (src/llama-model.cpp, get_rope_factors).
        """
        for name in ROPE_FACTORS:
            if name in self.model.names and name not in self.habits.ignores:
                return (self.graph.weight(rope_factors_name(name, self.number)),)
        return ()

    def add_bias(self, x: Tensor, part: str) -> Tensor:
        """Return `x` plus the bias of a part."""
        return self.graph.same("add", x, self.graph.weight(f"{self.name(part)}.bias"))

    def name(self, part: str) -> str:
        """Return what a part is called in the file, up to ``.weight`` or ``.bias``."""
        return f"blk.{self.number}.{part}"
