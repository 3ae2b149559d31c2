"""Where recordings are kept: for as long as this process runs.

A recording is a tape by a key of everything that it depends on. Whoever keeps recordings for longer
does it here.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

#: recordings of one process; a sweep over sizes makes one for each
_MOST = 512


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vramplan-recordings-")


def folder() -> Path:
    """Return the folder in whose ``tapes`` the recordings lie, as a catalogue's do."""
    tapes = Path(_folder().name) / "tapes"
    tapes.mkdir(exist_ok=True)
    return tapes.parent


def find(key: str) -> bool:
    """Return whether there is a recording of a key."""
    return (folder() / "tapes" / f"{key}.json").is_file()


def keep(key: str, text: str) -> None:
    """Keep a recording; the oldest goes where there are many."""
    tapes = folder() / "tapes"
    known = sorted(tapes.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for old in known[: max(0, len(known) - _MOST + 1)]:
        old.unlink()
    part = tapes / f"{key}.part"
    part.write_text(text, encoding="utf-8")
    part.replace(tapes / f"{key}.json")
