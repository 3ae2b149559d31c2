"""The projector file (mmproj): a vision encoder and the projector behind it.

LLaVA's is CLIP-L/14 at 336 pixels. Its converter leaves the last of 24 layers out (LLaVA reads the
one before it), and writes matrices as f16 and vectors as f32: 377 tensors, 595.49 MiB.
Source: llama.cpp, tools/mtmd/clip.cpp; the log in ollama#2706 prints "MB" and means MiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from vramplan.estimate.ggml_model import (
    GgmlTensor,
    Section,
    TensorRole,
    once_each,
    open_section,
)
from vramplan.model import Band, Pipeline

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
    section = open_section(pipeline).section("projector")
    if section is None:
        return None
    section.refuse_others(*_SIZES, "architecture", "quantisation")
    section.word("architecture", _ARCHITECTURES)
    quantisation = section.word("quantisation", _QUANTISATIONS)
    sizes = {key: section.count(key, most=most) for key, most in _SIZES.items()}
    _check(section, sizes)
    shapes = VisionModel(quantisation=quantisation, tensors=(), **sizes)
    return replace(shapes, tensors=tuple(_clip_tensors(shapes)))


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
        high_bytes=max(math, expected * 21 // 20),
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
