"""What is known already: results of this process, those that ship, and those of earlier runs.

A result has a key, a text that says everything it depends on. It is looked for in this order, and
made where it is nowhere: among those that this process has had, in a file that ships beside what
the result was made from, and in the user's cache, if one is in use.

A file that ships is one object of JSON with a result a line, ``"KEY":RESULT``, in the order of
their bytes: one result is found without reading the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from vramplan import user_cache
from vramplan.codec import Json, JsonError, Limits, parse_json
from vramplan.opened_file import open_file
from vramplan.quick_typing import Generic, TypeVar

Result = TypeVar("Result")

#: results of this process: the oldest of more is forgotten
_MOST = 256
_LIMITS = Limits()
#: read at once: more than a line
_PIECE = 8192


def _nothing() -> str:
    return ""


def _always(_found: object) -> bool:
    return True


class KnownResults(Generic[Result]):
    """Results of one kind; `read` gives None for what `write` cannot have written.

    Between runs those are kept that are worth it: what takes longer to make than to read.
    """

    def __init__(
        self,
        kind: str,
        write: Callable[[Result], Json],
        read: Callable[[Json], Result | None],
        *,
        most: int = _MOST,
        is_worth_keeping: Callable[[Result], bool] = _always,
    ) -> None:
        self.kind = kind
        self.read = read
        self._write = write
        self._most = most
        self._is_worth_keeping = is_worth_keeping
        self._made: dict[tuple[Path | None, str], Result] = {}

    def get(
        self,
        key: str,
        make: Callable[[], Result],
        *,
        shipped: Path | None = None,
        proof: Callable[[], str] = _nothing,
    ) -> Result:
        """Return the result for a key: one that is known, or what `make` gives.

        `shipped` is the file of those that ship. `proof` gives what belongs to the key where
        strangers could have chosen what the rest of it stands for: the user's cache is shared by
        everything that was ever opened. Raises what `make` raises.
        """
        found = self.find(key, shipped=shipped, proof=proof)
        if found is not None:
            return found
        found = make()
        cache = user_cache.in_use()
        if cache is not None and self._is_worth_keeping(found):
            cache.keep(self.kind, f"{key} {proof()}", self._write(found))
        self._remember((shipped, key), found)
        return found

    def find(
        self, key: str, *, shipped: Path | None = None, proof: Callable[[], str] = _nothing
    ) -> Result | None:
        """Return the result for a key as `get` does; None where it is not known."""
        place = (shipped, key)
        if place in self._made:
            return self._made[place]
        found = None if shipped is None else find_shipped(shipped, key, self.read)
        cache = user_cache.in_use()
        if found is None and cache is not None:
            kept = cache.find(self.kind, f"{key} {proof()}")
            found = None if kept is None else self.read(kept)
        if found is not None:
            self._remember(place, found)
        return found

    def _remember(self, place: tuple[Path | None, str], found: Result) -> None:
        self._made[place] = found
        while len(self._made) > self._most:
            del self._made[next(iter(self._made))]  # the oldest

    def forget(self) -> None:
        """Forget the results of this process."""
        self._made.clear()


def find_shipped(path: Path, key: str, read: Callable[[Json], Result | None]) -> Result | None:
    """Return the result that ships for a key; None where none does, or what does is damaged."""
    begins = f"{json.dumps(key)}:".encode()
    line = _line(path, begins)
    if not line:
        return None
    try:  # a comma is at its end, or the last one's brace
        return read(parse_json(line[len(begins) : -1], str(path), _LIMITS))
    except JsonError:
        return None


def has_shipped(path: Path, beginning: str) -> bool:
    """Return whether a result ships whose key has this beginning."""
    return bool(_line(path, json.dumps(beginning)[:-1].encode()))


def shipped_text(results: list[tuple[str, Json]]) -> str:
    """Return the text of a file of results that ship, a line each, in the order of their bytes."""
    lines = sorted(
        f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in results
    )
    return "{" + ",\n".join(lines) + "}\n"


@lru_cache(maxsize=64)
def _line(path: Path, begins: bytes) -> bytes:
    """Return the first line of a file in order that begins so; nothing where none does."""
    try:
        with open_file(path) as file:
            low, high = 0, file.seek(0, os.SEEK_END)
            while high - low > 2 * _PIECE:  # it begins between the two, or at one of them
                middle = (low + high) // 2
                file.seek(middle)
                piece = file.read(_PIECE)
                start = piece.find(b"\n") + 1
                if not start or middle + start >= high:
                    break
                if piece[start : start + len(begins)] < begins:
                    low = middle + start
                else:
                    high = middle + start
            file.seek(low)
            text = file.read(high - low) + file.readline(_LIMITS.text_bytes)
    except OSError:
        return b""
    text = b"\n" + text.removeprefix(b"{")
    at = text.find(b"\n" + begins) + 1
    return text[at : text.find(b"\n", at)] if at else b""
