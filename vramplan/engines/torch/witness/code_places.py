"""Where in a program something happened: the user's own line, and the modules it was inside."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType

#: file, line, function
Place = tuple[str, int, str]

_DEEPEST = 400


def _library_folders() -> tuple[str, ...]:
    """Return the folders whose code is nobody's own: Python's, installed packages', ours."""
    found = {sysconfig.get_paths().get(name, "") for name in ("stdlib", "purelib", "platlib")}
    found.add(str(Path(__file__).resolve().parents[3]))
    return tuple(f"{folder}/" for folder in sorted(found) if folder)


_LIBRARIES = _library_folders()
_INSTALLED = ("/site-packages/", "/dist-packages/")


def is_own(file: str) -> bool:
    """True for a file of the user's: no library's, and not Python's own."""
    if file.startswith("<") and file not in ("<stdin>", "<string>"):
        return False
    if any(part in file for part in _INSTALLED):
        return False
    compiled = os.environ.get("TORCHINDUCTOR_CACHE_DIR")  # what torch.compile has written
    if compiled and file.startswith(compiled):
        return False
    return not file.startswith(_LIBRARIES)


def own_place(places: Iterable[Place]) -> Place | None:
    """Return the innermost place in the user's code, else the innermost outside of torch.

    `places` go from the inside out.
    """
    first = None
    for place in places:
        if is_own(place[0]):
            return place
        if first is None and "/torch/" not in place[0] and not place[0].startswith("<"):
            first = place
    return first


def places_of(frame: FrameType | None) -> Iterator[Place]:
    """Yield the places of a stack of calls, from the inside out.

    No variable of a frame is looked at: Python would keep what it refers to alive.
    """
    for _ in range(_DEEPEST):
        if frame is None:
            return
        code = frame.f_code
        yield code.co_filename, frame.f_lineno, code.co_qualname
        frame = frame.f_back


def calling_places() -> list[Place]:
    """Return the places that led to the caller's caller.

    In a thread that no Python code of the user's has led to (autograd's), those of the main thread,
    which waits for it.
    """
    found = list(places_of(sys._getframe(2)))
    if not any(is_own(place[0]) for place in found):
        main = sys._current_frames().get(threading.main_thread().ident or 0)
        found += list(places_of(main))
    return found


def modules_inside(places: Sequence[Place]) -> list[str]:
    """Return the classes of the modules that were at work, from the outside in."""
    found: list[str] = []
    for _, _, function in reversed(places):
        name, _, method = function.rpartition(".")
        if method == "forward" and name and found[-1:] != [name]:
            found.append(name.rpartition(".")[2])
    return found
