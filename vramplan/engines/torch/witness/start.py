"""Puts the pretended cards under torch in a program's own process, when torch is imported.

It is imported at the start of every Python below `vramplan run`, and so imports nothing itself.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

#: what looks for a driver or a card
_ASKS_FOR_CARDS = ("torch", "pynvml")


def begin() -> None:
    """Wait for the first import that asks for a card."""
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Loads the stand-ins before torch or pynvml is found, and watches torch once it is there."""

    def __init__(self) -> None:
        self._is_loaded = False

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return torch's specification, with what follows its import; None for all others."""
        if name not in _ASKS_FOR_CARDS or path is not None:
            return None
        if not self._is_loaded:
            self._is_loaded = True
            _load()
        return _watched(target) if name == "torch" else None


def _load() -> None:
    from vramplan.engines.torch.witness import (
        built_libraries,
        loaded_libraries,
        program_record,
        torch_files,
    )
    from vramplan.errors import VramplanError

    try:
        torch = torch_files.find_torch()
        folder = built_libraries.built_for(torch)
    except VramplanError as problem:
        program_record.tell_problem(str(problem), problem.hint)
        sys.exit(2)  # told already; a traceback of this would only look like the program's own
    program_record.CORE.append(loaded_libraries.load_libraries(folder, torch.planner))


def _watched(target: ModuleType | None) -> ModuleSpec | None:
    """Return torch's specification; when torch has been imported, the program is watched."""
    spec = PathFinder.find_spec("torch", None, target)
    if spec is None or spec.loader is None:
        return spec
    load = spec.loader.exec_module

    def load_and_watch(module: ModuleType) -> None:
        load(module)
        from vramplan.engines.torch.witness import program_record, program_watch, real_values

        if os.environ.get("VRAMPLAN_PRETENDED_WATCH") == "off":  # measured by other means
            real_values.Values(program_record.CORE[0]).begin()
        else:
            program_watch.watch()

    spec.loader.exec_module = load_and_watch  # type: ignore[method-assign]  # this one spec's loader
    return spec
