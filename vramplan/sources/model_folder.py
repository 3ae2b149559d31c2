"""GGUF files in folders: a model in its own folder, and the projector beside it.

LM Studio keeps ``~/.lmstudio/models/PUBLISHER/REPOSITORY/*.gguf``, a projector beside the model.
Sources: lmstudio-ai/docs, 0_app/5_advanced/import-model.md; lmstudio-ai/lmstudio-js,
packages/lms-common-server/src/findLMStudioHome.ts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from vramplan.errors import SourceError

_PROJECTOR = re.compile(r"mmproj|mm-proj|\.projector\.", re.IGNORECASE)
_LATER_PART = re.compile(r"-(?!00001)[0-9]{5}-of-[0-9]{5}\.gguf$")
_MOST = 10_000
_DEEPEST = 8
#: PUBLISHER/REPOSITORY, or a file in it
_LM_STUDIO_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,95}/[A-Za-z0-9][\w.+ /-]{0,299}")
_LONGEST_POINTER = 4_096


def find_in_lm_studio(name: str, environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder or file that LM Studio keeps as ``PUBLISHER/REPOSITORY``, or None."""
    if not _LM_STUDIO_NAME.fullmatch(name) or ".." in name.split("/"):
        return None
    try:
        path = lm_studio_home(environment) / "models" / name
        return path if path.exists() else None
    except (OSError, ValueError):  # not readable, or a pointer that is no path
        return None


def lm_studio_folder(environment: Mapping[str, str] | None = None) -> Path | None:
    """Return where LM Studio keeps its models, or None where it has no such folder."""
    try:
        folder = lm_studio_home(environment) / "models"
        return folder if folder.is_dir() else None
    except (OSError, ValueError):  # not readable, or a pointer that is no path
        return None


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the model files in a folder and those below it, projectors left out, in order.

    Of a split model the first part. Links to folders are not followed; what cannot be read is
    passed over, and no more than some thousands of entries and levels of some are gone through.
    """
    seen = 0
    for at, folders, names in os.walk(folder):
        folders.sort()
        if len(Path(at).relative_to(folder).parts) >= _DEEPEST:
            folders.clear()
        for name in sorted(names):
            seen += 1
            if seen > _MOST:
                return
            path = Path(at) / name
            is_model = path.suffix.lower() == ".gguf" and not _LATER_PART.search(name)
            if is_model and not is_projector_name(path):
                yield path


def lm_studio_home(environment: Mapping[str, str] | None = None) -> Path:
    """Return LM Studio's folder, wherever it was moved to."""
    environ = os.environ if environment is None else environment
    home = Path(environ.get("HOME", "") or Path.home())
    pointer = home / ".lmstudio-home-pointer"
    if pointer.is_file():
        with pointer.open(encoding="utf-8", errors="replace") as file:
            return Path(file.read(_LONGEST_POINTER).strip())
    older = home / ".cache" / "lm-studio"
    return older if older.is_dir() else home / ".lmstudio"


def model_files(folder: Path) -> list[Path]:
    """Return the files in a folder that may be models; raises SourceError where there is none."""
    models = [path for path in _files(folder) if not is_projector_name(path)]
    if not models:
        from vramplan.sources.other_formats import tell_folder

        other = tell_folder(_names(folder))
        if other is not None:
            raise SourceError(f"{folder}: {other[0]}, by the names of its files", hint=other[1])
        hint = "name a .gguf file, a folder with one, or one with a config.json and safetensors"
        raise SourceError(f"{folder}: no GGUF file in it", hint=hint)
    return models


def find_projector_file(model: Path) -> Path | None:
    """Return the projector beside a model, of several the one in f16, or None."""
    found = [path for path in _files(model.parent) if is_projector_name(path) and path != model]
    if not found:
        return None
    return min(found, key=lambda path: ("f16" not in path.name.lower(), path.name))


def is_projector_name(path: Path) -> bool:
    """Return whether a file is named as projectors are."""
    return _PROJECTOR.search(path.name) is not None


def _names(folder: Path) -> list[str]:
    """Return what lies in a folder that can be read, folders too."""
    return [path.name for path in islice(folder.iterdir(), _MOST)]


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
