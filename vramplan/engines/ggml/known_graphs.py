"""Buffers of graphs that are known: a size in bytes of each side, whichever those are."""

from __future__ import annotations

from collections.abc import Callable

from vramplan.codec import Json, whole
from vramplan.known_results import KnownResults

#: two sides at least, and no more cards than are planned for, beside the host
_LEAST, _MOST = 2, 17


def _write(sizes: tuple[int, ...]) -> Json:
    return list(sizes)


def _read(raw: Json) -> tuple[int, ...] | None:
    if not isinstance(raw, list) or not _LEAST <= len(raw) <= _MOST:
        return None
    try:
        return tuple(whole(size) for size in raw)
    except ValueError:
        return None


#: a key begins with the identity of what the graph's shapes were read from
GRAPHS = KnownResults[tuple[int, ...]]("graph", _write, _read, most=1024)


def known_sizes(key: str, sides: int, find: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
    """Return the sizes of so many sides for a key: those that are known, or what `find` gives."""
    known = GRAPHS.get(key, find)
    return known if len(known) == sides else find()
