"""The projector that a catalogue entry describes, and which projector a pipeline has.

LLaVA's is CLIP-L/14 at 336 pixels. Its converter leaves the last of 24 layers out (LLaVA reads the
one before it), and writes matrices as f16 and vectors as f32: 377 tensors, 595.49 MiB.
Source: llama.cpp, tools/mtmd/clip.cpp; the log in ollama#2706 prints "MB" and means MiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vramplan.engines.ggml.entry_section import Section, once_each, open_section
from vramplan.engines.ggml.graph.vision_shapes import VisionShape, VisionTensor
from vramplan.engines.ggml.pipeline import INSIDE, GgmlPipeline, ModelFile
from vramplan.engines.ggml.vision_image import image_sizes
from vramplan.engines.ggml.vision_model import VisionModel
from vramplan.engines.ggml.weights import GgmlTensor, TensorRole
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

_COLOURS = 3

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
#: what an entry may describe -> the sizes it has beside those of all (`described_projector`)
_ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    "clip": (),
    "gemma3": (),
    "pixtral": ("merge",),
    "qwen2.5vl": ("merge", "full_layers"),
}
_MOST_MERGED = 16
_QUANTISATIONS = {"f16": None}


def read_projector(pipeline: GgmlPipeline) -> VisionModel | None:
    """Return the projector that a file's header or the catalogue entry describes, or None.

    Raises CatalogError for a key that is missing, unknown or has no usable value, SourceError for a
    header without any encoder.
    """
    return once_each(pipeline, _read_projector)


def _read_projector(pipeline: GgmlPipeline) -> VisionModel | None:
    if isinstance(pipeline.model, ModelFile):
        from vramplan.engines.ggml.projector_file import projector_of

        file = pipeline.model
        if file.projector is None:
            return None
        return replace(projector_of(file.projector), told_bytes=file.encoder_bytes)
    section = open_section(pipeline).section("projector")
    if section is None:
        return None
    architecture = section.word("architecture", _ARCHITECTURES)
    more = _ARCHITECTURES[architecture]
    section.refuse_others(*_SIZES, *more, "architecture", "quantisation", INSIDE)
    quantisation = section.word("quantisation", _QUANTISATIONS)
    sizes = {key: section.count(key, most=most) for key, most in _SIZES.items()}
    sizes |= {key: section.count(key, most=_MOST_MERGED) for key in more}
    is_inside = section.flag(INSIDE)
    _check(section, sizes)
    if architecture == "clip":
        return _clip(sizes, quantisation, section.spelt())
    from vramplan.engines.ggml.described_projector import described_projector, written_bytes
    from vramplan.engines.ggml.projector_file import projector_of

    header = described_projector(architecture, sizes, pipeline.path, section.spelt())
    return replace(projector_of(header), told_bytes=written_bytes(header) if is_inside else 0)


def _check(section: Section, sizes: Mapping[str, int]) -> None:
    if sizes["image_size"] % sizes["patch_size"]:
        message = f"{sizes['patch_size']} does not divide the image of {sizes['image_size']} pixels"
        raise section.error("patch_size", message)
    if sizes["embedding"] % sizes["heads"]:
        message = f"{sizes['heads']} does not divide the embedding of {sizes['embedding']}"
        raise section.error("heads", message)


def _clip(sizes: Mapping[str, int], quantisation: str, identity: str) -> VisionModel:
    """Return CLIP with LLaVA's projector."""
    patch, image, wide = sizes["patch_size"], sizes["image_size"], sizes["embedding"]
    patches = (image // patch) ** 2
    tensors = tuple(_clip_tensors(sizes, patches + 1))
    # layers are alike: one object for all tensors of a type and shape
    kinds = {
        (kind, shape): VisionTensor(shape=shape, type=kind)
        for kind, shape in {(one.type, one.shape) for one in tensors}
    }
    return VisionModel(
        quantisation=quantisation,
        tokens=patches + 1,
        patches=patches,
        outputs=patches,
        embedding=wide,
        feed_forward=sizes["feed_forward"],
        heads=sizes["heads"],
        projection=sizes["projection"],
        tensors=tensors,
        shape=VisionShape(
            family="mlp",
            embedding=wide,
            heads=sizes["heads"],
            head=wide // sizes["heads"],
            layers=sizes["layers"],
            patch=patch,
            merge=1,
            tensors={one.name: kinds[one.type, one.shape] for one in tensors},
            identity=identity,
        ),
        sizes=image_sizes("mlp", image=image, patch=patch, merge=1),
    )


def _clip_tensors(sizes: Mapping[str, int], tokens: int) -> Iterator[GgmlTensor]:
    """Yield CLIP's vision tower and LLaVA's two-layer projector, as the converter writes them."""
    wide, inner, projection = sizes["embedding"], sizes["feed_forward"], sizes["projection"]
    patch = (sizes["patch_size"], sizes["patch_size"], _COLOURS, wide)
    yield _tensor("v.class_embd", (wide,), TensorRole.VISION)
    yield _tensor("v.patch_embd.weight", patch, TensorRole.VISION)
    yield _tensor("v.position_embd.weight", (wide, tokens), TensorRole.VISION)
    yield from _pair("v.pre_ln", (wide,), wide)
    for layer in range(sizes["layers"]):
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
