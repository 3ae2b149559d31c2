"""The operators that vision encoders need beyond a language model's, in ggml's shapes.

Weights are named where an operator works on the weight itself (a transposed projection, resized
positions); elsewhere they count for nothing. Source: ggml-org/ggml, src/ggml.c (ggml_conv_2d,
ggml_pool_2d, ggml_interpolate, ggml_concat, ggml_repeat_4d, ggml_pad, ggml_cast, ggml_im2col).
"""

from __future__ import annotations

from vramplan.engines.ggml.graph.builder import Graph, full
from vramplan.engines.ggml.graph.tensor import Tensor, contiguous

_COLOURS = 3


class VisionOperators(Graph):
    """A graph that can also convolve, pool and resize."""

    def weight(self, type_name: str, *shape: int) -> Tensor:
        """Return a weight that an operator reshapes or copies."""
        return Tensor("none", type_name, full(shape), is_external=True)

    def image(self, width: int, height: int, batch: int = 1) -> Tensor:
        """Return the pixels: the graph's first input."""
        return self.input("f32", width, height, _COLOURS, batch)

    def conv(self, image: Tensor, patch: int, width: int, patch_type: str) -> Tensor:
        """Return every patch of `image` as `width` numbers: columns, a product, and a copy.

        The columns are f16 but for a kernel in bf16.
        """
        columns, rows = image.shape[0] // patch, image.shape[1] // patch
        batch = image.shape[3]
        inner = patch * patch * image.shape[2]
        kind = "f32" if patch_type == "bf16" else "f16"
        unrolled = Tensor("im2col", kind, (inner, columns, rows, batch), (image,))
        flat = self.reshape(unrolled, inner, columns * rows * batch)
        product = Tensor("mul_mat", "f32", (flat.shape[1], width, 1, 1), (flat,))
        split = self.reshape(product, columns, rows, batch, width)
        return self.copy(self.permute(split, 0, 1, 3, 2))

    def patches(self, x: Tensor, *, count: int, width: int, has_bias: bool) -> Tensor:
        """Return what `conv` made as one row of `width` numbers a patch."""
        batch = x.shape[3]
        x = self.copy(self.transpose(self.reshape(x, count, width, batch)))
        return self.same("add", x) if has_bias else x

    def transpose(self, x: Tensor) -> Tensor:
        """Return `x` with its first two dimensions exchanged, without a copy."""
        return self.permute(x, 1, 0, 2, 3)

    def pool(self, x: Tensor, kernel: int) -> Tensor:
        """Return the means of squares of the first two dimensions."""
        shape = (x.shape[0] // kernel, x.shape[1] // kernel, x.shape[2], x.shape[3])
        return Tensor("pool_2d", "f32", shape, (x,))

    def interpolate(self, x: Tensor, width: int, height: int) -> Tensor:
        """Return `x` resized over its first two dimensions."""
        return Tensor("upscale", x.type, (width, height, x.shape[2], x.shape[3]), (x,))

    def pad(self, x: Tensor, columns: int, rows: int) -> Tensor:
        """Return `x` with zeros up to this size of its second and third dimensions."""
        return Tensor("pad", x.type, (x.shape[0], columns, rows, x.shape[3]), (x,))

    def join(self, x: Tensor, other: Tensor | None, dimension: int, more: int = 1) -> Tensor:
        """Return `x` with `other` behind it; without one, with `more` of a weight."""
        shape = list(x.shape)
        shape[dimension] += more if other is None else other.shape[dimension]
        sources = (x,) if other is None else (x, other)
        return Tensor("concat", x.type, (shape[0], shape[1], shape[2], shape[3]), sources)

    def cast(self, x: Tensor, type_name: str) -> Tensor:
        """Return `x` in another type, or copied in the same one."""
        return Tensor("cpy", type_name, x.shape, (x,))

    def window(self, x: Tensor, shape: tuple[int, ...], *strides: int) -> Tensor:
        """Return a part of `x` with the strides of its second and later dimensions in bytes."""
        whole = full(shape)
        own = contiguous(x.type, whole)
        nb = (own[0], *strides, *own[1 + len(strides) :])
        return self.view(x, whole, (nb[0], nb[1], nb[2], nb[3]))

    def rope(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return `x` turned by positions."""
        return self.same("rope", x, positions)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Return fused attention of heads of the same size."""
        shape = (v.shape[0], q.shape[2], q.shape[1], q.shape[3])
        sources = (q, k, v) if mask is None else (q, k, v, mask)
        return Tensor("flash_attn_ext", "f32", shape, sources)

    def unfold(self, x: Tensor, kernel: int) -> Tensor:
        """Return squares of `kernel` of the first two dimensions as rows."""
        columns, rows = x.shape[0] // kernel, x.shape[1] // kernel
        shape = (kernel * kernel * x.shape[2], columns, rows, x.shape[3])
        eye = self.view(x, (kernel, kernel, x.shape[2], 1), (x.strides[0], 0, 0, 0))
        return Tensor("im2col", "f32", shape, (eye, x))
