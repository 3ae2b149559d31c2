"""Headers of safetensors files: the names, types and shapes of tensors; never their data.

A file is a length of 8 bytes, so many bytes of JSON, and the tensors' bytes one behind the other.
Source: huggingface/safetensors, README.md ("Format") and safetensors/src/tensor.rs (validate).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from vramplan.codec import Json, JsonError, Limits, parse_json
from vramplan.errors import SourceError
from vramplan.opened_file import open_file
from vramplan.quick_dataclass import dataclass

#: the format's own bound is 100 MB; a header of a tensor is some 120 bytes, and 2,000 tensors many
LONGEST = 16 << 20
_BEGINNING = 512
_DOWNLOAD = "download it again, and look at its size"
_MOST_TENSORS = 100_000
_MOST_DIMENSIONS = 8
_LIMITS = Limits(text_bytes=LONGEST, parsed_bytes=256 << 20, depth=4, characters=10_000)
_METADATA = "__metadata__"

#: bits an element; source: the enum Dtype there
_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor of a file: what it is called, its element type as the file spells it, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsHeader:
    """What the beginning of a file says: its tensors in the order of their bytes, and notes."""

    path: str
    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str]


def read_safetensors(path: Path) -> SafetensorsHeader:
    """Return the header of a file; raises SourceError where it is none, or lies about the file."""
    try:
        with open_file(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            return read_header(file.read, str(path), size)
    except OSError as problem:
        raise SourceError(f"{path}: cannot be read: {problem.strerror or problem}") from None


def _refused(place: str, length: int, head: bytes) -> SourceError:
    """Return the error for a file that is none: what it is by how it begins, or was cut off."""
    from vramplan.sources.other_formats import tell

    if head[8:9] == b"{":
        said = f"{place}: not a whole safetensors file: a header of {length} bytes"
        return SourceError(said, hint=_DOWNLOAD)
    what, hint = tell(head, "")
    if not what:
        return SourceError(f"{place}: not a safetensors file: a header of {length} bytes")
    return SourceError(f"{place}: not a safetensors file, but {what}", hint=hint)


def read_header(
    read: Callable[[int], bytes], place: str, file_bytes: int | None
) -> SafetensorsHeader:
    """Return the header that `read` yields from a file's beginning on.

    `file_bytes` is the whole file's length, None where nobody told. Raises SourceError.
    """
    start = read(8)
    if len(start) < 8:
        said = f"{place}: not a safetensors file: it ends in its first 8 bytes"
        raise SourceError(said, hint=_DOWNLOAD)
    length = int.from_bytes(start, "little")
    if length > LONGEST or (file_bytes is not None and length > file_bytes - 8):
        raise _refused(place, length, start + read(_BEGINNING))
    text = read(length)
    if len(text) < length:
        raise SourceError(f"{place}: not a safetensors file: its header ends early")
    try:
        found = parse_json(text, place, _LIMITS)
    except JsonError as problem:
        raise SourceError(f"{problem}: not a safetensors file") from None
    if not isinstance(found, dict):
        raise SourceError(f"{place}: not a safetensors file: its header is no object")
    notes = found.pop(_METADATA, None)
    if len(found) > _MOST_TENSORS:
        raise SourceError(f"{place}: {len(found)} tensors; at most {_MOST_TENSORS} are read")
    placed = sorted((_read_tensor(name, one, place) for name, one in found.items()), key=_begin)
    room = None if file_bytes is None else file_bytes - 8 - length
    _check_places(placed, place, room)
    return SafetensorsHeader(
        path=place,
        tensors=tuple(tensor for tensor, _ in placed),
        metadata={key: value for key, value in notes.items() if isinstance(value, str)}
        if isinstance(notes, dict)
        else {},
    )


_Placed = tuple[Tensor, tuple[int, int]]


def _begin(placed: _Placed) -> tuple[int, int]:
    return placed[1]


def _read_tensor(name: str, said: Json, place: str) -> _Placed:
    """Return a tensor and where its bytes begin and end."""
    shown = f"{place}: tensor {name[:80]!r}"
    if not isinstance(said, dict):
        raise SourceError(f"{shown}: not described by an object")
    dtype, shape, offsets = said.get("dtype"), said.get("shape"), said.get("data_offsets")
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise SourceError(f"{shown}: no element type that the format knows: {str(dtype)[:40]!r}")
    sizes = _whole_numbers(shape, _MOST_DIMENSIONS)
    ends = _whole_numbers(offsets, 2)
    if sizes is None or ends is None or len(ends) != 2:
        raise SourceError(f"{shown}: no shape or no place among the bytes")
    begin, end = ends
    size, rest = divmod(math.prod(sizes) * bits, 8)
    if rest or end - begin != size:
        raise SourceError(f"{shown}: {list(sizes)} of {dtype} in {end - begin} bytes")
    assert isinstance(dtype, str)
    return Tensor(name=name, dtype=dtype, shape=sizes, size_bytes=size), (begin, end)


def _whole_numbers(said: Json, most: int) -> tuple[int, ...] | None:
    if not isinstance(said, list) or len(said) > most:
        return None
    numbers = tuple(
        one for one in said if isinstance(one, int) and not isinstance(one, bool) and one >= 0
    )
    return numbers if len(numbers) == len(said) else None


def _check_places(placed: list[_Placed], place: str, room: int | None) -> None:
    """Raise SourceError where tensors overlap, leave holes, or do not fill the file."""
    at = 0
    for tensor, (begin, end) in placed:
        if begin != at:
            what = "overlaps another" if begin < at else "leaves a hole before it"
            raise SourceError(f"{place}: tensor {tensor.name[:80]!r} {what}")
        at = end
    if room is not None and at != room:
        raise SourceError(f"{place}: {room} bytes of tensors for {at} in its header")
