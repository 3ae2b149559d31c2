"""Models of diffusers and transformers on the Hugging Face hub: configs, and headers of weights.

Of the weights only the beginnings are read, by HTTP ranges; a copy in the hub's local cache that is
whole goes before. ``HF_HUB_OFFLINE=1`` keeps to that copy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from glob import escape
from urllib.parse import quote

from vramplan.codec import Json, JsonError, Limits, parse_json
from vramplan.errors import SourceError
from vramplan.quick_dataclass import dataclass
from vramplan.sources.hub_address import FILE_OF_WEIGHTS, PREFIX, REPOSITORY
from vramplan.sources.hub_web import Hub, Ranges, ask_hub, get, is_offline, list_files, snapshots
from vramplan.sources.safetensors import LONGEST, SafetensorsHeader, read_header
from vramplan.sources.saved_model import (
    CONFIG,
    INDEX,
    INDEX_LIMITS,
    LocalFiles,
    SavedModel,
    is_saved_folder,
    read_saved_file,
    read_saved_folder,
    read_saved_header,
)

_CONFIGS = Limits(text_bytes=1 << 20, parsed_bytes=32 << 20)
_MOST_NAMED = 20
#: most headers are shorter: one answer tells all
_FIRST = 256 << 10


@dataclass(frozen=True, slots=True)
class _HubFiles:
    """The files of a repository on the hub."""

    repository: str
    hub: Hub
    listed: tuple[str, ...]

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{PREFIX}{self.repository}"

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder."""
        start = f"{folder}/" if folder else ""
        rests = (path.removeprefix(start) for path in self.listed if path.startswith(start))
        return sorted(rest for rest in rests if rest and "/" not in rest)

    def read_config(self, path: str) -> dict[str, Json]:
        """Return an object of JSON; raises SourceError."""
        return self._read_object(path, _CONFIGS)

    def read_index(self, path: str) -> dict[str, Json]:
        """Return an object of JSON that may name each tensor; raises SourceError."""
        return self._read_object(path, INDEX_LIMITS)

    def _read_object(self, path: str, limits: Limits) -> dict[str, Json]:
        data = get(self._url(path), self.hub, limits.text_bytes + 1, {})
        try:
            found = parse_json(data, f"{self.place}/{path}", limits)
        except JsonError as problem:
            raise SourceError(str(problem)) from None
        if not isinstance(found, dict):
            raise SourceError(f"{self.place}/{path}: not an object of JSON")
        return found

    def read_weights(self, path: str) -> SafetensorsHeader:
        """Return a header; raises SourceError."""
        ranges = Ranges(self._url(path), self.hub, LONGEST + 8)
        ahead = bytearray()

        def read(size: int) -> bytes:
            while len(ahead) < size and (more := ranges.read(max(_FIRST, size - len(ahead)))):
                ahead.extend(more)
            data = bytes(ahead[:size])
            del ahead[:size]
            return data

        return read_header(read, f"{self.place}/{path}", None)

    def _url(self, path: str) -> str:
        return f"{self.hub.endpoint}/{self.repository}/resolve/main/{quote(path)}"


def read_saved_on_hub(text: str, environment: Mapping[str, str] | None = None) -> SavedModel | None:
    """Return the model that ``hf:ORG/NAME`` names; None for a repository of other files.

    ``hf:ORG/NAME:FILE.safetensors`` names one of its files, such as a denoiser's alone.
    Raises SourceError where the hub does not give it, or it is not usable.
    """
    environ = os.environ if environment is None else environment
    repository, _, file = text.removeprefix(PREFIX).partition(":")
    if REPOSITORY.fullmatch(repository) and FILE_OF_WEIGHTS.fullmatch(file) and ".." not in file:
        return _read_file(repository, file, environ)
    repository = text.removeprefix(PREFIX)
    if not REPOSITORY.fullmatch(repository):
        return None
    if (cached := _cached(repository, environ)) is not None:
        return cached
    if is_offline(environ):
        message = f"{PREFIX}{repository}: not in the local cache, and HF_HUB_OFFLINE is set"
        raise SourceError(message, hint=f"hf download {repository} fetches it")
    hub = ask_hub(environ)
    files = _HubFiles(repository, hub, tuple(list_files(repository, hub)))
    there = files.names()
    if INDEX in there or (CONFIG in there and not any(map(_is_gguf, there))):
        return read_saved_folder(files)
    return None if any(map(_is_gguf, files.listed)) else _only_one(files)


def _only_one(files: _HubFiles) -> SavedModel | None:
    """Return the model of a repository of one file, None where it has none.

    Raises SourceError where it has several, with their names.
    """
    found = [name for name in files.listed if FILE_OF_WEIGHTS.fullmatch(name)]
    if not found:
        return None
    if len(found) > 1:
        shown = ", ".join(found[:_MOST_NAMED]) + (", …" if len(found) > _MOST_NAMED else "")
        raise SourceError(f"{files.place}: name a file", hint=f"{files.place}:{shown}")
    return read_saved_header(files.read_weights(found[0]))


def _read_file(repository: str, file: str, environ: Mapping[str, str]) -> SavedModel:
    """Return the model in one file of a repository: of the local cache, else of the hub."""
    there = snapshots(repository, environ)
    for path in sorted(there.glob(f"*/{escape(file)}")):
        if path.is_file():
            return read_saved_file(path)
    if is_offline(environ):
        message = f"{PREFIX}{repository}:{file}: not in the local cache, and HF_HUB_OFFLINE is set"
        raise SourceError(message, hint=f"hf download {repository} {file} fetches it")
    files = _HubFiles(repository, ask_hub(environ), ())
    return read_saved_header(files.read_weights(file))


def is_cached(repository: str, environ: Mapping[str, str]) -> bool:
    """Return whether the local cache has a model of a repository, with its weights."""
    return _cached(repository, environ) is not None


def _cached(repository: str, environ: Mapping[str, str]) -> SavedModel | None:
    """Return the model of a copy in the local cache whose weights are there."""
    try:
        found = sorted(snapshots(repository, environ).iterdir())
    except OSError:
        return None
    for folder in found:
        if is_saved_folder(folder):
            try:
                return read_saved_folder(LocalFiles(folder))
            except SourceError:  # its configs alone, or some of its parts
                continue
    return None


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")
