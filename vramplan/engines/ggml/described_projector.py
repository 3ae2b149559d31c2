"""The header of the projector that a catalogue's entry stands for, but for LLaVA's.

An entry says what config.json says of an encoder; which tensors its family has is known here.
Matrices are f16 and vectors f32, as converters write them, and what is convolved with or holds
positions is f32. Source: llama.cpp, convert_hf_to_gguf.py and tools/mtmd/clip.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from vramplan.sources.gguf_header import GgufFile, GgufTensor, Value

Sizes = Mapping[str, int]
_Shapes = Iterator[tuple[str, tuple[int, ...]]]

_COLOURS = 3
_F16, _F32 = 2, 4
_WIDENED = ("v.patch_embd.weight", "v.patch_embd.weight.1", "v.position_embd.weight")
#: what no file of Ollama's own holds, and its loader makes
_MADE = ("v.token_embd.img_break",)


def described_projector(architecture: str, sizes: Sizes, path: str, identity: str) -> GgufFile:
    """Return the header of a projector of one of `FAMILIES`, of these sizes."""
    family, tensors = FAMILIES[architecture]
    told: dict[str, Value] = {
        "general.architecture": "clip",
        "clip.has_vision_encoder": True,
        "clip.projector_type": family,
        "clip.vision.image_size": sizes["image_size"],
        "clip.vision.patch_size": sizes["patch_size"],
        "clip.vision.embedding_length": sizes["embedding"],
        "clip.vision.feed_forward_length": sizes["feed_forward"],
        "clip.vision.attention.head_count": sizes["heads"],
        "clip.vision.block_count": sizes["layers"],
        "clip.vision.projection_dim": sizes["projection"],
    }
    if "merge" in sizes:
        told["clip.vision.spatial_merge_size"] = sizes["merge"]
    if "full_layers" in sizes:
        told["clip.vision.n_wa_pattern"] = sizes["full_layers"]
    found = tuple(
        GgufTensor(name=name, shape=shape, type="f32" if _is_f32(name, shape) else "f16")
        for name, shape in tensors(sizes)
    )
    return GgufFile(
        path=path, version=3, metadata=told, lengths={}, tensors=found, identity=identity
    )


def written_bytes(file: GgufFile) -> int:
    """Return what a described projector takes inside a file of Ollama's, where it is narrower."""
    return sum(
        one.elements * (_F32 if len(one.shape) == 1 else _F16)
        for one in file.tensors
        if one.name not in _MADE
    )


def _is_f32(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 or name in _WIDENED


def _gemma3(sizes: Sizes) -> _Shapes:
    """Yield SigLIP, and the one matrix behind the mean of squares of tokens."""
    wide = sizes["embedding"]
    yield from _patches(sizes)
    yield "v.patch_embd.bias", (wide,)
    yield "v.position_embd.weight", (wide, (sizes["image_size"] // sizes["patch_size"]) ** 2)
    yield from _layers(sizes, has_bias=True, has_gate=False, has_norm_bias=True)
    yield from _with_bias("v.post_ln", (wide,))
    yield "mm.input_projection.weight", (sizes["projection"], wide)
    yield "mm.soft_emb_norm.weight", (wide,)


def _pixtral(sizes: Sizes) -> _Shapes:
    """Yield Mistral Small 3.1's encoder, whose tokens are squares of patches."""
    wide, merge, text = sizes["embedding"], sizes["merge"], sizes["projection"]
    yield from _patches(sizes)
    yield "v.pre_ln.weight", (wide,)
    yield from _layers(sizes, has_bias=False, has_gate=True, has_norm_bias=False)
    yield "mm.input_norm.weight", (wide,)
    yield "mm.patch_merger.weight", (wide * merge * merge, wide)
    yield "mm.1.weight", (wide, text)
    yield "mm.2.weight", (text, text)
    yield "v.token_embd.img_break", (text,)


def _qwen25vl(sizes: Sizes) -> _Shapes:
    """Yield Qwen2.5-VL's encoder, which convolves two frames with a kernel each."""
    wide, text = sizes["embedding"], sizes["projection"]
    merged = wide * sizes["merge"] ** 2
    yield from _patches(sizes)
    yield "v.patch_embd.weight.1", (sizes["patch_size"], sizes["patch_size"], _COLOURS, wide)
    yield from _layers(sizes, has_bias=True, has_gate=True, has_norm_bias=False)
    yield "v.post_ln.weight", (wide,)
    yield from _with_bias("mm.0", (merged, merged))
    yield from _with_bias("mm.2", (merged, text))


def _patches(sizes: Sizes) -> _Shapes:
    patch = sizes["patch_size"]
    yield "v.patch_embd.weight", (patch, patch, _COLOURS, sizes["embedding"])


def _layers(sizes: Sizes, *, has_bias: bool, has_gate: bool, has_norm_bias: bool) -> _Shapes:
    wide, inner = sizes["embedding"], sizes["feed_forward"]
    matrices = [(f"attn_{part}", (wide, wide)) for part in ("q", "k", "v", "out")]
    matrices += [("ffn_gate", (wide, inner))] if has_gate else []
    matrices += [("ffn_up", (wide, inner)), ("ffn_down", (inner, wide))]
    for layer in range(sizes["layers"]):
        at = f"v.blk.{layer}"
        for part, shape in matrices:
            yield f"{at}.{part}.weight", shape
            if has_bias:
                yield f"{at}.{part}.bias", shape[1:]
        for part in ("ln1", "ln2"):
            yield f"{at}.{part}.weight", (wide,)
            if has_norm_bias:
                yield f"{at}.{part}.bias", (wide,)


def _with_bias(name: str, shape: tuple[int, ...]) -> _Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[-1:]


#: by the word of an entry: clip.cpp's name of the projector, and its tensors
FAMILIES: Mapping[str, tuple[str, Callable[[Sizes], _Shapes]]] = {
    "gemma3": ("gemma3", _gemma3),
    "pixtral": ("pixtral", _pixtral),
    "qwen2.5vl": ("qwen2.5vl_merger", _qwen25vl),
}
