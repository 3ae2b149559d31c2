"""Which functions a shared library wants of others: its dynamic symbols, read from the file.

Format: the System V ABI's chapter on object files, and the Linux Standard Base's on symbol
versions; 64-bit, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import SEEK_END
from pathlib import Path
from typing import BinaryIO

from vramplan.errors import SourceError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_NEED = struct.Struct("<HHIII")
_NEED_VERSION = struct.Struct("<IHHII")

_STRINGS, _DYNAMIC_SYMBOLS = 3, 11
_VERSIONS_NEEDED, _VERSION_OF = 0x6FFFFFFE, 0x6FFFFFFF
_FUNCTION_OR_UNTYPED = (0, 2)  # STT_NOTYPE, STT_FUNC
_OBJECT = (1,)  # STT_OBJECT

#: a library of torch's has some 200,000 symbols; a damaged one may say anything
_LONGEST_TABLE = 256 << 20


def undefined_functions(path: Path) -> dict[str, str]:
    """Return the functions that a library wants of others, each with its version ("" for none).

    Raises SourceError for what is no such library, OSError where it cannot be read.
    """
    return _wanted(path, _FUNCTION_OR_UNTYPED)


def undefined_objects(path: Path) -> dict[str, str]:
    """Return the variables that a library wants of others, as `undefined_functions` does."""
    return _wanted(path, _OBJECT)


def _wanted(path: Path, kinds: tuple[int, ...]) -> dict[str, str]:
    with path.open("rb") as file:
        try:
            return dict(_undefined(file, kinds))
        except (struct.error, UnicodeDecodeError, IndexError, ValueError) as problem:
            raise SourceError(f"{path}: not a shared library for Linux on x86-64") from problem


def _undefined(file: BinaryIO, kinds: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    sections = _sections(file)
    table = _only(sections, _DYNAMIC_SYMBOLS)
    if table is None:
        return
    symbols = _read(file, table)
    names = _read(file, sections[table[6]])
    of = _only(sections, _VERSION_OF)
    numbers = _read(file, of) if of is not None else b""
    versions = _versions(file, sections)
    for place, fields in enumerate(_SYMBOL.iter_unpack(symbols)):
        name_at, info, _, section = fields[:4]
        if section != 0 or not name_at or info & 15 not in kinds:
            continue
        number = struct.unpack_from("<H", numbers, 2 * place)[0] & 0x7FFF if numbers else 0
        yield _text(names, name_at), versions.get(number, "")


def _sections(file: BinaryIO) -> list[tuple[int, ...]]:
    header = _HEADER.unpack(file.read(_HEADER.size))
    magic, at, each, count = header[0], header[6], header[11], header[12]
    if magic[:6] != b"\x7fELF\x02\x01" or each != _SECTION.size:
        raise ValueError("not a 64-bit little-endian object")
    return list(_SECTION.iter_unpack(_part(file, at, each * count)))


def _only(sections: list[tuple[int, ...]], kind: int) -> tuple[int, ...] | None:
    return next((section for section in sections if section[1] == kind), None)


def _read(file: BinaryIO, section: tuple[int, ...]) -> bytes:
    return _part(file, section[4], section[5])


def _part(file: BinaryIO, at: int, size: int) -> bytes:
    if size > _LONGEST_TABLE or at > file.seek(0, SEEK_END) - size:
        raise ValueError("beyond the file's end, or all bounds")
    file.seek(at)
    return file.read(size)


def _versions(file: BinaryIO, sections: list[tuple[int, ...]]) -> dict[int, str]:
    """Return the versions that are wanted of other libraries, by number."""
    section = _only(sections, _VERSIONS_NEEDED)
    if section is None:
        return {}
    needs, names = _read(file, section), _read(file, sections[section[6]])
    found: dict[int, str] = {}
    at = 0
    while True:  # one library after another, the last has no next; so have its versions
        _, _, _, first, next_need = _NEED.unpack_from(needs, at)
        inside = at + first
        while True:
            _, _, number, name_at, next_version = _NEED_VERSION.unpack_from(needs, inside)
            found[number & 0x7FFF] = _text(names, name_at)
            if not next_version:
                break
            inside += next_version
        if not next_need:
            return found
        at += next_need


def _text(names: bytes, at: int) -> str:
    return names[at : names.index(b"\0", at)].decode("ascii")
