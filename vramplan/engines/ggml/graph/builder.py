"""Puts a graph together in the order in which ggml would: operators, views, and `expand`.

Weights and caches are memory of their own and count for nothing here, so operators take their
shapes and not tensors. Source: ggml-org/ggml, src/ggml.c (the operators' shapes,
ggml_visit_parents_graph).
"""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.engines.ggml.graph.repeats import Repeats
from vramplan.engines.ggml.graph.tensor import Shape, Tensor, contiguous


class Graph:
    """Nodes and leaves in the order in which they were reached."""

    def __init__(self) -> None:
        self.nodes: list[Tensor] = []
        self.leaves: list[Tensor] = []
        #: pairs of layers' results at which memory must look alike (`repeats`)
        self.alike: list[tuple[Tensor, Tensor]] = []

    def compare_ends(self, ends: Mapping[int, Tensor], repeats: Repeats) -> None:
        """Have the allocator compare memory at the ends of layers that stand for others."""
        self.alike += ((ends[one], ends[other]) for one, other in repeats.alike)

    # ------------------------------------------------------------------ leaves
    def input(self, type_name: str, *shape: int) -> Tensor:
        """Return a tensor that is filled before each run."""
        return Tensor("none", type_name, full(shape), is_input=True)

    def external(self, *shape: int) -> Tensor:
        """Return memory that is not the graph's: a cache or a weight that an operator reads."""
        whole = full(shape)
        return Tensor("none", "f32", whole, is_external=True)

    def weight(self, name: str) -> Tensor:
        """Return a weight that an operator reads, of which only the name matters."""
        tensor = Tensor("none", "f32", (1, 1, 1, 1), is_external=True)
        tensor.name = name
        return tensor

    # ------------------------------------------------------------------- order
    def expand(self, tensor: Tensor) -> None:
        """Add a tensor and all it is made from, sources first (ggml_build_forward_expand)."""
        if tensor.is_seen:
            return
        tensor.is_seen = True
        path = [(tensor, iter(tensor.sources))]  # hundreds of layers are deeper than Python's stack
        while path:
            reached, sources = path[-1]
            for source in sources:
                if not source.is_seen:
                    source.is_seen = True
                    path.append((source, iter(source.sources)))
                    break
            else:
                path.pop()
                (self.leaves if reached.op == "none" else self.nodes).append(reached)

    # --------------------------------------------------------------- operators
    def matmul(self, width: int, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return a weight of `width` rows times `x`; `weight` is given where it is no weight."""
        shape = (width, x.shape[1], x.shape[2], x.shape[3])
        sources = (x,) if weight is None else (weight, x)
        return Tensor("mul_mat", "f32", shape, sources)

    def matmul_id(self, width: int, x: Tensor, ids: Tensor, name: str) -> Tensor:
        """Return each token's experts, of `width` rows, times `x`; `name` is the weight's."""
        shape = (width, ids.shape[0], x.shape[2], 1)
        return Tensor("mul_mat_id", "f32", shape, (self.weight(name), x, ids))

    def rows(self, width: int, ids: Tensor, name: str = "") -> Tensor:
        """Return rows of the weight `name`, such as the embeddings of tokens."""
        shape = (width, ids.shape[0], ids.shape[1], ids.shape[2])
        return Tensor("get_rows", "f32", shape, (self.weight(name), ids))

    def rows_of(self, x: Tensor, ids: Tensor) -> Tensor:
        """Return rows of a tensor of the graph."""
        shape = (x.shape[0], ids.shape[0], ids.shape[1], ids.shape[2])
        return Tensor("get_rows", "f32", shape, (x, ids))

    def widen(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the first dimension of `x` with that of `y` behind it."""
        shape = (x.shape[0] + y.shape[0], x.shape[1], x.shape[2], x.shape[3])
        return Tensor("concat", x.type, shape, (x, y))

    def same(self, op: str, x: Tensor, *others: Tensor) -> Tensor:
        """Return an operator whose result is shaped like `x`, which is its first source."""
        return Tensor(op, x.type, x.shape, (x, *others))

    def norm(
        self,
        x: Tensor,
        *,
        is_rms: bool,
        weighted: bool,
        biased: bool = False,
        name: str = "",
        layer: int = -1,
    ) -> Tensor:
        """Return a norm over the first dimension, times the weight called `name`, plus its bias.

        `layer` is the one that it belongs to, if any.
        """
        x = self.same("rms_norm" if is_rms else "norm", x)
        x.layer = layer
        if weighted:
            x = self.same("mul", x, self.weight(f"{name}.weight"))
        return self.same("add", x, self.weight(f"{name}.bias")) if biased else x

    def glu(self, gate: Tensor, up: Tensor) -> Tensor:
        """Return an activation of `gate` times `up`: a tensor of its own."""
        return Tensor("glu", gate.type, gate.shape, (gate, up))

    def glu_halves(self, x: Tensor) -> Tensor:
        """Return an activation of one half of the first dimension times the other."""
        shape = (x.shape[0] // 2, x.shape[1], x.shape[2], x.shape[3])
        return Tensor("glu", x.type, shape, (x,))

    def sum_rows(self, x: Tensor) -> Tensor:
        """Return the sums over the first dimension."""
        return Tensor("sum_rows", x.type, (1, x.shape[1], x.shape[2], x.shape[3]), (x,))

    def top(self, x: Tensor, count: int) -> Tensor:
        """Return the places of the largest: a sort of all of them, and a view of the first."""
        order = Tensor("argsort", "i32", x.shape, (x,))
        return self.view(order, (count, x.shape[1], x.shape[2], x.shape[3]), order.strides)

    def flash(self, q: Tensor, k: Tensor, v: Tensor, *masks: Tensor, width: int) -> Tensor:
        """Return fused attention; `width` is the values' head size, sinks are behind the mask."""
        shape = (width, q.shape[2], q.shape[1], q.shape[3])
        return Tensor("flash_attn_ext", "f32", shape, (q, k, v, *masks))

    def write_rows(self, x: Tensor, ids: Tensor, cache: Tensor) -> Tensor:
        """Return the writing of rows into a cache: a view of it."""
        return Tensor("set_rows", "f32", cache.shape, (x, ids, cache), view_of=root(cache))

    def copy_into(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the copy of `x` into memory that is there already."""
        return Tensor("cpy", target.type, target.shape, (x, target), view_of=root(target))

    def copy(self, x: Tensor, type_name: str | None = None) -> Tensor:
        """Return `x` without gaps, maybe in another type."""
        return Tensor("cont", type_name or x.type, x.shape, (x,))

    def copy_as(self, x: Tensor, *shape: int) -> Tensor:
        """Return `x` without gaps, in another shape."""
        return Tensor("cont", x.type, full(shape), (x,))

    # ------------------------------------------------------------------- views
    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        """Return `x` in another shape, without a copy."""
        return self.view(x, full(shape), contiguous(x.type, full(shape)))

    def view(self, x: Tensor, shape: Shape, strides: Shape) -> Tensor:
        """Return a part of `x`, without a copy."""
        return Tensor("view", x.type, shape, (x,), strides, root(x))

    def transpose(self, x: Tensor) -> Tensor:
        """Return `x` with its first two dimensions changed, without a copy."""
        return self.permute(x, 1, 0, 2, 3)

    def permute(self, x: Tensor, *order: int) -> Tensor:
        """Return `x` with dimension i at place `order[i]`, without a copy."""
        shape, strides = [0] * 4, [0] * 4
        for old, new in enumerate(order):
            shape[new], strides[new] = x.shape[old], x.strides[old]
        return self.view(
            x,
            (shape[0], shape[1], shape[2], shape[3]),
            (strides[0], strides[1], strides[2], strides[3]),
        )


def root(x: Tensor) -> Tensor:
    """Return the tensor whose memory `x` shows."""
    return x if x.view_of is None else x.view_of


def full(shape: tuple[int, ...]) -> Shape:
    """Return a shape with all of its four numbers."""
    return (*shape, 1, 1, 1)[:4]  # type: ignore[return-value]  # four, whatever there was
