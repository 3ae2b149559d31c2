"""What the catalogue's entry of a pipeline says of its files, read key by key, and once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from vramplan.engines.ggml.pipeline import Described, GgmlPipeline
from vramplan.errors import CatalogError, did_you_mean
from vramplan.quick_typing import TypeVar, cast

T = TypeVar("T")


class Section:
    """A mapping of a catalogue entry, read key by key; whatever is not right is a CatalogError."""

    def __init__(self, data: object, path: str, where: str) -> None:
        self._path, self._where = path, where
        if not isinstance(data, Mapping):
            raise self.error("", "must be a mapping")
        self._data: Mapping[object, object] = data

    def error(self, key: str, message: str, *, hint: str | None = None) -> CatalogError:
        """Return an error about `key`, or about the whole section."""
        place = f"{self._where}.{key}" if key else self._where
        return CatalogError(f"{self._path}: {place}: {message}", hint=hint)

    def count(self, key: str, *, most: int = 1 << 24) -> int:
        """Return the whole number from 1 to `most` that stands at `key`."""
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self.error(key, f"must be a whole number from 1 to {most:,}, not {value!r}")
        return value

    def word(self, key: str, known: Mapping[str, object], *, what: str | None = None) -> str:
        """Return the word at `key`, one of `known`, of which each is a `what`."""
        value = self._get(key)
        if not isinstance(value, str) or value not in known:
            hint = did_you_mean(str(value), known) or "use " + ", ".join(known)
            raise self.error(key, f"unknown {what or key} {value!r}", hint=hint)
        return value

    def section(self, key: str) -> Section | None:
        """Return the mapping at `key`, or None where there is none."""
        if key not in self._data:
            return None
        return Section(self._data[key], self._path, f"{self._where}.{key}")

    def flag(self, key: str) -> bool:
        """Return whether `key` is true; it is not where it is left out."""
        value = self._data.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def text(self, key: str) -> str:
        """Return the text at `key`, empty where it is left out."""
        value = self._data.get(key, "")
        if not isinstance(value, str):
            raise self.error(key, f"must be a text, not {value!r}")
        return value

    def has(self, key: str) -> bool:
        """Return whether something stands at `key`."""
        return key in self._data

    def refuse_others(self, *known: str) -> None:
        """Raise for a key that means nothing here."""
        for key in self._data:
            if key not in known:
                hint = did_you_mean(str(key), known) or "known keys: " + ", ".join(known)
                raise self.error(str(key), "unknown key", hint=hint)

    def spelt(self) -> str:
        """Return all that it says, the same text for the same."""
        return json.dumps(self._data, sort_keys=True, default=str)

    def _get(self, key: str) -> object:
        if key not in self._data:
            raise self.error("", f"the key {key!r} is missing")
        return self._data[key]


def open_section(pipeline: GgmlPipeline) -> Section:
    """Return the `ggml` mapping of a catalogue's entry, ready to be read."""
    said = pipeline.model.section if isinstance(pipeline.model, Described) else {}
    return Section(said, pipeline.path or pipeline.name, "ggml")


def once_each(pipeline: GgmlPipeline, read: Callable[[GgmlPipeline], T]) -> T:
    """Return what `read` makes of a pipeline; a check asks once per card and architecture."""
    known = _READ.setdefault(read, {})
    if id(pipeline) not in known:
        # holding the pipeline keeps its id its own
        known[id(pipeline)] = (pipeline, read(pipeline))
    found = known[id(pipeline)][1]
    while len(known) > _MOST_READ:
        del known[next(iter(known))]  # the oldest
    return cast("T", found)


#: by reader, of which there are three, and pipeline
_READ: dict[object, dict[int, tuple[GgmlPipeline, object]]] = {}
_MOST_READ = 256
