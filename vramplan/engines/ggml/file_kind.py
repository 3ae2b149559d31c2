"""What a GGUF file is, where it is no language model: told by its header.

Source: ggml-org/ggml, docs/gguf.md (general.type, adapter.type); ggml-org/llama.cpp,
tools/imatrix and common/common.cpp (control vectors); city96/ComfyUI-GGUF, loader.py (the
architectures of image and video models); leejet/stable-diffusion.cpp (whose files name none, and
are told by their tensors); mmwillet/TTS.cpp, include/common.h (SUPPORTED_ARCHITECTURES).
"""

from __future__ import annotations

from vramplan.errors import SourceError
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile

_DIFFUSION = frozenset({
    "aura", "chroma", "cosmos", "flux", "flux2", "hidream", "hunyuan_video", "hyvid", "hyvideo",
    "kandinsky5", "ltx2", "ltxv", "lumina2", "motif_video", "pixart", "qwen_image", "sd1", "sd2",
    "sd3", "sdxl", "wan", "z_image",
})  # fmt: skip
#: what tensors of denoisers begin with, in the names that image programs use
_DENOISER = (
    "model.diffusion_model.", "double_blocks.", "single_blocks.", "joint_blocks.", "input_blocks.",
    "transformer_blocks.", "down_blocks.", "patch_embedding.",
)  # fmt: skip
_AUTOENCODER = ("first_stage_model.", "decoder.conv_in.", "encoder.conv_in.")
_SOUND = frozenset({"dia", "kokoro", "orpheus", "parler-tts", "wavtokenizer-dec", "whisper"})
_IMAGES = (
    "vramplan catalog list names pipelines of images; no denoiser of theirs has its parameters"
)


def refuse_other_kinds(file: GgufFile) -> None:
    """Raise SourceError for a file that is no language model, named for what its header says.

    DenoiserError for one of images or video, which another engine may know.
    """
    found = _kind(file)
    if found is not None:
        what, hint = found
        message = f"{file.path}: {what}, not a language model"
        if hint == _IMAGES:
            from vramplan.sources.denoiser_file import DenoiserError

            raise DenoiserError(message, hint=hint, file=file)
        raise SourceError(message, hint=hint)


def kind_in_words(file: GgufFile) -> str:
    """Return what a file is, by its header."""
    found = _kind(file)
    if found is not None:
        return found[0]
    title = file.text("general.name")[:60].strip()
    return f"{file.architecture} model" + (f" {title}" if title else "")


def is_language_model(file: GgufFile) -> bool:
    """Return whether a file is, by its header, what an engine runs."""
    return _kind(file) is None


def _kind(file: GgufFile) -> tuple[str, str] | None:
    name, kind = file.architecture, file.text("general.type").lower()
    if kind == "imatrix" or "imatrix.chunk_count" in file.metadata:
        return "an importance matrix (imatrix)", "llama-quantize reads it; give the model"
    if kind == "adapter" or file.text("adapter.type"):
        which = file.text("adapter.type", "lora").lower()
        called = "a LoRA adapter" if which == "lora" else f"an adapter ({which[:40]})"
        return called, "give the model it was made for, and this file with --set lora=FILE"
    if name == "controlvector" or any(key.startswith("controlvector.") for key in file.metadata):
        return "a control vector", "give the model, and this file with --set control_vector=FILE"
    if name in _DIFFUSION:
        return f"a diffusion model ({name})", _IMAGES
    if name == "clip" or kind in {"mmproj", "projector", "clip-vision"}:
        return "a projector", "give the model first, and the projector with --mmproj"
    if kind == "vocab" or (not file.tensors and "tokenizer.ggml.model" in file.metadata):
        return "a vocabulary without weights", "give a file with tensors"
    if name in _SOUND:
        return f"a model of sound ({name})", "speech is not planned for"
    if f"{name}.block_count" in file.metadata:
        return None
    said = f"({name})" if name else "(by its tensors)"
    for what, starts in (
        ("a diffusion model", _DENOISER),
        ("an autoencoder of images", _AUTOENCODER),
    ):
        if any(tensor.name.startswith(starts) for tensor in file.tensors):
            return f"{what} {said}", _IMAGES
    if not name:
        return "a file that names no architecture", "name a .gguf of a language model"
    hint = f"a language model has a key {name}.block_count; another program may run this"
    return f"a file of {name}", hint
