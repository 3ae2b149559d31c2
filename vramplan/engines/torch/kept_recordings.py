"""Where recordings are kept: for as long as this process runs, and in the user's cache for longer.

A recording is a tape by a key of everything that it depends on.
"""

from __future__ import annotations

import binascii
import zlib
from functools import lru_cache
from pathlib import Path

from vramplan import user_cache
from vramplan.codec import Json
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

#: recordings of one process; a sweep over sizes makes one for each
_MOST = 512
#: what the user's cache calls one
_KIND = "recording"
#: where the code is that makes one
_RECORDER = "engines/torch/record"
#: characters of one of the texts that a recording is kept as there, and of a whole recording
_PIECE, _LARGEST = 1 << 16, 64 << 20


@lru_cache(maxsize=1)
def _folder() -> TemporaryDirectory[str]:
    from tempfile import TemporaryDirectory  # long to load

    return TemporaryDirectory(prefix="vramplan-recordings-")


def folder() -> Path:
    """Return the folder in whose ``tapes`` the recordings lie, as a catalogue's do."""
    tapes = Path(_folder().name) / "tapes"
    tapes.mkdir(exist_ok=True)
    return tapes.parent


def find(key: str) -> bool:
    """Return whether there is a recording of a key, in this process or from an earlier one."""
    if (folder() / "tapes" / f"{key}.json").is_file():
        return True
    cache = user_cache.in_use()
    text = None if cache is None else _unpacked(cache.find(_KIND, _named(key)))
    if text is None:
        return False
    _put(key, text)
    return True


def keep(key: str, text: str) -> None:
    """Keep a recording, in the user's cache too; the oldest goes where there are many."""
    _put(key, text)
    if (cache := user_cache.in_use()) is not None:
        cache.keep(_KIND, _named(key), _packed(text))


def _named(key: str) -> str:
    """Return the key in the user's cache: what records is not in the stamp of all our code."""
    return f"{key} {user_cache.code_stamp(_RECORDER)}"


def _put(key: str, text: str) -> None:
    tapes = folder() / "tapes"
    known = sorted(tapes.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for old in known[: max(0, len(known) - _MOST + 1)]:
        old.unlink()
    part = tapes / f"{key}.part"
    part.write_text(text, encoding="utf-8")
    part.replace(tapes / f"{key}.json")


def _packed(text: str) -> Json:
    """Return a recording as the cache takes it: compressed, in texts of bounded length."""
    told = binascii.b2a_base64(zlib.compress(text.encode()), newline=False).decode()
    return [told[start : start + _PIECE] for start in range(0, len(told), _PIECE)]


def _unpacked(kept: Json) -> str | None:
    """Return the recording that the cache has; None where it is none."""
    if not isinstance(kept, list) or not kept:
        return None
    pieces = [piece for piece in kept if isinstance(piece, str)]
    try:
        packed = binascii.a2b_base64("".join(pieces))
        reader = zlib.decompressobj()
        text = reader.decompress(packed, _LARGEST).decode()
    except (ValueError, zlib.error):
        return None
    return text if reader.eof else None
