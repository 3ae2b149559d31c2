"""Our own modules, found and read with fewer questions: a command loads some hundred and fifty.

Python asks every finder that it has for a module, looks for each kind of file that it might be, and
makes several objects on the way: half of what a small module takes. Here its byte code is opened
where it would be. It is taken on the terms that Python has for it: made by this version, from a
source of this time and size. Everything else is left to Python, which then compiles and keeps it as
ever.
"""

from __future__ import annotations

import sys
from _frozen_importlib import BuiltinImporter, ModuleSpec  # `importlib.machinery` is long to load
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader
from _imp import _fix_co_filename as name_file_of  # type: ignore[attr-defined]  # no stub
from marshal import loads
from os import stat

from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

_OURS = "vramplan."
#: what byte code begins with that goes by its source's time and size: those follow, 4 bytes each
_BEGINS = MAGIC_NUMBER + bytes(4)
_HEAD_BYTES = 16


class _Loader(SourceFileLoader):
    """Python's own loader, with the byte code at hand."""

    def __init__(self, name: str, path: str, raw: bytes) -> None:
        super().__init__(name, path)
        self._raw: bytes | None = raw

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the module's code; asked once more, as Python finds it."""
        raw, self._raw = self._raw, None
        if raw is None:
            return super().get_code(fullname)
        code: CodeType = loads(memoryview(raw)[_HEAD_BYTES:])  # noqa: S302  # as Python does
        name_file_of(code, self.path)  # compiled elsewhere, where a folder was moved or copied
        return code


class _Finder:
    """Finds modules of ours whose byte code is there and up to date."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what is known of a module; None where Python has to look for it itself."""
        if not name.startswith(_OURS) or not path:
            return None
        folder, own = path[0], name.rpartition(".")[2]
        found = _read(name, folder, own)
        if found is None:
            found = _read(name, f"{folder}/{own}", "__init__")
            if found is not None:
                found.submodule_search_locations = [f"{folder}/{own}"]
        return found


def _read(name: str, folder: str, file: str) -> ModuleSpec | None:
    """Return what is known of a module, with its byte code; None where that does not hold."""
    source = f"{folder}/{file}.py"
    compiled = f"{folder}/__pycache__/{file}.{sys.implementation.cache_tag}.pyc"
    try:
        with open(compiled, "rb", 0) as opened:  # noqa: PTH123  # as text: quicker
            raw = opened.read()
        state = stat(source)  # noqa: PTH116  # as above
    except OSError:
        return None
    of_source = (int(state.st_mtime) & 0xFFFFFFFF, state.st_size & 0xFFFFFFFF)
    if raw[:_HEAD_BYTES] != _BEGINS + b"".join(one.to_bytes(4, "little") for one in of_source):
        return None
    spec = ModuleSpec(name, _Loader(name, source, raw), origin=source)
    spec.has_location = True
    spec.cached = compiled
    return spec


def install() -> None:
    """Find our modules so from now on, in this process, unless Python is told another way.

    Whoever comes before Python's own finders, such as a tool that changes what it loads, still
    does.
    """
    if sys.flags.optimize or sys.pycache_prefix:
        return  # byte code is of another kind, or lies elsewhere
    if BuiltinImporter in sys.meta_path:
        sys.meta_path.insert(sys.meta_path.index(BuiltinImporter), _Finder)
