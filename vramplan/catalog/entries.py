"""Entries by name, built when they are asked for: most starts ask for one of a hundred."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from vramplan.catalog.pipelines import Entry, build_pipeline

if TYPE_CHECKING:
    from typing import TypedDict

    class Kept(TypedDict):
        """What is kept of a checked pipeline: what it is found by, and the rest as JSON."""

        name: str
        aliases: list[str]
        repositories: list[str]
        text: str


class Entries(Mapping[str, Entry]):
    """Entries by name, in the order of their names; an entry is built at its first use.

    `aliases` and `repositories` (in lower case) lead to names, without an entry being built.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._built: dict[str, Entry] = {}
        self._makers: dict[str, Callable[[], Entry]] = {}
        self._aliases: dict[str, tuple[str, ...]] = {}
        self.repositories: dict[str, str] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Take entries in; one of a name that is there replaces it."""
        for entry in entries:
            self._put(entry.name, entry.aliases, entry.repositories, lambda entry=entry: entry)  # type: ignore[misc]  # bound at once

    def add_kept(self, kept: Kept, path: str) -> None:
        """Take in a pipeline that was checked when it was written to the snapshot."""
        self._put(
            kept["name"],
            tuple(kept["aliases"]),
            kept["repositories"],
            lambda: build_pipeline(json.loads(kept["text"]), path),
        )

    def _put(
        self,
        name: str,
        aliases: tuple[str, ...],
        repositories: Iterable[str],
        make: Callable[[], Entry],
    ) -> None:
        self._built.pop(name, None)
        self._makers[name] = make
        self._aliases[name] = aliases
        self.repositories.update((one.lower(), name) for one in repositories)

    @property
    def aliases(self) -> Mapping[str, str]:
        """Which names the aliases stand for."""
        return {alias: name for name in self for alias in self._aliases[name]}

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of a name; raises KeyError."""
        found = self._built.get(name)
        if found is None:
            found = self._built[name] = self._makers[name]()
        return found

    def __iter__(self) -> Iterator[str]:
        """Yield the names, in their order."""
        return iter(sorted(self._makers))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._makers)


def keep(data: Mapping[str, object]) -> Kept:
    """Return what a snapshot keeps of a pipeline's checked data."""
    return {
        "name": str(data["name"]),
        "aliases": list(data.get("aliases", [])),  # type: ignore[call-overload]  # lists, by the schema
        "repositories": list(data.get("repositories", [])),  # type: ignore[call-overload]  # as above
        "text": json.dumps(data, ensure_ascii=False, separators=(",", ":")),
    }
