"""The encoders in a model file of Ollama's converter, as llama.cpp's projector loader gets them.

Matrices that llama.cpp reads joined are joined, those that it convolves with are widened to f32,
and keys stand where it looks for them. Of an encoder whose graph is not known the keys of its
shapes are enough. Source: ollama/ollama, llama/compat/llama-ollama-compat.cpp, the functions
handle_*_clip, at llama.cpp b10488.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isqrt

from vramplan.quick_dataclass import dataclass, replace
from vramplan.sources.gguf_header import GgufFile, GgufTensor, Value

Keys = dict[str, Value]
Tensors = dict[str, GgufTensor]

_COLOURS = 3
_FRAMES = 2
_KERNEL = 4  # dimensions of a convolution's
_PARTS = ("q", "k", "v")
_INSIDE = ("v.", "mm.", "a.", "s.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is being made of a `file`: the architecture's `name`, its keys and its tensors."""

    file: GgufFile
    name: str
    keys: Keys
    tensors: Tensors

    def rename(self, before: str, after: str) -> None:
        """Call a tensor otherwise; it goes behind the others."""
        self.tensors[after] = replace(self.tensors.pop(before), name=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """What becomes of the encoder of one architecture.

    `renames` are made in the first place that a tensor's name has; `widened` become f32; `copied`
    are keys that a file has under another name, below the architecture's; `told` are keys that no
    file has; `edits` come before the renames.
    """

    family: str
    renames: tuple[tuple[str, str], ...] = ()
    widened: tuple[str, ...] = ()
    copied: tuple[tuple[str, str], ...] = ()
    told: tuple[tuple[str, int], ...] = ()
    edits: tuple[Callable[[Draft], None], ...] = ()


def renamed(name: str, renames: Sequence[tuple[str, str]]) -> str:
    """Return a tensor's name after all renames, each made once."""
    for before, after in renames:
        name = name.replace(before, after, 1)
    return name


def projector_in(file: GgufFile) -> GgufFile:
    """Return the projector's file that llama.cpp takes a model's file for."""
    name = file.architecture
    rule = ENCODERS[name]
    keys: Keys = {"general.architecture": "clip", "clip.projector_type": rule.family}
    for kind in ("vision", "audio"):
        before = f"{name}.{kind}."
        for key, value in file.metadata.items():
            if key.startswith(before):
                keys[f"clip.{kind}.{key.removeprefix(before)}"] = value
    for before, after in rule.copied:
        found_value = file.metadata.get(f"{name}.{before}")
        if found_value is not None:
            keys[f"clip.vision.{after}"] = found_value
    keys["clip.has_vision_encoder"] = True
    width = file.number(f"{name}.embedding_length")
    if width:
        keys.setdefault("clip.vision.projection_dim", width)
    for key, number in rule.told:
        keys.setdefault(key, number)
    tensors: Tensors = {one.name: one for one in file.tensors if one.name.startswith(_INSIDE)}
    draft = Draft(file=file, name="clip", keys=keys, tensors=tensors)
    for edit in rule.edits:
        edit(draft)
    found: list[GgufTensor] = []
    for one in draft.tensors.values():
        told = renamed(one.name, rule.renames)
        found.append(replace(one, name=told, type="f32" if told in rule.widened else one.type))
    identity = f"{file.identity} as a projector" if file.identity else ""
    return replace(file, metadata=keys, lengths={}, tensors=tuple(found), identity=identity)


def _join_heads(kind: str) -> Callable[[Draft], None]:
    """Return what joins queries, keys and values, in their own type or in f32."""

    def edit(draft: Draft) -> None:
        for first in [key for key in draft.tensors if ".attn_q." in key]:
            others = [first.replace(".attn_q.", f".attn_{part}.") for part in _PARTS]
            if not all(key in draft.tensors for key in others):
                continue
            one = draft.tensors[first]
            for key in others:
                del draft.tensors[key]
            told = first.replace(".attn_q.", ".attn_qkv.")
            shape = (*one.shape[:-1], _COUNT * one.shape[-1])
            draft.tensors[told] = replace(one, name=told, shape=shape, type=kind or one.type)

    return edit


_COUNT = len(_PARTS)


def _split_frames(draft: Draft) -> None:
    """Make two kernels in f32 of one over two frames, whose last side is colours and outputs."""
    found = draft.tensors.get("v.patch_embed.weight")
    if found is None or len(found.shape) != _KERNEL or found.type != "f16":
        return
    wide, high, frames, packed = found.shape
    colours = (
        draft.file.number(f"{draft.file.architecture}.vision.num_channels", _COLOURS) or _COLOURS
    )
    if frames != _FRAMES or packed % colours:
        return
    del draft.tensors[found.name]
    for told in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        shape = (wide, high, colours, packed // colours)
        draft.tensors[told] = replace(found, name=told, shape=shape, type="f32")


def _size_by_positions(draft: Draft) -> None:
    """Tell the image's size by how many positions there are, and the inner width by its matrix."""
    places = draft.tensors.get("v.pos_embed.weight")
    patch = draft.file.number(f"{draft.file.architecture}.vision.patch_size")
    if places is not None and len(places.shape) > 1 and patch:
        draft.keys.setdefault("clip.vision.image_size", isqrt(places.shape[1]) * patch)
    _inner_by_matrix(draft, "v.blk.0.mlp.linear_fc1.weight")


def _windows_of_qwen25vl(draft: Draft) -> None:
    """Tell every which layer sees all of an image by the first that does."""
    told = draft.file.metadata.get("qwen25vl.vision.fullatt_block_indexes")
    first = told[0] if isinstance(told, tuple) and told else 7
    draft.keys["clip.vision.n_wa_pattern"] = first + 1 if isinstance(first, int) else 8
    _inner_by_matrix(draft, "v.blk.0.ffn_up.weight")


def _inner_by_matrix(draft: Draft, name: str) -> None:
    found = draft.tensors.get(name)
    if found is not None and len(found.shape) > 1:
        draft.keys.setdefault("clip.vision.feed_forward_length", found.shape[1])


def _merge_of_mistral3(draft: Draft) -> None:
    """Tell how many patches become a token, and add a row's end, which files leave out."""
    merge = draft.file.number("mistral3.spatial_merge_size")
    if merge:
        draft.keys["clip.vision.spatial_merge_size"] = merge
    width = draft.file.number("mistral3.embedding_length")
    if 0 < width <= _WIDEST:
        end = "v.token_embd.img_break"
        draft.tensors[end] = GgufTensor(name=end, shape=(width,), type="f32")


_WIDEST = 1 << 20


def _shuffle_of_llama4(draft: Draft) -> None:
    ratio = draft.file.metadata.get("llama4.vision.pixel_shuffle_ratio")
    scale = round(1 / ratio) if isinstance(ratio, float) and _LEAST_RATIO < ratio <= 1 else 2
    draft.keys.setdefault("clip.vision.projector.scale_factor", scale)


_LEAST_RATIO = 1 / 16


def _sound_of_gemma4(draft: Draft) -> None:
    """Name each encoder's projector: those of images and of sound are two."""
    del draft.keys["clip.projector_type"]
    draft.keys["clip.vision.projector_type"] = "gemma4v"
    draft.keys["clip.has_audio_encoder"] = any(key.startswith("a.") for key in draft.tensors)
    draft.keys["clip.audio.projector_type"] = "gemma4a"


def _positions_of_nemotron(draft: Draft) -> None:
    """Shrink the table of positions to those of the image's size, in f32.

    The file has it for a larger image: a square of positions, before or behind the width.
    """
    found = draft.tensors.get("v.position_embd", draft.tensors.get(_PLACES))
    vision = f"{draft.file.architecture}.vision"
    patch = draft.file.number(f"{vision}.patch_size", _NEMOTRON_PATCH)
    side = draft.file.number(f"{vision}.image_size", _NEMOTRON_IMAGE) // max(patch, 1)
    wide = draft.file.number(f"{vision}.embedding_length", _NEMOTRON_WIDTH)
    if found is None or not 0 < side <= _WIDEST or not 0 < wide <= _WIDEST:
        return
    sides = [one for one in found.shape if one > 1]
    if len(sides) != _TABLE or not any(isqrt(one) ** 2 == one for one in sides):
        return
    del draft.tensors[found.name]
    shape = (wide, side * side)
    draft.tensors[_PLACES] = replace(found, name=_PLACES, shape=shape, type="f32")


_NEMOTRON_IMAGE, _NEMOTRON_PATCH, _NEMOTRON_WIDTH = 512, 16, 1280
_TABLE = 2  # dimensions of one


def _without_sound(draft: Draft) -> None:
    """Leave the sound's encoder out, which is not loaded."""
    draft.keys["clip.has_audio_encoder"] = False
    for key in [key for key in draft.tensors if key.startswith(("a.", "mm.a."))]:
        del draft.tensors[key]


_QWEN = (
    ("v.pos_embed", "v.position_embd"),
    ("v.patch_embed", "v.patch_embd"),
    ("v.merger.norm", "v.post_ln"),
    ("v.merger.linear_fc1", "mm.0"),
    ("v.merger.linear_fc2", "mm.2"),
    (".mlp.linear_fc1", ".ffn_up"),
    (".mlp.linear_fc2", ".ffn_down"),
    (".norm1", ".ln1"),
    (".norm2", ".ln2"),
)
_PLACES, _PATCHES = "v.position_embd.weight", "v.patch_embd.weight"
_BOTH = (_PATCHES, "v.patch_embd.weight.1")


_MOST_DEEP = 64


def _deepstack(draft: Draft) -> None:
    """Number the mergers of layers in between by those layers."""
    told = draft.file.metadata.get(f"{draft.file.architecture}.vision.deepstack_visual_indexes")
    layers = told[:_MOST_DEEP] if isinstance(told, tuple) else ()
    for number, layer in enumerate(layers):
        before = f"v.deepstack_merger.{number}."
        for key in [key for key in draft.tensors if key.startswith(before)]:
            part = key.removeprefix(before).replace("linear_fc", "fc")
            name = f"v.deepstack.{layer}.{part}"
            draft.rename(key, name)


_QWEN3VL = _Rule(
    family="qwen3vl_merger",
    renames=_QWEN,
    widened=(_PLACES,),
    edits=(_size_by_positions, _join_heads("f32"), _split_frames, _deepstack),
)
_QWEN35 = _Rule(
    family="qwen3vl_merger",
    renames=_QWEN,
    widened=(_PLACES,),
    told=(("clip.vision.feed_forward_length", 4304), ("clip.vision.image_size", 768)),
    edits=(_join_heads(""), _split_frames),
)
#: the architectures whose encoder Ollama hands over (compatClipArches)
ENCODERS: Mapping[str, _Rule] = {
    "gemma3": _Rule(
        family="gemma3",
        renames=(
            ("v.patch_embedding", "v.patch_embd"),
            ("v.position_embedding", "v.position_embd"),
            ("v.post_layernorm", "v.post_ln"),
            (".layer_norm1", ".ln1"),
            (".layer_norm2", ".ln2"),
            (".attn_output", ".attn_out"),
            (".mlp.fc1", ".ffn_down"),
            (".mlp.fc2", ".ffn_up"),
            ("mm.mm_input_projection", "mm.input_projection"),
            ("mm.mm_soft_emb_norm", "mm.soft_emb_norm"),
        ),
        widened=(_PATCHES, _PLACES),
    ),
    "gemma4": _Rule(
        family="gemma4v",
        widened=(_PATCHES,),
        told=(("clip.vision.image_size", 224),),
        edits=(_sound_of_gemma4,),
    ),
    "qwen35": _QWEN35,
    "qwen35moe": _QWEN35,
    "qwen3vl": _QWEN3VL,
    "qwen3vlmoe": _QWEN3VL,
    "qwen25vl": _Rule(
        family="qwen2.5vl_merger",
        renames=(
            ("v.merger.ln_q", "v.post_ln"),
            ("v.merger.mlp.0", "mm.0"),
            ("v.merger.mlp.2", "mm.2"),
            ("v.patch_embd_0.weight", _PATCHES),
            ("v.patch_embd_1.weight", "v.patch_embd.weight.1"),
        ),
        widened=_BOTH,
        told=(("clip.vision.image_size", 560),),
        edits=(_windows_of_qwen25vl,),
    ),
    "mistral3": _Rule(
        family="pixtral",
        renames=(
            ("v.patch_conv", "v.patch_embd"),
            ("v.encoder_norm", "v.pre_ln"),
            (".attn_output", ".attn_out"),
            (".attn_norm", ".ln1"),
            (".ffn_norm", ".ln2"),
            ("mm.linear_1", "mm.1"),
            ("mm.linear_2", "mm.2"),
            ("mm.patch_merger.merging_layer", "mm.patch_merger"),
            ("mm.norm", "mm.input_norm"),
        ),
        widened=(_PATCHES,),
        edits=(_merge_of_mistral3,),
    ),
    "llama4": _Rule(
        family="llama4",
        renames=(
            ("v.positional_embedding_vlm", _PLACES),
            ("v.vision_adapter.mlp.fc1", "mm.model.mlp.1"),
            ("v.vision_adapter.mlp.fc2", "mm.model.mlp.2"),
            ("mm.linear_1", "mm.model.fc"),
            ("v.class_embedding", "v.class_embd"),
            ("v.layernorm_post", "v.post_ln"),
            ("v.layernorm_pre", "v.pre_ln"),
            ("v.patch_embedding", "v.patch_embd"),
            (".attn_output", ".attn_out"),
            (".attn_norm", ".ln1"),
            (".ffn_norm", ".ln2"),
            (".mlp.fc1", ".ffn_up"),
            (".mlp.fc2", ".ffn_down"),
        ),
        edits=(_shuffle_of_llama4,),
    ),
    "deepseekocr": _Rule(
        family="deepseekocr",
        widened=(_PATCHES, _PLACES, "s.patch_embd.weight"),
        copied=(("vision.head_count", "attention.head_count"),),
    ),
    "glmocr": _Rule(
        family="glm4v",
        renames=(
            ("v.patch_embd_0.weight", _PATCHES),
            ("v.patch_embd_1.weight", "v.patch_embd.weight.1"),
        ),
        widened=_BOTH,
        copied=(
            ("vision.intermediate_size", "feed_forward_length"),
            ("vision.out_hidden_size", "projection_dim"),
        ),
    ),
    "nemotron_h_omni": _Rule(
        family="nemotron_v2_vl",
        renames=(("v.cls_embd", "v.class_embd"),),
        widened=("v.class_embd", _PATCHES),
        edits=(_without_sound, _positions_of_nemotron),
    ),
}
