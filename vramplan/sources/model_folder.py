"""GGUF files in folders: a model in its own folder, and the projector beside it.

LM Studio keeps ``~/.lmstudio/models/PUBLISHER/REPOSITORY/*.gguf``, a projector beside the model.
"""

from __future__ import annotations

import re
from pathlib import Path

from vramplan.errors import SourceError

_PROJECTOR = re.compile(r"mmproj|mm-proj|\.projector\.", re.IGNORECASE)
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
_MOST = 10_000


def find_model_file(folder: Path) -> Path:
    """Return the one model in a folder; raises SourceError where there is none, or several."""
    models = [path for path in _files(folder) if not is_projector_name(path)]
    if len(models) == 1:
        return models[0]
    if not models:
        hint = "name a .gguf file, or a folder with one"
        raise SourceError(f"{folder}: no GGUF file in it", hint=hint)
    names = ", ".join(path.name for path in models[:10])
    raise SourceError(f"{folder}: {len(models)} models in it", hint=f"name one: {names}")


def find_projector_file(model: Path) -> Path | None:
    """Return the projector beside a model, of several the one in f16, or None."""
    found = [path for path in _files(model.parent) if is_projector_name(path) and path != model]
    if not found:
        return None
    return min(found, key=lambda path: ("f16" not in path.name.lower(), path.name))


def is_projector_name(path: Path) -> bool:
    """Return whether a file is named as projectors are."""
    return _PROJECTOR.search(path.name) is not None


def _files(folder: Path) -> list[Path]:
    """Return the GGUF files of a folder; of a split model the first part."""
    try:
        found = []
        for number, path in enumerate(folder.iterdir()):
            if number >= _MOST:
                break
            if path.suffix.lower() == ".gguf" and not _LATER_PART.search(path.name):
                found.append(path)
    except OSError as problem:
        raise SourceError(f"{folder}: cannot be read: {problem.strerror}") from None
    return sorted(found)
