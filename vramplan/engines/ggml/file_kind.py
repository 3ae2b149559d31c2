"""What a GGUF file is, where it is no language model: told by its header.

Source: ggml-org/ggml, docs/gguf.md (general.type, adapter.type); ggml-org/llama.cpp,
tools/imatrix and common/common.cpp (control vectors); city96/ComfyUI-GGUF, loader.py (the
architectures of image and video models).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vramplan.errors import SourceError

if TYPE_CHECKING:
    from vramplan.sources.gguf import GgufFile

_DIFFUSION = frozenset({
    "aura", "chroma", "cosmos", "flux", "flux2", "hidream", "hunyuan_video", "hyvid", "kandinsky5",
    "ltxv", "lumina2", "pixart", "qwen_image", "sd1", "sd2", "sd3", "sdxl", "wan", "z_image",
})  # fmt: skip
_SOUND = frozenset({"wavtokenizer-dec", "whisper"})
_BESIDE = "give the model first; what stands beside it has options of its own"


def refuse_other_kinds(file: GgufFile) -> None:
    """Raise SourceError for a file that is no language model, named for what its header says."""
    found = _kind(file)
    if found is not None:
        what, hint = found
        raise SourceError(f"{file.path}: {what}, not a language model", hint=hint)


def _kind(file: GgufFile) -> tuple[str, str] | None:
    name, kind = file.architecture, file.text("general.type").lower()
    if kind == "imatrix" or "imatrix.chunk_count" in file.metadata:
        return "an importance matrix (imatrix)", "llama-quantize reads it; give the model"
    if kind == "adapter" or file.text("adapter.type"):
        which = file.text("adapter.type", "lora").lower()
        called = "a LoRA adapter" if which == "lora" else f"an adapter ({which[:40]})"
        return called, _BESIDE
    if name == "controlvector" or any(key.startswith("controlvector.") for key in file.metadata):
        return "a control vector", _BESIDE
    if name in _DIFFUSION:
        hint = "vramplan catalog list names pipelines of images; a GGUF of one is not read"
        return f"a diffusion model ({name})", hint
    if name == "clip" or kind in {"mmproj", "projector"}:
        return "a projector", "give the model first, and the projector with --mmproj"
    if kind == "vocab" or (not file.tensors and "tokenizer.ggml.model" in file.metadata):
        return "a vocabulary without weights", "give a file with tensors"
    if name in _SOUND:
        return f"a model of sound ({name})", "speech is not planned for"
    if not name:
        return "a file that names no architecture", "name a .gguf of a language model"
    return None
