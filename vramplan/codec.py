"""JSON that a stranger may have written: its bytes, depth, numbers, texts and parsed size bounded.

What JSON takes once it is read has little to do with its length: 58 KB of a compressed file are
64 MB of text, and 64 MB of ``[{},{},…`` are more than a gigabyte of objects. So a text is held to a
bound on what its values would take *before* they are made, reckoned from its signs: no value is
without a sign before it. Within these bounds a file is read in some seconds at most.

Beyond what RFC 8259 asks, these are refused: a name twice in one object, `NaN` and `Infinity`,
numbers that no 64 bits hold, and halves of characters (lone surrogates), which nothing can print.
"""

from __future__ import annotations

import json
import math
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from vramplan.errors import VramplanError
from vramplan.opened_file import open_file
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import Any, NoReturn, TypeAlias

#: what is read is made of these
Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_MIB = 1 << 20

#: bytes that CPython (3.11 to 3.13, 64 bits) takes at most for what each sign begins, with its
#: place in what holds it and the room that growing leaves: an array, an object, a member's entry
#: and name, a value, a text beside its characters. `tests/unit/test_codec.py` holds it to
#: `sys.getsizeof` and to what is really allocated
_COST = {"[": 104, "{": 80, ":": 120, ",": 64, '"': 38}
#: digits that Python reads without being told otherwise (its own bound against slow conversion)
_MOST_DIGITS = 4300
_WHOLE = range(-(1 << 63), 1 << 64)
_NO_NUMBER = "a number that no 64 bits hold"
_SURROGATE = "[\ud800-\udfff]"
_SURROGATE_ESCAPE = r"\\u[dD][89a-fA-F]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is read at most: of the text, compressed or not, and of the values it stands for."""

    text_bytes: int = 16 * _MIB
    #: about what all values take in memory, the text beside them included
    parsed_bytes: int = 96 * _MIB
    depth: int = 64
    #: characters of one text: nvidia-smi lists every process
    characters: int = 200_000


class JsonError(VramplanError):
    """What is not JSON within its limits, in one line: the place, and what is wrong there.

    `is_damaged` where the text itself is wrong; not where it cannot be had, or is too large.
    `is_missing` where there is no such file.
    """

    def __init__(
        self, place: str, reason: str, *, is_damaged: bool = True, is_missing: bool = False
    ) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.is_damaged = is_damaged
        self.is_missing = is_missing


def read_json(path: Path, limits: Limits) -> Json:
    """Return what a file says; one whose name ends in ``.gz`` is decompressed first.

    Raises JsonError where it cannot be read, or is not JSON within `limits`.
    """
    try:
        with open_file(path) as file:
            data = file.read(limits.text_bytes + 1)
    except OSError as problem:
        reason = f"cannot be read: {problem.strerror or problem}"
        is_missing = isinstance(problem, FileNotFoundError)
        raise JsonError(str(path), reason, is_damaged=False, is_missing=is_missing) from None
    _check_length(data, str(path), limits)
    if path.suffix == ".gz":
        data = _decompress(data, str(path), limits)
    return parse_json(data, str(path), limits)


def read_object(path: Path, limits: Limits) -> dict[str, Json]:
    """Return the object in a file; raises JsonError as `read_json` does, and for another value."""
    found = read_json(path, limits)
    if not isinstance(found, dict):
        raise JsonError(str(path), "not an object of JSON")
    return found


def parse_json(data: bytes | str, place: str, limits: Limits) -> Json:
    """Return what a text says; `place` names it in errors. Raises JsonError for anything else."""
    _check_length(data, place, limits)
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
        size = reckon_parsed_bytes(text, limits.characters)
        if size > limits.parsed_bytes:
            most = f"{limits.parsed_bytes // _MIB} MiB"
            reason = f"too many values: about {size // _MIB} MiB when read, at most {most} are"
            raise JsonError(place, reason, is_damaged=False)
        found: Json = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_short_int if _has_no_bound() else None,
        )
        has_surrogates = "\\u" in text and re.search(_SURROGATE_ESCAPE, text) is not None
    except json.JSONDecodeError as problem:
        where = f"{place}:{problem.lineno}:{problem.colno}"
        raise JsonError(where, f"not JSON: {problem.msg}") from None
    except RecursionError:
        raise JsonError(place, "not JSON: nested too deeply") from None
    except UnicodeDecodeError as problem:
        raise JsonError(place, f"not JSON: not text in UTF-8 (byte {problem.start})") from None
    except ValueError as problem:  # a constant, a name twice, Python's own bound on digits
        said = str(problem).split(";")[0]
        raise JsonError(place, f"not JSON: {said}") from None
    fault = _find_fault(found, limits, has_surrogates=has_surrogates)
    if fault is not None:
        raise JsonError(f"{place}: {fault[0]}", fault[1])
    return found


def reckon_parsed_bytes(text: str, characters: int) -> int:
    """Return what `text` and all its values take in memory at most, without making them.

    `characters` bounds a text among the values, which together are no longer than `text` itself.
    """
    size = sys.getsizeof(text)
    words = min(size, text.count('"') // 2 * 4 * characters)
    return 100 + size + words + sum(text.count(sign) * cost for sign, cost in _COST.items())


def _check_length(data: bytes | str, place: str, limits: Limits) -> None:
    if len(data) > limits.text_bytes:
        most = limits.text_bytes
        said = f"{most // _MIB} MiB" if most >= _MIB else f"{most // 1024} KiB"
        raise JsonError(place, f"larger than {said}", is_damaged=False)


def _decompress(packed: bytes, place: str, limits: Limits) -> bytes:
    """Return what one gzip member holds, no more of it than is read."""
    member = zlib.decompressobj(wbits=31)
    try:
        data = member.decompress(packed, limits.text_bytes + 1)
    except zlib.error:
        raise JsonError(place, "its compressed data is damaged") from None
    _check_length(data, place, limits)
    if not member.eof or member.unused_data.strip(b"\0"):
        raise JsonError(place, "its compressed data is damaged or cut short")
    return data


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1) if len(names) < 1000 else ""
        raise ValueError(f"a name stands twice in one object {twice[:60]!r}")
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def _has_no_bound() -> bool:
    """True where somebody has taken away Python's bound on the digits of a number."""
    return not 0 < sys.get_int_max_str_digits() <= _MOST_DIGITS


def _short_int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _find_fault(root: Json, limits: Limits, *, has_surrogates: bool) -> tuple[str, str] | None:
    """Return place and fault of what is too deep, too long, or no number that a machine holds.

    Level by level, each in a few sweeps in C; a path is searched only where something is wrong.
    """
    level: list[Json] = [root]
    for _ in range(limits.depth + 1):
        for value, fault in _faults(level, limits, has_surrogates=has_surrogates):
            return _path_to(root, value), fault
        level = _below(level)
        if not level:
            return None
    return "the text", f"nested deeper than {limits.depth}"


def _faults(
    level: Sequence[Json], limits: Limits, *, has_surrogates: bool
) -> Iterator[tuple[Json, str]]:
    """Yield the values of one level that are out of bounds, and why; of each kind one at most."""
    kinds = set(map(type, level))
    if int in kinds:
        numbers = [one for one in level if type(one) is int]
        yield from ((one, _NO_NUMBER) for one in (min(numbers), max(numbers)) if one not in _WHOLE)
    if float in kinds:
        fractions = (one for one in level if type(one) is float)
        yield from ((one, _NO_NUMBER) for one in fractions if not math.isfinite(one))
    if str in kinds:
        words = [one for one in level if type(one) is str]
        longest = max(words, key=len)
        if len(longest) > limits.characters:
            yield longest, f"a text of more than {limits.characters:,} characters"
        halves = (one for one in words if re.search(_SURROGATE, one)) if has_surrogates else ()
        yield from ((one, "a text with half a character (a lone surrogate)") for one in halves)


def _below(level: Sequence[Json]) -> list[Json]:
    """Return what stands in a level's arrays and objects, the names of members among it."""
    objects = [one for one in level if type(one) is dict]
    return [
        *chain.from_iterable(one for one in level if type(one) is list),
        *chain.from_iterable(objects),
        *chain.from_iterable(one.values() for one in objects),
    ]


def _path_to(root: Json, wanted: Json) -> str:
    """Return where a value stands, as ``runs[3].name``."""
    waiting: list[tuple[str, Json]] = [("", root)]
    while waiting:
        path, one = waiting.pop()
        if one is wanted:
            return path.removeprefix(".") or "the text"
        if isinstance(one, dict):
            if any(name is wanted for name in one):
                return f"{path}.".removeprefix(".") + "a name"
            waiting += [(f"{path}.{name[:40]}", part) for name, part in one.items()]
        elif isinstance(one, list):
            waiting += [(f"{path}[{number}]", part) for number, part in enumerate(one)]
    return "the text"


# -------------------------------------------------------------------- the kinds of plain values
def whole(found: object, most: int = (1 << 62) - 1) -> int:
    """Return a whole number from 0 to `most`; raises ValueError for anything else."""
    if type(found) is not int or not 0 <= found <= most:
        raise ValueError(f"not a size or an address: {found!r}"[:80])
    return found


def rows(found: object, most: int) -> list[Any]:
    """Return a list of at most `most` values; raises ValueError for anything else."""
    if not isinstance(found, list) or len(found) > most:
        raise ValueError(f"not a list of at most {most:,}")
    return found


def text_of(found: object, longest: int) -> str:
    """Return a text of at most `longest` characters; raises ValueError for anything else."""
    if not isinstance(found, str) or len(found) > longest:
        raise ValueError(f"not a text of at most {longest:,} characters")
    return found
