"""Reads a projector file's header: which family it is of, its shapes, and what is not known.

Source: ggml-org/llama.cpp, tools/mtmd/clip-impl.h (the keys), clip.cpp (load_hparams).
"""

from __future__ import annotations

from collections import Counter

from vramplan.engines.ggml.graph.vision_shapes import VisionShape, VisionTensor
from vramplan.engines.ggml.vision_image import RULES, ImageSizes, image_sizes
from vramplan.engines.ggml.vision_model import Guess, VisionModel
from vramplan.engines.ggml.weights import GgmlTensor, TensorRole
from vramplan.errors import SourceError
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile

_F32 = 4
_COLOURS = 3

#: the largest values that are not absurd
_WIDEST = 1 << 16
_LARGEST_IMAGE = 8192
_LARGEST_PATCH = 256
_MOST_HEADS = 256
_MOST_LAYERS = 256
_LARGEST_MERGE = 16

#: where a file's shapes are of no use: SigLIP-400M's with Gemma 3's image
_SOME_WIDTH = 1152
_SOME_TOKENS = 4096
#: half a minute of sound, as the engine reserves for: 3,000 frames, halved by a convolution
#: (clip-model.h, warmup_audio_size)
_FRAMES = 3000
_SOUND_TOKENS = 1500

_PROJECTOR_NAMES = ("mm.", "model.mm.", "resampler.", "adapter.")
#: the keys of how many patches across become one token (clip.cpp, get_u32 of n_merge)
_MERGE_KEYS = ("clip.vision.spatial_merge_size", "clip.vision.projector.scale_factor")


def projector_of(file: GgufFile) -> VisionModel:
    """Return the projector of a header; raises SourceError for one without any encoder."""
    parts = [part for part in ("vision", "audio") if _has(file, part)]
    if not parts:
        raise SourceError(f"{file.path}: neither a vision nor an audio encoder in it")
    found = _known(file) if "vision" in parts else None
    shape, sizes = found or (None, None)
    guesses = tuple(_guess(file, part) for part in parts if part == "audio" or shape is None)
    if shape is None or sizes is None:
        first = guesses[0]
        tokens = patches = first.tokens
        outputs, wide, heads = first.outputs, first.embedding, first.heads
        feed_forward = first.feed_forward
    else:
        patches = (sizes.reserved[0] // shape.patch) ** 2
        tokens = patches + ("v.class_embd" in shape.tensors)
        outputs = patches // shape.merge**2
        wide, heads = shape.embedding, shape.heads
        feed_forward = _size(file, "clip.vision.feed_forward_length", 4 * wide, 4 * _WIDEST)
    return VisionModel(
        quantisation=_quantisation(file),
        tokens=tokens,
        patches=patches,
        outputs=outputs,
        embedding=wide,
        feed_forward=feed_forward,
        heads=heads,
        projection=_projection(file, wide),
        tensors=tuple(_tensors(file)),
        shape=shape,
        sizes=sizes,
        guesses=guesses,
    )


def fits_model(file: GgufFile, width: int, deep: int = 0) -> bool:
    """Return whether a projector may give embeddings of a model's `width`, `deep` more with them.

    llama.cpp refuses a pair of other widths (tools/mtmd/mtmd.cpp, n_mmproj_embd). Of a file that
    tells no width nothing is said against it.
    """
    told = {file.number("clip.vision.projection_dim"), file.number("clip.audio.projection_dim")}
    for one in file.tensors:
        if one.name.startswith(_PROJECTOR_NAMES):
            told |= {one.shape[-1]} | ({one.shape[0]} if len(one.shape) == 1 else set())
    told -= {0}
    return not told or width in told or width * (1 + deep) in told


def image_setting(file: GgufFile) -> tuple[int, int] | None:
    """Return the image that an engine reserves for, of a file whose images keep their size."""
    sizes = projector_of(file).sizes
    return sizes.reserved if sizes is not None and sizes.is_dynamic else None


def family_of(file: GgufFile, part: str = "vision") -> str:
    """Return clip.cpp's name of a file's projector."""
    return file.text("clip.projector_type") or file.text(f"clip.{part}.projector_type", "mlp")


def _has(file: GgufFile, part: str) -> bool:
    if file.metadata.get(f"clip.has_{part}_encoder") is False:
        return False
    names = f"{part[0]}."
    return f"clip.{part}.embedding_length" in file.metadata or any(
        tensor.name.startswith(names) for tensor in file.tensors
    )


def _known(file: GgufFile) -> tuple[VisionShape, ImageSizes] | None:
    """Return the encoder's shapes, or None for an unknown family and for absurd numbers."""
    family, key = family_of(file), "clip.vision"
    wide = _size(file, f"{key}.embedding_length", 0, _WIDEST)
    heads = _size(file, f"{key}.attention.head_count", 0, _MOST_HEADS)
    layers = _size(file, f"{key}.block_count", 0, _MOST_LAYERS)
    patch = _size(file, f"{key}.patch_size", 0, _LARGEST_PATCH)
    image = _size(file, f"{key}.image_size", 0, _LARGEST_IMAGE)
    rule = RULES.get(family)
    if rule is None or not all((wide, heads, layers, patch, image)) or image < patch:
        return None
    if file.metadata.get(f"{key}.feature_layer") or f"{key}.feature_layer" in file.lengths:
        return None  # Granite's: several layers' outputs side by side
    merge = next((file.number(one) for one in _MERGE_KEYS if one in file.metadata), rule.merge)
    if not 1 <= merge <= _LARGEST_MERGE:
        return None
    shape = VisionShape(
        family=family,
        embedding=wide,
        heads=heads,
        head=_size(file, f"{key}.attention.head_dim", 0, _WIDEST) or max(1, wide // heads),
        layers=layers,
        patch=patch,
        merge=merge,
        window_pattern=file.number(f"{key}.n_wa_pattern"),
        tensors={one.name: VisionTensor(shape=one.shape, type=one.type) for one in file.tensors},
        identity=file.identity,
    )
    return shape, image_sizes(family, image=image, patch=patch, merge=merge)


def _guess(file: GgufFile, part: str) -> Guess:
    """Return a plain transformer of the shapes that the file gives, as far as they are of use."""
    key = f"clip.{part}"
    wide = _size(file, f"{key}.embedding_length", _SOME_WIDTH, _WIDEST)
    if part == "audio":
        tokens, input_bytes = _SOUND_TOKENS, _FRAMES * _F32 * 128
        what = "its audio encoder"
    else:
        patch = _size(file, f"{key}.patch_size", 0, _LARGEST_PATCH)
        image = _size(file, f"{key}.image_size", 0, _LARGEST_IMAGE)
        is_usable = patch and image >= patch
        tokens = (image // patch) ** 2 if is_usable else _SOME_TOKENS
        input_bytes = _COLOURS * _F32 * (image**2 if is_usable else 14 * 14 * tokens)
        what = f"projector type {family_of(file)[:40]!r}"
        if not is_usable:
            what += f", whose image and patch sizes are of no use ({_SOME_TOKENS} tokens assumed)"
    return Guess(
        what=what,
        tokens=tokens,
        outputs=tokens,
        embedding=wide,
        feed_forward=_size(file, f"{key}.feed_forward_length", 4 * wide, 4 * _WIDEST),
        heads=_size(file, f"{key}.attention.head_count", 16, _MOST_HEADS),
        projection=_projection(file, wide),
        input_bytes=input_bytes,
    )


def _size(file: GgufFile, key: str, otherwise: int, most: int) -> int:
    """Return a number of the metadata, or `otherwise` where it is missing or absurd."""
    found = file.number(key)
    return found if 1 <= found <= most else otherwise


def _projection(file: GgufFile, otherwise: int) -> int:
    last = [
        one.shape[1] for one in file.tensors if one.name == "mm.2.weight" and len(one.shape) > 1
    ]
    if last and 1 <= last[0] <= 2 * _WIDEST:
        return last[0]
    return _size(file, "clip.vision.projection_dim", otherwise, 2 * _WIDEST)


def _quantisation(file: GgufFile) -> str:
    """Return the type that most of the file is in."""
    sizes: Counter[str] = Counter()
    for tensor in file.tensors:
        sizes[tensor.type] += tensor.size_bytes
    return sizes.most_common(1)[0][0] if sizes else "f16"


def _tensors(file: GgufFile) -> list[GgmlTensor]:
    return [
        GgmlTensor(
            name=one.name,
            shape=one.shape,
            type=one.type,
            role=TensorRole.PROJECTOR
            if one.name.startswith(_PROJECTOR_NAMES)
            else TensorRole.VISION,
        )
        for one in file.tensors
    ]
