"""The models in a folder: GGUF files, saved models, checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vramplan.engines import door
from vramplan.sources.saved_model import INDEX, is_saved_folder

_MOST_ENTRIES, _DEEPEST = 10_000, 5
_WEIGHTS = ".safetensors"
#: folders of other people's files
_PASSED_OVER = frozenset({"node_modules", "site-packages", "__pycache__", "venv"})


def models_in(folder: Path) -> Iterator[Path]:
    """Yield the models in a folder and below it: GGUF files, saved models, checkpoints.

    Links to folders are not followed, nor folders that begin with a dot; what cannot be read is
    passed over, and so many entries and levels are gone through.
    """
    yield from (Path(text) for _, text in door.models_below([folder]))
    yield from saved_in(folder)


def saved_in(folder: Path) -> Iterator[Path]:
    """Yield the same without the GGUF files."""
    seen = 0
    for at, folders, names in os.walk(folder):
        place = Path(at)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in _PASSED_OVER
        )
        seen += len(names) + 1
        if seen > _MOST_ENTRIES:
            return
        weights = sorted(name for name in names if name.lower().endswith(_WEIGHTS))
        if (weights or INDEX in names) and is_saved_folder(place):
            folders.clear()  # its parts are no models of their own
            yield place
            continue
        if len(place.relative_to(folder).parts) >= _DEEPEST:
            folders.clear()
        yield from (place / name for name in weights)
