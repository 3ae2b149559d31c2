"""The header of a GGUF file: what its model is called, how it is built, and its tensors' shapes.

A header may come from a stranger: every count and length is held against a limit of its own
before anything is made of it, and what has not been read yet is asked for. Long lists (a
vocabulary's words) are skipped, their length kept.
Format: ggml-org/ggml, docs/gguf.md; versions 2 and 3, little-endian.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from vramplan.codec import Json, rows, text_of, whole
from vramplan.errors import SourceError
from vramplan.known_results import KnownResults
from vramplan.opened_file import open_file
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import BinaryIO, NoReturn
from vramplan.sources.block_sizes import BLOCKS, TYPES
from vramplan.sources.gguf_header import GgufFile, GgufTensor, Value

MAGIC = b"GGUF"
#: no model's header is larger; what is longer is not read
LONGEST_HEADER = 40 << 20

#: what is read at first, and then: the headers of models of 32,000 and of 128,000 words fit
_FIRST, _NEXT = 1 << 20, 7 << 20

_MOST_TENSORS = 100_000
_MOST_PARTS = 1_000
_MOST_KEYS = 20_000
#: words that are skipped together
_AT_ONCE = 100
_LONGEST_KEY = 1_000
_LONGEST_TEXT = 1 << 20
#: lists of numbers up to this long are kept: one for each layer, or a few
_LONGEST_KEPT = 4_096
#: words of all lists together; Gemma has 262,000 and half a million ways to join them
_MOST_TEXTS = 2_000_000
_MOST_DIMENSIONS = 4
_LARGEST_SIDE = 1 << 40
_LARGEST_TENSOR = 1 << 44  # bytes; 16 TiB

_NUMBERS = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"),
    4: struct.Struct("<I"), 5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<?"),
    10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d"),
}  # fmt: skip
_TEXT, _LIST = 8, 9
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]


def read_gguf(path: Path) -> GgufFile:
    """Return the header of the file at `path`, with the other parts' where it is split.

    Raises SourceError for a file that is not GGUF, damaged, or not of this kind.
    """
    first = _read_one(path)
    names = part_names(first, path.name)
    for name in names:
        if not path.with_name(name).is_file():
            message = f"{path.with_name(name)}: missing: the model is split into {len(names)} parts"
            raise SourceError(message)
    return join_parts(
        first,
        [first if name == path.name else _read_one(path.with_name(name)) for name in names],
    )


def part_names(header: GgufFile, name: str) -> list[str]:
    """Return the names of all parts, NAME-00001-of-00003.gguf, of the file with this header.

    Of a file that is whole there is none. Raises SourceError for one that is named otherwise.
    """
    count = header.number("split.count", 1)
    if count <= 1:
        return []
    if count > _MOST_PARTS:
        raise SourceError(f"{header.path}: split into {count:,} parts")
    stem, _, _ = name.rpartition("-of-")
    base = stem.rpartition("-")[0]
    if not base:
        message = f"{header.path}: one of {count} parts, not named NAME-00001-of-{count:05}.gguf"
        raise SourceError(message)
    return [f"{base}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]


def join_parts(header: GgufFile, parts: Sequence[GgufFile]) -> GgufFile:
    """Return one header with the tensors of all `parts`; `header` where there are none.

    Raises SourceError where they are not the parts of one model.
    """
    if not parts:
        return header
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    known = [part.identity for part in parts]
    wanted = parts[0].number("split.tensors.count", len(tensors))
    if len(tensors) != wanted or len({tensor.name for tensor in tensors}) != len(tensors):
        message = f"{header.path}: its parts are not of one model"
        raise SourceError(message, hint=f"{wanted:,} tensors are meant, {len(tensors):,} are there")
    return GgufFile(
        path=header.path,
        version=header.version,
        metadata=parts[0].metadata,
        lengths=parts[0].lengths,
        tensors=tensors,
        identity=" ".join(known) if all(known) else "",
    )


def _read_one(path: Path) -> GgufFile:
    try:
        with open_file(path) as file:
            identity = _identity(path, file)
            if not identity:
                return _read_file(path, file)
            found = _KNOWN.get(identity, lambda: _read_file(path, file, identity))
            return replace(found, path=str(path))
    except OSError as problem:
        raise SourceError(f"{path}: cannot be read: {problem.strerror}") from None


def _read_file(path: Path, file: BinaryIO, identity: str = "") -> GgufFile:
    header = read_header(file.read(_FIRST), str(path), lambda size: file.read(max(size, _NEXT)))
    is_same = identity and _identity(path, file) == identity  # nobody has written meanwhile
    return replace(header, identity=identity if is_same else "")


def _identity(path: Path, file: BinaryIO) -> str:
    """Return what no other state of a file has; empty for one that was written just now.

    That may be written again within the same tick of the file system's clock.
    """
    state = os.fstat(file.fileno())
    if time.time_ns() - state.st_mtime_ns < _SETTLED_NS:
        return ""
    where = os.path.abspath(path)  # noqa: PTH100  # a name is enough, links are not followed
    return f"{where} {state.st_dev} {state.st_ino} {state.st_size} {state.st_mtime_ns}"


# ------------------------------------------------------------------ headers of earlier runs
def _to_json(header: GgufFile) -> Json:
    return {
        "version": header.version,
        "metadata": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in header.metadata.items()
        },
        "lengths": dict(header.lengths),
        "tensors": [[one.name, one.type, *one.shape] for one in header.tensors],
        "identity": header.identity,
    }


def _from_json(raw: Json) -> GgufFile | None:
    """Return a header that `_to_json` wrote; None for what it cannot have written."""
    match raw:
        case {
            "version": int(version),
            "metadata": dict(metadata),
            "lengths": dict(lengths),
            "tensors": list(tensors),
            "identity": str(identity),
        }:
            pass
        case _:
            return None
    try:
        found = tuple(_kept_tensor(row) for row in rows(tensors, _MOST_TENSORS))
        if len({one.name for one in found}) != len(found):
            return None
        return GgufFile(
            path="",
            version=version,
            metadata={key: _kept_value(value) for key, value in metadata.items()},
            lengths={key: whole(count, LONGEST_HEADER) for key, count in lengths.items()},
            tensors=found,
            identity=identity,
        )
    except (TypeError, ValueError):
        return None


def _kept_value(value: Json) -> Value:
    if isinstance(value, list):
        numbers = rows(value, _LONGEST_KEPT)
        if all(isinstance(one, (int, float)) for one in numbers):
            return tuple(numbers)
    elif isinstance(value, (str, int, float)):
        return value
    raise TypeError("not a value of a header")


def _kept_tensor(row: Json) -> GgufTensor:
    name, type_name, *shape = rows(row, 2 + _MOST_DIMENSIONS)
    sides = tuple(whole(side, _LARGEST_SIDE) for side in shape)
    return _checked(text_of(name, _LONGEST_KEY), sides, text_of(type_name, 40))


#: what was written within this time is not known by its times yet
_SETTLED_NS = 2_000_000_000
#: words that take longer to go over than the rest of a header to be read as JSON
_MANY_WORDS = 50_000

_KNOWN = KnownResults[GgufFile](
    "header",
    _to_json,
    _from_json,
    most=8,
    is_worth_keeping=lambda header: (
        bool(header.identity) and sum(header.lengths.values()) >= _MANY_WORDS
    ),
)


def read_header(data: bytes, name: str, more: Callable[[int], bytes] | None = None) -> GgufFile:
    """Return the header that `data` begins with; `more(n)` reads on, where there is more.

    Raises SourceError.
    """
    return _Header(data, name, more).read()


@cache
def _short_words() -> re.Pattern[bytes]:
    """Return what matches so many words, each of a length below 64 and as many bytes.

    What was matched is not tried otherwise: each length leaves one way.
    """
    word = b"|".join(
        re.escape(bytes([length])) + rb"\x00\x00\x00\x00\x00\x00\x00.{%d}+" % length
        for length in range(1, 64)
    )
    return re.compile(b"(?:%b){%d}+" % (word, _AT_ONCE), re.DOTALL)


def _checked(name: str, shape: tuple[int, ...], type_name: str) -> GgufTensor:
    """Return a tensor; raises ValueError for a type and a shape that cannot be."""
    tensor = GgufTensor(name=name, shape=shape, type=type_name)
    if (
        type_name not in BLOCKS
        or not 1 <= len(shape) <= _MOST_DIMENSIONS
        or not all(1 <= side <= _LARGEST_SIDE for side in shape)
        or shape[0] % BLOCKS[type_name][0]
        or tensor.size_bytes > _LARGEST_TENSOR
    ):
        raise ValueError(f"tensor {name[:80]!r} of {type_name} has the shape {shape}")
    return tensor


def _refuse_other(data: bytes, name: str) -> NoReturn:
    from vramplan.sources.other_formats import tell

    what, hint = tell(data, name)
    raise SourceError(f"{name}: not a GGUF file" + f", but {what}" * bool(what), hint=hint)


class _Header:
    """A header being read, byte by byte in order."""

    __slots__ = ("_at", "_data", "_end", "_more", "_name", "_texts")

    def __init__(self, data: bytes, name: str, more: Callable[[int], bytes] | None = None) -> None:
        self._data = data
        self._name = name
        self._more = more
        self._at = 0
        self._texts = 0
        self._end = len(data)

    def read(self) -> GgufFile:
        """Return what the header says."""
        while self._end < len(MAGIC) and self._more is not None and (more := self._more(1 << 20)):
            self._data += more
            self._end = len(self._data)
        if self._data[:4] != MAGIC:
            _refuse_other(self._data, self._name)
        self._at = 4
        version = self._u32()
        if version not in (2, 3):
            if int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3):
                raise SourceError(f"{self._name}: big-endian GGUF; only little-endian is read")
            raise SourceError(f"{self._name}: GGUF version {version}; 2 and 3 are read")
        tensors = self._count(_MOST_TENSORS, "tensors")
        keys = self._count(_MOST_KEYS, "keys")
        metadata: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(keys):
            self._entry(metadata, lengths)
        return GgufFile(
            path=self._name,
            version=version,
            metadata=metadata,
            lengths=lengths,
            tensors=self._tensors(tensors),
        )

    def _entry(self, metadata: dict[str, Value], lengths: dict[str, int]) -> None:
        key = self._text(_LONGEST_KEY)
        if key in metadata or key in lengths:
            raise self._wrong(f"the key {key[:80]!r} stands twice")
        kind = self._u32()
        if kind == _LIST:
            self._list(key, metadata, lengths)
        elif kind == _TEXT:
            metadata[key] = self._text(_LONGEST_TEXT)
        else:
            metadata[key] = self._number(kind)

    def _list(self, key: str, metadata: dict[str, Value], lengths: dict[str, int]) -> None:
        kind, count = self._u32(), self._u64()
        if kind == _TEXT:
            self._texts += count
            if self._texts > _MOST_TEXTS:
                raise self._wrong(f"{key[:80]}: a list of {count:,} texts")
            lengths[key] = count
            self._skip_texts(count)
            return
        packed = _NUMBERS.get(kind)
        if packed is None:
            raise self._wrong(f"{key[:80]}: a list of type {kind}")
        size = packed.size * count
        if size > LONGEST_HEADER:
            raise self._wrong(f"{key[:80]}: a list of {count:,} numbers")
        at = self._take(size)
        if count <= _LONGEST_KEPT:
            found = struct.unpack_from(f"<{count}{packed.format[-1:]}", self._data, at)
            metadata[key] = found
        else:
            lengths[key] = count

    def _skip_texts(self, count: int) -> None:
        """Go over a vocabulary's words: the one place where a header is long.

        Short words go by the hundred; where one of a hundred is longer they are looked at singly.
        """
        at, match = self._at, _short_words().match
        for _ in range(count // _AT_ONCE):
            found = match(self._data, at)
            at = self._behind(at, _AT_ONCE) if found is None else found.end()
        self._at = self._behind(at, count % _AT_ONCE)

    def _behind(self, at: int, count: int) -> int:
        """Return the place behind `count` words that begin at `at`."""
        data, unpack, last = self._data, _U64.unpack_from, self._end - 8
        for _ in range(count):
            if at > last:
                self._need(at + 8)
                data, last = self._data, self._end - 8
            at += 8 + unpack(data, at)[0]
        self._need(at)
        return at

    def _tensors(self, count: int) -> tuple[GgufTensor, ...]:
        found = []
        names: set[str] = set()
        for _ in range(count):
            name = self._text(_LONGEST_KEY)
            if name in names:
                raise self._wrong(f"the tensor {name[:80]!r} stands twice")
            names.add(name)
            found.append(self._tensor(name))
        return tuple(found)

    def _tensor(self, name: str) -> GgufTensor:
        dimensions = self._u32()
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise self._wrong(f"tensor {name[:80]!r} has {dimensions} dimensions")
        shape = tuple(self._u64() for _ in range(dimensions))
        if not all(1 <= side <= _LARGEST_SIDE for side in shape):
            raise self._wrong(f"tensor {name[:80]!r} has the shape {shape}")
        number = self._u32()
        self._u64()  # where its data is
        type_name = TYPES.get(number)
        if type_name is None:
            raise self._wrong(f"tensor {name[:80]!r} has the unknown type {number}")
        try:
            return _checked(name, shape, type_name)
        except ValueError as problem:
            raise self._wrong(str(problem)) from None

    def _number(self, kind: int) -> int | float | bool:
        packed = _NUMBERS.get(kind)
        if packed is None:
            raise self._wrong(f"a value of type {kind}")
        found: int | float | bool = packed.unpack_from(self._data, self._take(packed.size))[0]
        return found

    def _text(self, longest: int) -> str:
        size = self._u64()
        if size > longest:
            raise self._wrong(f"a text of {size:,} bytes")
        at = self._take(size)
        return self._data[at : at + size].decode("utf-8", errors="replace")

    def _count(self, most: int, what: str) -> int:
        found = self._u64()
        if found > most:
            raise self._wrong(f"{found:,} {what}")
        return found

    def _u32(self) -> int:
        found: int = _U32.unpack_from(self._data, self._take(4))[0]
        return found

    def _u64(self) -> int:
        found: int = _U64.unpack_from(self._data, self._take(8))[0]
        return found

    def _take(self, size: int) -> int:
        at = self._at
        if at + size > self._end:
            self._need(at + size)
        self._at = at + size
        return at

    def _need(self, end: int) -> None:
        """Read on until there are so many bytes."""
        if end - self._at > LONGEST_HEADER:
            raise self._wrong("a text is longer than any header")
        while end > self._end:
            wanted = min(max(self._end, 1 << 20), LONGEST_HEADER - self._end)
            added = self._more(wanted) if self._more is not None and wanted > 0 else b""
            if not added:
                raise SourceError(f"{self._name}: its header is cut off or damaged")
            self._data += added
            self._end = len(self._data)

    def _wrong(self, what: str) -> SourceError:
        return SourceError(f"{self._name}: not a usable GGUF header: {what}")
