"""The pipelines of a catalogue by name, each of them made when somebody asks for it.

What is made of a long catalogue is what a question is about: names, aliases and repositories are in
the shipped snapshot's index. Where a source turns out not to be as the snapshot has it, all sources
are read instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from vramplan.errors import UsageError, did_you_mean
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.catalog.pipelines import Entry
    from vramplan.catalog.snapshot import Snapshot, Source

#: of the names that begin with a word that is none
_MOST_SHOWN = 4
#: what people write between the words and numbers of a name, one way or another
_SIGNS = str.maketrans("", "", " ._:-")


class Entries(Mapping[str, "Entry"]):
    """Pipelines by name, in the order of their names.

    `own` go before those of the shipped `snapshot`; `read` gives the shipped ones without it.
    """

    def __init__(
        self,
        own: Iterable[Entry] = (),
        snapshot: Snapshot | None = None,
        read: Callable[[], Iterable[Entry]] = tuple,
    ) -> None:
        self._own = {entry.name: entry for entry in own}
        self._snapshot = snapshot
        self._read = read
        self._made: dict[str, Entry] = {}
        self._files: dict[str, str] = {}
        if snapshot is None:
            self._made = {entry.name: entry for entry in read()}
        else:
            self._files = {one["name"]: file for file, one in snapshot.sources["pipelines"].items()}

    def __getitem__(self, name: str) -> Entry:
        """Return the pipeline of this name; raises KeyError, and CatalogError for a wrong file."""
        if name in self._own:
            return self._own[name]
        if name not in self._made and name in self._files:
            self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(sorted({*self._own, *self._made, *self._files}))

    def __len__(self) -> int:
        """Return how many there are."""
        return len({*self._own, *self._made, *self._files})

    def _make(self, name: str) -> None:
        assert self._snapshot is not None
        found = self._snapshot.pipeline(self._files[name])
        if found is not None:
            self._made[name] = found
            return
        self._snapshot, self._files = None, {}
        self._made = {entry.name: entry for entry in self._read()}

    def aliases(self) -> dict[str, str]:
        """Return the other names of pipelines, each with the name."""
        found: dict[str, Iterable[str]] = dict.fromkeys(self, ())
        found |= {name: one["aliases"] for name, one in self._sources()}
        found |= {name: one.aliases for name, one in (self._made | self._own).items()}
        return {alias: name for name, aliases in found.items() for alias in aliases}

    def repositories(self) -> dict[str, str]:
        """Return ``org/name`` on the hub, in lower case, with the name of what stands for it."""
        found: list[tuple[Iterable[str], str]]
        found = [(one["repositories"], name) for name, one in self._sources()]
        found += [(one.repositories, one.name) for one in self._made.values()]
        found += [(one.repositories, one.name) for one in self._own.values()]
        return {place.lower(): name for places, name in found for place in places}

    def _sources(self) -> Iterator[tuple[str, Source]]:
        """Yield what the index says of the pipelines that are not made yet."""
        if self._snapshot is not None:
            for one in self._snapshot.sources["pipelines"].values():
                yield one["name"], one


def find_pipeline(name: str, pipelines: Entries) -> Entry:
    """Return the pipeline called `name`: by its name, by an alias, then whatever the case.

    Raises UsageError, with a suggestion, when there is none.
    """
    if name in pipelines:
        return pipelines[name]
    known = {**pipelines.aliases(), **{one: one for one in pipelines}}
    called = known.get(name) or known.get(name.strip().lower())
    found = pipelines.get(called) if called else None
    if found is None:
        raise UsageError(f"unknown pipeline {name!r}", hint=_hint(name, pipelines, known))
    return found


def find_alike(name: str, pipelines: Entries) -> Entry | None:
    """Return the one pipeline whose name or alias differs from `name` in blanks, dots and dashes.

    None where there is none, or several.
    """
    plain = _without_signs(name)
    known = {**pipelines.aliases(), **{one: one for one in pipelines}}
    found = {called for one, called in known.items() if plain and _without_signs(one) == plain}
    return pipelines.get(found.pop()) if len(found) == 1 else None


def _without_signs(name: str) -> str:
    return name.lower().translate(_SIGNS)


def _hint(name: str, pipelines: Entries, known: Mapping[str, str]) -> str:
    """Return which names begin with `name`, where none of them is what all begin with.

    Else the nearest one: ``sd15`` for ``sd1``.
    """
    start = name.strip().lower()
    begun = sorted(one for one in pipelines if start and one.startswith(start))
    if len(begun) < 2 or all(one.startswith(begun[0]) for one in begun):
        return did_you_mean(name, known) or "vramplan catalog list shows them"
    shown = ", ".join(begun[:_MOST_SHOWN])
    if len(begun) <= _MOST_SHOWN:
        return f"use one of {shown}"
    return f"{len(begun)} begin so, such as {shown}: vramplan catalog list {start}"
