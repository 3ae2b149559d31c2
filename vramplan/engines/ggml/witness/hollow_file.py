"""Model files for the engine to look at where there is a header alone, as of a file on a hub.

The engine needs no more than the header for a plan: a file is written that has the header's keys
and tensors, and a hole where the data would be. It has no words, only their number.
Format: ggml-org/ggml, docs/gguf.md, version 3.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.errors import MeasurementError
from vramplan.sources.block_sizes import TYPES

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile, Value

_ALIGNMENT = 32
_NUMBERS = {name: number for number, name in TYPES.items()}
_U32, _I32, _F32, _BOOL, _TEXT, _LIST, _U64, _I64, _F64 = range(4, 13)
_FORMATS = {
    _U32: "<I", _I32: "<i", _F32: "<f", _BOOL: "<?", _U64: "<Q", _I64: "<q", _F64: "<d"
}  # fmt: skip
_LARGEST_F32 = 3.4e38
_WORDS = "tokenizer.ggml.tokens"
#: of a tokenizer only this says something of a model's tensors; parts are one file here
_KEPT_OF_WORDS = "tokenizer.ggml.token_type_count"
_LEFT_OUT = ("tokenizer.", "split.", "general.alignment")
#: lists of which the engine takes no narrower numbers (llama.cpp, src/models/qwen4exp.cpp)
_WIDE = (".ple.layer_multipliers", ".ple.head_offsets", ".ple.head_vocab_sizes")


@contextmanager
def file_of(header: GgufFile) -> Iterator[Path]:
    """Yield the file of `header`, or one as hollow as said above, which is removed behind it.

    What is raised of the latter names the former. Raises MeasurementError where it is not written.
    """
    path = Path(header.path)
    if path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vramplan-") as folder:
        hollow = Path(folder) / "header.gguf"
        try:
            write(hollow, header)
        except OSError as problem:
            message = f"{header.path}: no file for the engine to look at: {problem.strerror}"
            raise MeasurementError(message) from None
        try:
            yield hollow
        except MeasurementError as problem:
            said = str(problem).replace(str(hollow), header.path)
            raise type(problem)(said, hint=problem.hint) from None


def write(path: Path, header: GgufFile) -> None:
    """Write a file with the keys and tensors of `header`, and a hole for their data."""
    entries = list(_entries(header))
    tensors, total = bytearray(), 0
    for tensor in header.tensors:
        tensors += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        tensors += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        tensors += struct.pack("<IQ", _NUMBERS[tensor.type], total)
        total += -(-tensor.size_bytes // _ALIGNMENT) * _ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, len(header.tensors), len(entries))
    with path.open("wb") as file:
        file.write(head + b"".join(entries) + tensors)
        file.truncate(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT + total)


def _entries(header: GgufFile) -> Iterator[bytes]:
    for key, value in header.metadata.items():
        if key == _KEPT_OF_WORDS or not key.startswith(_LEFT_OUT):
            yield _entry(key, value)
    words = header.lengths.get(_WORDS)
    size = f"{header.architecture}.vocab_size"
    if words is not None:
        yield _entry("tokenizer.ggml.model", "no_vocab")
        if size not in header.metadata:
            yield _entry(size, words)


def _entry(key: str, value: Value) -> bytes:
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", _TEXT) + _text(value)
    if not isinstance(value, tuple):
        kind = _kind((value,))
        return _text(key) + struct.pack("<I", kind) + struct.pack(_FORMATS[kind], value)
    kind = _U64 if key.endswith(_WIDE) and min(value, default=0) >= 0 else _kind(value)
    packed = b"".join(struct.pack(_FORMATS[kind], one) for one in value)
    return _text(key) + struct.pack("<IIQ", _LIST, kind, len(value)) + packed


def _kind(values: tuple[int | float | bool, ...]) -> int:
    """Return the type that the engine expects of such numbers, a wider one where they need it."""
    if values and all(isinstance(one, bool) for one in values):
        return _BOOL
    if any(isinstance(one, float) for one in values):
        return _F64 if any(_LARGEST_F32 < abs(one) < inf for one in values) else _F32
    least, most = min(values, default=0), max(values, default=0)
    if least >= 0:
        return _U32 if most < 1 << 32 else _U64
    return _I32 if least >= -1 << 31 and most < 1 << 31 else _I64


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", errors="replace")
    return struct.pack("<Q", len(encoded)) + encoded
