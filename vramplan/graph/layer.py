"""One layer of a language model under construction: what all of its parts are handed."""

from __future__ import annotations

from vramplan.graph.builder import Graph
from vramplan.graph.families import Habits
from vramplan.graph.shapes import LanguageShape, LayerShape
from vramplan.graph.tensor import Tensor


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
        return self.model.has(self.number, part)

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
        return self.graph.norm(
            x,
            is_rms=self.habits.is_rms,
            weighted=True,
            biased=self.has(f"{part}.bias"),
        )

    def linear(self, width: int, x: Tensor, part: str) -> Tensor:
        """Return a matrix of `width` rows times `x`, and its bias where the layer has one."""
        y = self.graph.matmul(width, x)
        return self.graph.same("add", y) if self.has(f"{part}.bias") else y
