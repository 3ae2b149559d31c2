"""Tapes of ours, every part of which was looked at when they were made: read as far as is asked.

Most of a tape is of other facts than those that are asked for. `format.write_tape` writes a variant
of a routine to a line, so a line is parsed when more of it is wanted than its facts.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from vramplan.engines.torch.tape.contents import Tape, Variant
from vramplan.engines.torch.tape.format import LARGEST_BYTES, read_tape
from vramplan.engines.torch.tape.reader import build_checked_tape
from vramplan.quick_typing import Any

_BEFORE_ROUTINES = ',"routines":{'
_WHEN = '"when":'  # the last of a variant's keys


def read_checked_tape(path: Path) -> Tape:
    """Return the tape in `path`, which is ours; one that is not as we write it is looked at whole.

    Raises TapeError as `read_tape`.
    """
    try:
        if path.stat().st_size <= LARGEST_BYTES:
            head, *lines = _text(path).split("\n")
            raw = json.loads(head.removesuffix(_BEFORE_ROUTINES) + "}")
            return build_checked_tape(raw, dict(_read_routines(lines)))
    except (OSError, ValueError):  # `read_tape` says what is wrong
        pass
    return read_tape(path)


def _text(path: Path) -> str:
    """Return what a tape says; raise ValueError for more than any of ours does."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        unpacked = zlib.decompressobj(wbits=31)
        data = unpacked.decompress(data, LARGEST_BYTES)
        if not unpacked.eof:
            raise ValueError("longer than any tape of ours, or cut short")
    return data.decode()


class _Unread(Variant):
    """A variant in its line of a tape, parsed when more of it is asked for than its facts."""

    def __init__(self, line: str) -> None:
        facts = json.loads(line[line.rindex(_WHEN) + len(_WHEN) : -1])
        self.__dict__["line"] = line
        self.__dict__["when"] = {name: tuple(values) for name, values in facts.items()}

    def __getattr__(self, name: str) -> Any:
        line = self.__dict__.pop("line", None)
        if line is None:
            raise AttributeError(name)
        raw = json.loads(line)
        self.__dict__.update(
            condition=raw["if"],
            indices=tuple(raw["indices"]),
            derived=raw["derived"],
            sizes=tuple(raw["sizes"]),
            outputs=tuple(raw["outputs"]),
            code=raw["code"],
        )
        return getattr(self, name)


def _read_routines(lines: Sequence[str]) -> Iterator[tuple[str, tuple[Variant, ...]]]:
    """Yield the routines in the lines that `write_tape` wrote; raise ValueError for others."""
    variants: list[Variant] = []
    name = ""
    for line in lines:
        if line.endswith(":["):
            name, variants = json.loads(line.removeprefix(",")[:-2]), []
        elif line == "]":
            yield name, tuple(variants)
        elif line.startswith("{"):
            variants.append(_Unread(line.removesuffix(",")))
        elif line not in ("}}", ""):
            raise ValueError("a line that is no part of a tape")
