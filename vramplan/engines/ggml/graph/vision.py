"""The graphs of vision encoders with their projectors, as llama.cpp builds them for an image.

Source: ggml-org/llama.cpp, tools/mtmd/models/llava.cpp, siglip.cpp, qwen2vl.cpp, qwen3vl.cpp and
internvl.cpp, build b11549.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.tensor import Tensor
from vramplan.engines.ggml.graph.vision_encoder import Encoder
from vramplan.engines.ggml.graph.vision_shapes import Encoding, UnknownGraphError, VisionShape

#: InternViT-6B has no means in its norms; its shapes tell (models/internvl.cpp)
_INTERNVIT_6B = (3200, 45)


def encode_graph(shape: VisionShape, encoding: Encoding, *, period: int = 0) -> Graph:
    """Return the graph that encodes images of one size.

    With a `period` a few layers stand for all that are like them (`repeats`). Raises
    UnknownGraphError for a family that is not known and for a file that lacks a tensor.
    """
    if shape.family not in FAMILIES:
        raise UnknownGraphError(shape.family)
    encoder = Encoder(shape, encoding, period=period)
    encoder.graph.expand(FAMILIES[shape.family](encoder))
    return encoder.graph


def _llava(one: Encoder) -> Tensor:
    """CLIP; the last layer is not run, and the class token is dropped behind the others.

    Of LLaVA-1.6's tiles each is encoded by itself.
    """
    graph, shape = one.graph, one.shape
    x = one.embed()
    tokens = one.patches + one.has("v.class_embd")
    if one.has("v.class_embd"):
        x = graph.join(x, None, 1)
    x = graph.same("add", x, graph.rows(shape.embedding, graph.input("i32", tokens)))
    x = one.optional_norm(x, "v.pre_ln", is_rms=False)
    x = one.layers(x, shape.layers - 1, tokens)
    x = one.optional_norm(x, "v.post_ln", is_rms=False)
    x = graph.reshape(x, x.shape[0], x.shape[1])
    x = graph.rows_of(x, graph.input("i32", one.patches))
    if one.has("mm.3.weight"):  # Yi's
        x = graph.same("unary", one.norm(one.linear(x, "mm.0"), "mm.1", is_rms=False))
        return one.norm(one.linear(x, "mm.3"), "mm.4", is_rms=False)
    x = graph.same("unary", one.linear(x, "mm.0"))
    return one.linear(x, "mm.2") if one.has("mm.2.weight") else x


def _siglip(one: Encoder, *, resizes: bool = False) -> Tensor:
    x = one.embed()
    positions = one.resized_positions() if resizes else None
    return one.transformer(x, one.patches, positions=positions, has_positions=True)


def _gemma3(one: Encoder) -> Tensor:
    """SigLIP; squares of tokens become their mean, and the projection is transposed each time."""
    graph, shape = one.graph, one.shape
    x = _siglip(one)
    x = graph.copy_as(graph.transpose(x), one.columns, one.columns, shape.embedding)
    x = graph.pool(x, shape.merge)
    x = graph.reshape(x, x.shape[0] * x.shape[0], shape.embedding)
    x = graph.norm(graph.copy(graph.transpose(x)), is_rms=True, weighted=True)
    turned = graph.copy(graph.transpose(one.weight("mm.input_projection.weight", 2)))
    return graph.matmul(turned.shape[1], x, turned)


def _idefics3(one: Encoder) -> Tensor:
    return one.linear(one.shuffle(_siglip(one)), "mm.model.fc")


def _janus(one: Encoder) -> Tensor:
    return one.mlp(_siglip(one), "mm.0", "mm.1")


def _lfm2(one: Encoder) -> Tensor:
    x = one.shuffle(_siglip(one, resizes=True))
    x = one.optional_norm(x, "mm.input_norm", is_rms=False)
    return one.mlp(x, "mm.1", "mm.2")


def _internvl(one: Encoder) -> Tensor:
    """InternViT; the last token is dropped, where the class token stands behind the patches."""
    graph, shape, batch = one.graph, one.shape, one.encoding.batch
    one.tensor("v.class_embd")
    x = one.embed()
    again = Tensor("repeat", "f32", (shape.embedding, 1, batch, 1))
    x = graph.join(x, again if one.encoding.repeats_class else None, 1)
    is_rms = (shape.embedding, shape.layers) == _INTERNVIT_6B
    x = one.transformer(x, one.patches + 1, is_rms=is_rms, has_positions=True)
    x = graph.window(x, (shape.embedding, one.patches, batch), x.strides[1], x.strides[2])
    x = graph.copy(x)
    merge, rows, columns = shape.merge, one.rows, one.columns
    x = graph.reshape(x, shape.embedding * merge, rows // merge, columns, batch)
    x = graph.permute(x, 0, 2, 1, 3)
    wide = shape.embedding * merge * merge
    x = graph.copy_as(x, wide, rows // merge, columns // merge, batch)
    x = graph.permute(x, 0, 2, 1, 3)
    x = graph.copy_as(x, wide, x.shape[1] * x.shape[2], x.shape[3])
    x = one.norm(x, "mm.model.mlp.0", is_rms=False)
    return one.mlp(x, "mm.model.mlp.1", "mm.model.mlp.3")


def _squares(one: Encoder, x: Tensor) -> Tensor:
    """Return patches in the order of two by two squares (Qwen's spatial merge)."""
    graph, wide = one.graph, one.shape.embedding
    x = graph.copy_as(x, wide * 2, one.columns // 2, one.rows)
    x = graph.reshape(x, wide * 2, one.columns // 2, 2, one.rows // 2)
    x = graph.permute(x, 0, 2, 1, 3)
    return graph.copy_as(x, wide, one.patches)


def _two_frames(one: Encoder) -> Tensor:
    """Return the patches of two frames added together: an image is its own second frame."""
    graph = one.graph
    image = one.image()
    x = graph.same("add", one.conv(image), one.conv(image, "v.patch_embd.weight.1"))
    return _squares(one, graph.permute(x, 1, 2, 0, 3))


def _qwen2vl(one: Encoder) -> Tensor:
    """Qwen2-VL and 2.5-VL, of which the latter sees windows but in every so-many-th layer."""
    graph, shape = one.graph, one.shape
    is_rms, has_windows = shape.family == "qwen2.5vl_merger", shape.window_pattern > 0
    x = _two_frames(one)
    positions = graph.input("i32", one.patches * 4)
    x = one.optional_norm(x, "v.pre_ln", is_rms=is_rms)
    mask = None
    if has_windows:
        order = graph.input("i32", one.patches // 4)
        mask = one.window_mask()
        x = graph.reshape(x, shape.embedding * 4, one.patches // 4)
        x = graph.reshape(graph.rows_of(x, order), shape.embedding, one.patches)
    for number in range(shape.layers):
        is_full = not has_windows or (number + 1) % shape.window_pattern == 0
        x = one.layer(
            x,
            number,
            one.patches,
            is_rms=is_rms,
            rotate=lambda y: graph.rope(y, positions),
            mask=None if is_full else mask,
        )
    x = one.optional_norm(x, "v.post_ln", is_rms=is_rms)
    x = graph.reshape(x, shape.embedding * 4, one.patches // 4)
    x = one.mlp(x, "mm.0", "mm.2")
    if has_windows:
        x = graph.reshape(x, x.shape[0], one.patches // 4)
        x = graph.rows_of(x, graph.input("i32", one.patches // 4))
        x = graph.reshape(x, x.shape[0], one.patches // 4)
    return x


def _qwen3vl(one: Encoder) -> Tensor:
    """Qwen3-VL, some of whose layers have a projector of their own beside the last one's."""
    graph, shape = one.graph, one.shape
    square = shape.merge * shape.merge
    x = _two_frames(one)
    if one.has("v.patch_embd.bias"):
        x = graph.same("add", x)
    table = one.resized_positions() or one.weight("v.position_embd.weight", 2)
    x = graph.same("add", x, _squares(one, table))
    positions = graph.input("i32", one.patches * 4)
    x = one.optional_norm(x, "v.pre_ln", is_rms=False)
    deep: Tensor | None = None
    for number in range(shape.layers):
        x = one.layer(x, number, one.patches, rotate=lambda y: graph.rope(y, positions))
        at = f"v.deepstack.{number}"
        if one.has(f"{at}.fc1.weight"):
            own = graph.reshape(x, shape.embedding * square, one.patches // square)
            own = one.mlp(one.norm(own, f"{at}.norm", is_rms=False), f"{at}.fc1", f"{at}.fc2")
            deep = own if deep is None else graph.join(deep, own, 0)
    x = one.optional_norm(x, "v.post_ln", is_rms=False)
    x = graph.reshape(x, shape.embedding * 4, one.patches // 4)
    x = one.mlp(x, "mm.0", "mm.2")
    return x if deep is None else graph.join(x, deep, 0)


def _pixtral(one: Encoder) -> Tensor:
    from vramplan.engines.ggml.graph.vision_turned import pixtral

    return pixtral(one)


def _gemma4(one: Encoder) -> Tensor:
    from vramplan.engines.ggml.graph.vision_turned import gemma4

    return gemma4(one)


def _kimi(one: Encoder) -> Tensor:
    from vramplan.engines.ggml.graph.vision_turned import kimi

    return kimi(one)


def _llama4(one: Encoder) -> Tensor:
    from vramplan.engines.ggml.graph.vision_turned import llama4

    return llama4(one)


#: clip.cpp's names of projectors (tools/mtmd/clip-impl.h, PROJECTOR_TYPE_NAMES)
FAMILIES: Mapping[str, Callable[[Encoder], Tensor]] = {
    "mlp": _llava,
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "lfm2": _lfm2,
    "internvl": _internvl,
    "pixtral": _pixtral,
    "gemma4v": _gemma4,
    "kimivl": _kimi,
    "llama4": _llama4,
    "janus_pro": _janus,
    "qwen2vl_merger": _qwen2vl,
    "qwen2.5vl_merger": _qwen2vl,
    "qwen3vl_merger": _qwen3vl,
}
