"""Buffers of graphs that are known: two sizes in bytes, whichever graph and sides they are of."""

from __future__ import annotations

from vramplan.codec import Json, whole
from vramplan.known_results import KnownResults


def _write(sizes: tuple[int, int]) -> Json:
    return list(sizes)


def _read(raw: Json) -> tuple[int, int] | None:
    if not isinstance(raw, list) or len(raw) != 2:
        return None
    try:
        return whole(raw[0]), whole(raw[1])
    except ValueError:
        return None


#: a key begins with the identity of what the graph's shapes were read from
GRAPHS = KnownResults[tuple[int, int]]("graph", _write, _read, most=1024)
