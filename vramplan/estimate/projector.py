"""The projector file (mmproj): a vision encoder and the projector behind it.

LLaVA's is CLIP-L/14 at 336 pixels. Its converter leaves the last of 24 layers out (LLaVA reads the
one before it), and writes matrices as f16 and vectors as f32: 377 tensors, 595.49 MiB.
Source: llama.cpp, tools/mtmd/clip.cpp; the log in ollama#2706 prints "MB" and means MiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

from vramplan.errors import SourceError
from vramplan.estimate.ggml_model import (
    GgmlTensor,
    Section,
    TensorRole,
    once_each,
    open_section,
)
from vramplan.model import Band, Pipeline

if TYPE_CHECKING:
    from vramplan.sources.gguf import GgufFile

_F32 = 4
_COLOURS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionModel:
    """A projector file: the shapes of its graph and its tensors."""

    quantisation: str
    image_size: int  # pixels; the encoder sees squares, one after another
    patch_size: int
    embedding: int
    feed_forward: int
    heads: int
    layers: int  # as stored in the file
    projection: int  # the width of what the language model receives
    tensors: tuple[GgmlTensor, ...]
    is_known: bool = True  # CLIP with a plain projector: what the compute buffer is counted for

    @property
    def patches(self) -> int:
        """Return how many tokens an image becomes for the language model."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """Return how many tokens the encoder sees: the patches and the class token."""
        return self.patches + 1

    @cached_property
    def weights_bytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    def part(self, role: TensorRole) -> tuple[int, int]:
        """Return the parameters and the bytes of the tensors of `role`."""
        return self._parts[role]

    @cached_property
    def _parts(self) -> Mapping[TensorRole, tuple[int, int]]:
        sums = dict.fromkeys(TensorRole, (0, 0))
        for tensor in self.tensors:
            elements, size_bytes = sums[tensor.role]
            sums[tensor.role] = (elements + tensor.elements, size_bytes + tensor.size_bytes)
        return sums


#: key -> the largest value that is not absurd
_SIZES: Mapping[str, int] = {
    "image_size": 8192,
    "patch_size": 256,
    "embedding": 1 << 16,
    "feed_forward": 1 << 18,
    "heads": 256,
    "layers": 256,
    "projection": 1 << 17,
}
_ARCHITECTURES = {"clip": None}
_QUANTISATIONS = {"f16": None}


def read_projector(pipeline: Pipeline) -> VisionModel | None:
    """Return the projector that the catalogue entry describes, or None when it has none.

    Raises CatalogError for a key that is missing, unknown or has no usable value.
    """
    return once_each(pipeline, _read_projector)


def _read_projector(pipeline: Pipeline) -> VisionModel | None:
    if pipeline.header is not None:
        return None if pipeline.projector is None else _from_header(pipeline.projector)
    section = open_section(pipeline).section("projector")
    if section is None:
        return None
    section.refuse_others(*_SIZES, "architecture", "quantisation")
    section.word("architecture", _ARCHITECTURES)
    quantisation = section.word("quantisation", _QUANTISATIONS)
    sizes = {key: section.count(key, most=most) for key, most in _SIZES.items()}
    _check(section, sizes)
    shapes = VisionModel(quantisation=quantisation, tensors=(), is_known=True, **sizes)
    return replace(shapes, tensors=tuple(_clip_tensors(shapes)))


def _from_header(header: object) -> VisionModel:
    """Return the projector of a file's header (`sources.gguf.GgufFile`).

    Raises SourceError for one without a vision encoder. Of families other than CLIP with a plain
    projector the compute buffer is CLIP's of the same shapes, and marked as assumed.
    """
    file = cast("GgufFile", header)
    key = "clip.vision"
    embedding = file.number(f"{key}.embedding_length")
    patch = file.number(f"{key}.patch_size")
    image = file.number(f"{key}.image_size")
    if not 1 <= embedding <= _SIZES["embedding"] or not 1 <= patch <= _SIZES["patch_size"]:
        raise SourceError(f"{file.path}: no vision encoder in it")
    if not patch <= image <= _SIZES["image_size"]:
        raise SourceError(f"{file.path}: an image of {image} pixels in patches of {patch}")
    last = [t.shape[1] for t in file.tensors if t.name == "mm.2.weight" and len(t.shape) > 1]
    kind = file.text("clip.projector_type") or file.text("clip.vision.projector_type", "mlp")
    return VisionModel(
        quantisation="f16",
        image_size=image,
        patch_size=patch,
        embedding=embedding,
        feed_forward=file.number(f"{key}.feed_forward_length", 4 * embedding),
        heads=max(1, min(file.number(f"{key}.attention.head_count", 16), 256)),
        layers=file.number(f"{key}.block_count", 1),
        projection=last[0] if last else file.number(f"{key}.projection_dim", embedding),
        is_known=kind == "mlp",
        tensors=tuple(
            GgmlTensor(
                name=tensor.name,
                shape=tensor.shape,
                type=tensor.type,
                role=TensorRole.PROJECTOR
                if tensor.name.startswith(("mm.", "model.mm."))
                else TensorRole.VISION,
            )
            for tensor in file.tensors
        ),
    )


def _check(section: Section, sizes: Mapping[str, int]) -> None:
    if sizes["image_size"] % sizes["patch_size"]:
        message = f"{sizes['patch_size']} does not divide the image of {sizes['image_size']} pixels"
        raise section.error("patch_size", message)
    if sizes["embedding"] % sizes["heads"]:
        message = f"{sizes['heads']} does not divide the embedding of {sizes['embedding']}"
        raise section.error("heads", message)


def _clip_tensors(shapes: VisionModel) -> Iterator[GgmlTensor]:
    """Yield CLIP's vision tower and LLaVA's two-layer projector, as the converter writes them."""
    wide, inner, projection = shapes.embedding, shapes.feed_forward, shapes.projection
    patch = (shapes.patch_size, shapes.patch_size, _COLOURS, wide)
    yield _tensor("v.class_embd", (wide,), TensorRole.VISION)
    yield _tensor("v.patch_embd.weight", patch, TensorRole.VISION)
    yield _tensor("v.position_embd.weight", (wide, shapes.tokens), TensorRole.VISION)
    yield from _pair("v.pre_ln", (wide,), wide)
    for layer in range(shapes.layers):
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from _pair(f"v.blk.{layer}.{part}", (wide, wide), wide, layer)
        for part in ("ln1", "ln2"):
            yield from _pair(f"v.blk.{layer}.{part}", (wide,), wide, layer)
        yield from _pair(f"v.blk.{layer}.ffn_up", (wide, inner), inner, layer)
        yield from _pair(f"v.blk.{layer}.ffn_down", (inner, wide), wide, layer)
    for name, width in (("mm.0", wide), ("mm.2", projection)):
        yield _tensor(f"{name}.weight", (width, projection), TensorRole.PROJECTOR)
        yield _tensor(f"{name}.bias", (projection,), TensorRole.PROJECTOR)


def _pair(
    name: str, shape: tuple[int, ...], bias: int, layer: int | None = None
) -> Iterator[GgmlTensor]:
    yield _tensor(f"{name}.weight", shape, TensorRole.VISION, layer)
    yield _tensor(f"{name}.bias", (bias,), TensorRole.VISION, layer)


def _tensor(
    name: str, shape: tuple[int, ...], role: TensorRole, layer: int | None = None
) -> GgmlTensor:
    kind = "f32" if len(shape) == 1 else "f16"
    return GgmlTensor(name=name, shape=shape, type=kind, role=role, layer=layer)


def projector_compute(vision: VisionModel, *, has_flash: bool) -> Band:
    """Return the compute buffer of encoding one square; tiles are encoded one after another.

    The fullest moment is the attention (the scores and five activations) or, with flash attention,
    the projector (its input, the hidden layer and the output). The image itself stays all along.
    For CLIP-L/14 at 336 pixels this is 32.89 MiB, as the CUDA log of ollama#2706 prints, and with
    flash attention 21.55 MiB, as llama.cpp's CPU build b11549 prints. Not every build and device
    takes flash attention, so the band reaches up to the figure without it.
    """
    math = _compute_bytes(vision, has_flash=False)
    expected = _compute_bytes(vision, has_flash=has_flash)
    return Band(
        low_bytes=expected * 19 // 20,
        expected_bytes=expected,
        high_bytes=max(math, expected * 21 // 20) * (1 if vision.is_known else 2),
    )


def _compute_bytes(vision: VisionModel, *, has_flash: bool) -> int:
    tokens, patches = vision.tokens, vision.patches
    hidden = tokens * vision.embedding * _F32
    scores = 0 if has_flash else vision.heads * tokens * tokens * _F32
    attention = scores + 5 * hidden
    feed_forward = 3 * hidden + tokens * vision.feed_forward * _F32
    projection = patches * (vision.embedding + 2 * vision.projection) * _F32
    image = _COLOURS * vision.image_size**2 * _F32
    indices = 4 * (tokens + patches)
    return max(attention, feed_forward, projection) + image + indices
