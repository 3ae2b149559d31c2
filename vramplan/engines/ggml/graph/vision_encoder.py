"""What vision encoders share: the layers of a transformer over patches, from a file's tensors.

Source: ggml-org/llama.cpp, tools/mtmd/clip.cpp (build_inp, build_vit, build_norm, build_ffn,
build_attn, build_patch_merge_permute, resize_position_embeddings), build b11549.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

from vramplan.engines.ggml.graph.builder import root
from vramplan.engines.ggml.graph.repeats import few_of
from vramplan.engines.ggml.graph.tensor import Tensor
from vramplan.engines.ggml.graph.vision_operators import VisionOperators
from vramplan.engines.ggml.graph.vision_shapes import (
    Encoding,
    UnknownGraphError,
    VisionShape,
    VisionTensor,
)

#: turns queries and keys by their positions
Rotate = Callable[[Tensor], Tensor]


class Encoder:
    """One graph under construction."""

    def __init__(self, shape: VisionShape, encoding: Encoding, *, period: int = 0) -> None:
        self.shape = shape
        self.period = period
        self.encoding = encoding
        self.graph = VisionOperators()
        self.columns = encoding.width // shape.patch
        self.rows = encoding.height // shape.patch
        self.patches = self.columns * self.rows
        self.clamps = False  # products are kept within bounds, before and behind
        self.norms_values = False

    # ------------------------------------------------------------------ tensors
    def has(self, name: str) -> bool:
        """Return whether the file has a tensor of this name."""
        return name in self.shape.tensors

    def tensor(self, name: str, dimensions: int = 1) -> VisionTensor:
        """Return a tensor; raises UnknownGraphError where it is missing or too flat."""
        found = self.shape.tensors.get(name)
        if found is None or len(found.shape) < dimensions:
            raise UnknownGraphError(name)
        return found

    def weight(self, name: str, dimensions: int = 1) -> Tensor:
        """Return a weight as memory of its own, for operators that work on it."""
        found = self.tensor(name, dimensions)
        return self.graph.weight(found.type, *found.shape)

    # ------------------------------------------------------------------- pieces
    def clamp(self, x: Tensor) -> Tensor:
        """Return `x` within bounds; older builds do it where `x` is."""
        if not self.encoding.clamps_in_place:
            return self.graph.same("clamp", x)
        return Tensor("clamp", x.type, x.shape, (x,), x.strides, root(x))

    def linear(self, x: Tensor, name: str, bias: str | None = None) -> Tensor:
        """Return a matrix times `x`, plus its bias where the file has one."""
        if self.clamps:
            x = self.clamp(x)
        y = self.graph.matmul(self.tensor(f"{name}.weight", 2).shape[1], x)
        if self.clamps:
            y = self.clamp(y)
        return self.graph.same("add", y) if self.has(bias or f"{name}.bias") else y

    def norm(self, x: Tensor, name: str, *, is_rms: bool) -> Tensor:
        """Return a norm with the weight and the bias that the file has."""
        has_weight, has_bias = self.has(f"{name}.weight"), self.has(f"{name}.bias")
        return self.graph.norm(x, is_rms=is_rms, weighted=has_weight, biased=has_bias)

    def mlp(self, x: Tensor, up: str, down: str, gate: str = "") -> Tensor:
        """Return a feed-forward network; old files have the names of its two matrices swapped."""
        if self.tensor(f"{up}.weight", 2).shape[0] != x.shape[0]:
            up, down = down, up
        y = self.linear(x, up)
        if gate and self.has(f"{gate}.weight"):
            y = self.graph.glu(self.linear(x, gate), y)
        else:
            y = self.graph.same("unary", y)
        return self.linear(y, down)

    def conv(self, image: Tensor, name: str = "v.patch_embd.weight") -> Tensor:
        """Return the patches of an image."""
        kernel = self.tensor(name)
        return self.graph.conv(image, self.shape.patch, self.shape.embedding, kernel.type)

    def image(self) -> Tensor:
        """Return the pixels."""
        one = self.encoding
        return self.graph.image(one.width, one.height, one.batch)

    def embed(self) -> Tensor:
        """Return the image's patches as rows."""
        return self.graph.patches(
            self.conv(self.image()),
            count=self.patches,
            width=self.shape.embedding,
            has_bias=self.has("v.patch_embd.bias"),
        )

    def resized_positions(self) -> Tensor | None:
        """Return the learned positions resized to the image, or None where they fit as they are."""
        graph, wide = self.graph, self.shape.embedding
        table = self.weight("v.position_embd.weight", 2)
        side = isqrt(table.shape[1])
        if side == self.rows == self.columns:
            return None
        x = graph.permute(graph.reshape(table, wide, side, side), 2, 0, 1, 3)
        x = graph.permute(graph.interpolate(x, self.columns, self.rows), 1, 2, 0, 3)
        return graph.copy_as(x, wide, self.patches)

    def window_mask(self) -> Tensor:
        """Return which patches see which, a number for each pair."""
        one = self.encoding
        kind = "f16" if one.has_flash and not one.casts_mask else "f32"
        mask = self.graph.input(kind, self.patches, self.patches)
        return self.graph.cast(mask, "f16") if one.has_flash and one.casts_mask else mask

    def attention(self, at: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Return attention over all tokens, and its output matrix."""
        graph = self.graph
        for one in (q, k, v):
            graph.expand(one)
        q, k = graph.permute(q, 0, 2, 1, 3), graph.permute(k, 0, 2, 1, 3)
        if self.encoding.has_flash:
            v = graph.permute(v, 0, 2, 1, 3)
            k, v = graph.cast(k, "f16"), graph.cast(v, "f16")
            if mask is not None and self.encoding.casts_mask:
                mask = graph.cast(mask, "f16")
            x = graph.attend(q, k, v, mask)
            x = graph.reshape(x, x.shape[0] * x.shape[1], x.shape[2] * x.shape[3])
        else:
            v = graph.copy(graph.permute(v, 1, 2, 0, 3))
            scores = graph.matmul(k.shape[1], q, k)
            scores = graph.same("soft_max", scores, *(() if mask is None else (mask,)))
            x = graph.permute(graph.matmul(v.shape[1], scores, v), 0, 2, 1, 3)
            x = graph.copy_as(x, x.shape[0] * x.shape[1], x.shape[2] * x.shape[3])
        return self.linear(x, f"{at}.attn_out")

    def heads(
        self, x: Tensor, at: str, tokens: int, *, is_rms: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of `x`, each split into heads."""
        graph, shape, batch = self.graph, self.shape, self.encoding.batch
        if self.has(f"{at}.attn_qkv.weight"):
            x = self.linear(x, f"{at}.attn_qkv")
            step = (shape.head * 4, x.strides[1], x.strides[1] * tokens)
            size = (shape.head, shape.heads, tokens, batch)
            q, k, v = (graph.window(x, size, *step) for _ in range(3))
            return self._normed(q, at, "q", is_rms), self._normed(k, at, "k", is_rms), v
        split = []
        for part in ("q", "k", "v"):
            one = self.linear(x, f"{at}.attn_{part}")
            name = f"{at}.attn_{part}_norm.weight"
            by_head = self.has(name) and self.tensor(name).shape[0] == shape.head
            if part != "v" and not by_head:
                one = self._normed(one, at, part, is_rms)
            one = graph.reshape(one, shape.head, shape.heads, tokens, batch)
            split.append(self._normed(one, at, part, is_rms) if by_head and part != "v" else one)
        return split[0], split[1], split[2]

    def _normed(self, x: Tensor, at: str, part: str, is_rms: bool) -> Tensor:
        if not self.has(f"{at}.attn_{part}_norm.weight"):
            return x
        return self.graph.norm(x, is_rms=is_rms, weighted=True)

    def layer(
        self,
        x: Tensor,
        number: int,
        tokens: int,
        *,
        is_rms: bool = False,
        rotate: Rotate | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return a layer's output for its input: attention and feed-forward, each with a residual.

        Norms and scales behind them are there where the file has them.
        """
        graph, at = self.graph, f"v.blk.{number}"
        q, k, v = self.heads(self.norm(x, f"{at}.ln1", is_rms=is_rms), at, tokens, is_rms=is_rms)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        if self.norms_values:
            v = graph.same("rms_norm", v)
        y = self.attention(at, q, k, v, mask)
        x = graph.same("add", self._behind(y, f"{at}.ls1", f"{at}.attn_post_norm", is_rms), x)
        y = self.norm(x, f"{at}.ln2", is_rms=is_rms)
        y = self.mlp(y, f"{at}.ffn_up", f"{at}.ffn_down", f"{at}.ffn_gate")
        if self.has(f"{at}.ffn_post_norm.weight"):
            y = graph.norm(y, is_rms=is_rms, weighted=True)
        if self.has(f"{at}.ls2.weight"):
            y = graph.same("mul", y)
        x = graph.same("add", x, y)
        return graph.same("mul", x) if self.has(f"{at}.out_scale.weight") else x

    def layers(
        self,
        x: Tensor,
        count: int,
        tokens: int,
        *,
        is_rms: bool = False,
        rotate: Rotate | None = None,
    ) -> Tensor:
        """Return the output of the first `count` layers, of which a few may stand for all."""
        repeats = few_of(self._kinds(count), self.period)
        ends: dict[int, Tensor] = {}
        for number in repeats.numbers:
            x = ends[number] = self.layer(x, number, tokens, is_rms=is_rms, rotate=rotate)
        self.graph.compare_ends(ends, repeats)
        return x

    def _kinds(self, count: int) -> list[frozenset[tuple[str, str, tuple[int, ...]]]]:
        """Return what tells layers from each other: their tensors, by name, type and shape."""
        found: list[set[tuple[str, str, tuple[int, ...]]]] = [set() for _ in range(count)]
        for name, tensor in self.shape.tensors.items():
            if name.startswith("v.blk."):
                number, _, part = name.removeprefix("v.blk.").partition(".")
                if number.isdecimal() and int(number) < count:
                    found[int(number)].add((part, tensor.type, tensor.shape))
        return [frozenset(one) for one in found]

    def _behind(self, y: Tensor, scale: str, norm: str, is_rms: bool) -> Tensor:
        if self.has(f"{scale}.weight"):
            y = self.graph.same("mul", y)
        if self.has(f"{norm}.weight"):
            y = self.graph.norm(y, is_rms=is_rms, weighted=True)
        return y

    def transformer(
        self,
        x: Tensor,
        tokens: int,
        *,
        is_rms: bool = False,
        positions: Tensor | None = None,
        has_positions: bool = False,
        rotate: Rotate | None = None,
    ) -> Tensor:
        """Return all layers' output; `positions` are learned ones that had to be resized."""
        graph, batch = self.graph, self.encoding.batch
        if has_positions:
            x = graph.same("add", x, *(() if positions is None else (positions,)))
        x = graph.reshape(x, self.shape.embedding, tokens * batch)
        x = self.optional_norm(x, "v.pre_ln", is_rms=is_rms)
        x = self.layers(x, self.shape.layers, tokens, is_rms=is_rms, rotate=rotate)
        x = self.optional_norm(x, "v.post_ln", is_rms=is_rms)
        return graph.reshape(x, self.shape.embedding, tokens, batch)

    def optional_norm(self, x: Tensor, name: str, *, is_rms: bool) -> Tensor:
        """Return a norm of `x` where the file has one of this name, else `x`."""
        return self.norm(x, name, is_rms=is_rms) if self.has(f"{name}.weight") else x

    def shuffle(self, x: Tensor) -> Tensor:
        """Return squares of tokens as one wide token each, the image padded to whole squares."""
        graph, merge = self.graph, self.shape.merge
        wide, columns, rows = x.shape[0], self.columns, self.rows
        x = graph.reshape(x, wide, columns, rows)
        if columns % merge or rows % merge:
            columns, rows = -(-columns // merge) * merge, -(-rows // merge) * merge
            x = graph.pad(x, columns, rows)
        x = graph.permute(graph.reshape(x, wide * merge, columns // merge, rows), 0, 2, 1, 3)
        x = graph.copy_as(x, wide * merge * merge, rows // merge, columns // merge)
        x = graph.permute(x, 0, 2, 1, 3)
        return graph.copy_as(x, x.shape[0], x.shape[1] * x.shape[2])
