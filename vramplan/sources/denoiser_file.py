"""A denoiser's own file, as image programs share them: one component of a pipeline, its tensors.

Such files are safetensors or GGUF in their authors' layouts (Black Forest Labs', Stability AI's,
Tencent's), with queries, keys and values in one tensor or in three; what the layouts have in common
is how many elements there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from vramplan.errors import SourceError
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:  # a GGUF file needs nothing of the other
    from vramplan.sources.gguf_header import GgufFile
    from vramplan.sources.saved_model import SavedModel

#: what a checkpoint with more than the denoiser in it puts before the denoiser's tensors
_BEFORE = "model.diffusion_model."
#: what ComfyUI puts beside quantised weights: scales, and how they were made
_BESIDE = (
    *(".scale_weight", ".weight_scale", ".weight_scale_2", ".scale_input", ".input_scale"),
    *("scaled_fp8", ".comfy_quant"),
)
#: NVFP4: two numbers in a byte, their scales in two steps
_FOUR_BITS, _PACKED = ".weight_scale_2", "U8"
#: a table of positions that diffusers makes anew, where it is no parameter (SD3, not AuraFlow)
_POSITIONS = ("pos_embed", "pos_embed.pos_embed")


class DenoiserError(SourceError):
    """A GGUF file of images or video, which is no language model: for another engine, with it."""

    def __init__(self, message: str, *, hint: str | None, file: GgufFile) -> None:
        super().__init__(message, hint=hint)
        self.file = file


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserFile:
    """What its header says: elements by tensor type, scales of quantised weights apart.

    `positions` are those of the elements that are a table of positions; `class_name` is told by a
    config, where there is one.
    """

    place: str
    stem: str
    elements: int
    positions: int = 0
    size_bytes: int
    class_name: str = ""
    type_name: str  # that most of the bytes are of, in the file's own words


def from_gguf(file: GgufFile) -> DenoiserFile:
    """Return what a GGUF file holds, as a denoiser."""
    rows = [(one.name, one.elements, one.size_bytes, one.type) for one in file.tensors]
    return _denoiser(file.path, Path(file.path.rpartition(":")[2]).stem, rows)


def from_checkpoint(model: SavedModel) -> DenoiserFile | None:
    """Return what may be a denoiser, of a file or of a folder of one component; None where none."""
    if model.kind not in ("model", "checkpoint"):
        return None
    part = next((one for one in model.parts if one.name in ("unet", "model")), None)
    if part is None:
        return None
    rows = [(one.name, one.elements, one.size_bytes, one.dtype) for one in part.tensors]
    return _denoiser(model.place, Path(model.place).stem, rows, model.class_name)


def _denoiser(
    place: str, stem: str, rows: Iterable[tuple[str, int, int, str]], class_name: str = ""
) -> DenoiserFile:
    every = list(rows)
    own = [row for row in every if row[0].startswith(_BEFORE)] or every
    sizes: Counter[str] = Counter()
    elements = positions = 0
    in_four_bits = {row[0].removesuffix(_FOUR_BITS) for row in own if row[0].endswith(_FOUR_BITS)}
    for name, count, size, kind in own:
        sizes[kind] += size
        if name.endswith(_BESIDE):
            continue
        is_packed = kind == _PACKED and name.removesuffix(".weight") in in_four_bits
        elements += 2 * count if is_packed else count
        positions += count if name.removeprefix(_BEFORE) in _POSITIONS else 0
    return DenoiserFile(
        place=place,
        stem=stem,
        elements=elements,
        positions=positions,
        size_bytes=sizes.total(),
        class_name=class_name,
        type_name=sizes.most_common(1)[0][0] if sizes else "",
    )
