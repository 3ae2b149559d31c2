"""Modules of the standard library, loaded without what only a corner of them asks for.

`argparse` loads `gettext` to have its words translated, and `pathlib`, until Python 3.13,
`urllib.parse` for `Path.as_uri`: together a twentieth of a short command's time. What they take
from there are functions, and those are loaded when one is called. `json` compiles six patterns, of
which none is used where its scanner and encoder are C's, but for one that skips spaces.
"""

from __future__ import annotations

import re
import sys
from _thread import _count as count_threads

_Module = type(sys)


def load(name: str, corner: str) -> None:
    """Import the module `name`, which takes functions of the module `corner`, without that one.

    Nothing is done where either is loaded already, nor beside other threads, which could get hold
    of what stands in for the corner.
    """
    if name in sys.modules or corner in sys.modules or count_threads():
        return
    stand_in = _Module(corner)

    def late(function: str) -> object:
        if function.startswith("__"):  # what the import system asks of a module
            raise AttributeError(function)

        def call(*args: object, **options: object) -> object:
            __import__(corner)
            found: object = getattr(sys.modules[corner], function)(*args, **options)
            return found

        return call

    stand_in.__dict__["__getattr__"] = late
    sys.modules[corner] = stand_in
    try:
        __import__(name)
    finally:
        del sys.modules[corner]


#: what is taken of a pattern before it is of use
_METHODS = (
    "match",
    "fullmatch",
    "search",
    "sub",
    "subn",
    "split",
    "findall",
    "finditer",
)


class _LatePattern:
    """A compiled pattern, compiled when one of its methods is called."""

    __slots__ = ("_flags", "_pattern")

    def __init__(self, pattern: str | bytes, flags: int = 0) -> None:
        self._pattern = pattern
        self._flags = flags

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in _METHODS:
            value: object = getattr(re.compile(self._pattern, self._flags), name)
            return value

        def call(*args: object, **options: object) -> object:
            compiled = re.compile(self._pattern, self._flags)  # known after the first time
            found: object = getattr(compiled, name)(*args, **options)
            return found

        return call


def load_json() -> None:
    """Import `json`, whose patterns are compiled when they are used.

    Nothing is done where it is loaded already, nor beside other threads, as in `load`.
    """
    if "json" in sys.modules or count_threads():
        return
    stand_in = _Module("re")
    stand_in.__dict__.update(re.__dict__, compile=_LatePattern)
    sys.modules["re"] = stand_in
    try:
        __import__("json")
    finally:
        sys.modules["re"] = re
