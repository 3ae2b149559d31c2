"""Vision encoders that turn queries and keys by a patch's row and column, each for half a head.

Pixtral, Gemma 4, Kimi-VL and Llama 4. Source: ggml-org/llama.cpp, tools/mtmd/models/pixtral.cpp,
gemma4v.cpp, kimivl.cpp and llama4.cpp, clip.cpp (build_rope_2d), build b11549.
"""

from __future__ import annotations

from vramplan.engines.ggml.graph.tensor import Tensor
from vramplan.engines.ggml.graph.vision_encoder import Encoder


def turned_twice(one: Encoder, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return heads of which each half is turned by positions of its own."""
    graph = one.graph
    if not one.encoding.halves_rotations:
        return graph.rope(graph.rope(x, first), second)
    size = (x.shape[0] // 2, *x.shape[1:])
    halves = [graph.window(x, size, *x.strides[1:]) for _ in range(2)]
    return graph.join(graph.rope(halves[0], first), graph.rope(halves[1], second), 0)


def pixtral(one: Encoder) -> Tensor:
    """Pixtral; Mistral Small's squares of tokens become one; a token ends each row."""
    graph, shape = one.graph, one.shape
    down, across = graph.input("i32", one.patches), graph.input("i32", one.patches)
    x = one.embed()
    x = one.transformer(
        x, one.patches, is_rms=True, rotate=lambda y: turned_twice(one, y, down, across)
    )
    if one.has("mm.patch_merger.weight"):
        x = graph.norm(x, is_rms=True, weighted=True)
        x = graph.reshape(x, shape.embedding, one.columns, one.rows)
        x = graph.unfold(graph.copy(graph.permute(x, 2, 0, 1, 3)), shape.merge)
        x = graph.reshape(x, x.shape[0], x.shape[1] * x.shape[2])
        x = one.linear(x, "mm.patch_merger")
    x = one.mlp(x, "mm.1", "mm.2")
    return _with_row_ends(one, x) if one.has("v.token_embd.img_break") else x


def _with_row_ends(one: Encoder, x: Tensor) -> Tensor:
    graph, wide = one.graph, x.shape[0]
    columns, rows = one.columns // one.shape.merge, one.rows // one.shape.merge
    ends = Tensor("none", "f32", (wide, 1, rows, 1))
    ends = graph.same("add", graph.same("scale", ends))
    x = graph.join(graph.reshape(x, wide, columns, rows), ends, 1)
    return graph.window(x, (wide, columns * rows + rows - 1), 4 * wide)


def gemma4(one: Encoder) -> Tensor:
    """Gemma 4; positions are looked up by column and by row, and squares become their mean."""
    graph, shape = one.graph, one.shape
    one.clamps = one.norms_values = True
    x = one.conv(graph.same("scale", one.image()))
    x = graph.patches(x, count=one.patches, width=shape.embedding, has_bias=False)
    across, down = graph.input("i32", one.patches), graph.input("i32", one.patches)
    table = one.weight("v.position_embd.weight", 3)
    for ids in (across, down):
        half = graph.window(table, table.shape[:2], table.strides[1])
        x = graph.same("add", x, graph.rows_of(half, ids))
    x = one.transformer(
        x, one.patches, is_rms=True, rotate=lambda y: turned_twice(one, y, across, down)
    )
    x = graph.copy_as(graph.transpose(x), one.columns, one.rows, shape.embedding)
    x = graph.pool(x, shape.merge)
    x = graph.reshape(x, x.shape[0] * x.shape[1], shape.embedding)
    x = graph.same("scale", graph.copy(graph.transpose(x)))
    if one.has("v.std_bias") and one.has("v.std_scale"):
        x = graph.same("mul", graph.same("sub", x))
    return one.linear(graph.norm(x, is_rms=True, weighted=False), "mm.input_projection")


def kimi(one: Encoder) -> Tensor:
    """Kimi-VL: MoonViT, with learned positions too, and a norm of each patch behind the merge."""
    graph, shape = one.graph, one.shape
    down, across = graph.input("i32", one.patches), graph.input("i32", one.patches)
    positions = one.resized_positions()
    x = one.transformer(
        one.embed(),
        one.patches,
        positions=positions,
        has_positions=True,
        rotate=lambda y: turned_twice(one, y, across, down),
    )
    x = one.shuffle(x)
    wide, tokens = x.shape[0], x.shape[1]
    x = graph.window(x, (shape.embedding, tokens * shape.merge**2), 4 * shape.embedding)
    x = graph.norm(x, is_rms=False, weighted=True, biased=True)
    x = graph.window(x, (wide, tokens), 4 * wide)
    return one.mlp(x, "mm.1", "mm.2")


def llama4(one: Encoder) -> Tensor:
    """Llama 4: patches are unrolled in f32, and the class token is dropped behind the others."""
    graph, shape = one.graph, one.shape
    tokens = one.patches + 1
    down, across = graph.input("i32", tokens), graph.input("i32", tokens)
    inner = 3 * shape.patch * shape.patch
    x = Tensor("im2col", "f32", (inner, one.columns, one.rows, 1), (one.image(),))
    x = graph.matmul(one.tensor("v.patch_embd.weight", 2).shape[1], x)
    x = graph.join(graph.reshape(x, shape.embedding, one.patches), None, 1)
    x = one.transformer(
        x, tokens, has_positions=True, rotate=lambda y: turned_twice(one, y, across, down)
    )
    x = graph.window(x, (shape.embedding, one.patches), 4 * shape.embedding)
    merge, columns, rows = shape.merge, one.columns, one.rows
    x = graph.reshape(x, shape.embedding * merge, columns // merge, rows)
    wide = shape.embedding * merge * merge
    x = graph.copy_as(graph.permute(x, 0, 2, 1, 3), wide, columns // merge, rows // merge)
    x = graph.copy_as(x, wide, one.patches // merge**2)
    x = graph.same("unary", one.linear(x, "mm.model.mlp.1"))
    x = graph.same("unary", one.linear(x, "mm.model.mlp.2"))
    return one.linear(x, "mm.model.fc")
