"""Where the catalogue is looked for, and what it holds then.

The folders of ``--catalog`` come first, then those of ``VRAMPLAN_CATALOG``, then the shipped
profiles; the first one that has a name wins, so a user's pipeline or card replaces ours.

A folder of a user's has ``pipelines/*.yaml`` and ``cards/*.yaml``; one that has neither is a folder
of pipeline files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vramplan.catalog.card_choice import CardChoice
from vramplan.catalog.cards import load_card_file, match_card
from vramplan.catalog.entries import Entries, find_pipeline
from vramplan.catalog.pipelines import Entry, load_pipeline_file
from vramplan.catalog.shipped import CONTEXTS_FILE, PUBLISHED_FILE, profiles_dir
from vramplan.catalog.snapshot import read_published, read_snapshot
from vramplan.errors import CatalogError, UsageError
from vramplan.model import Card
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.catalog.published import Claim

VARIABLE = "VRAMPLAN_CATALOG"
PROJECT_FILE = "vramplan.yaml"

#: what a folder of pipeline files may hold beside them
_NOT_PIPELINES = frozenset({PROJECT_FILE, PUBLISHED_FILE, CONTEXTS_FILE})

_Found = tuple[tuple[Entry, ...], tuple[Card, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Every pipeline and card by name; `folders` are where they came from, first wins."""

    pipelines: Entries
    cards: Mapping[str, Card]
    folders: tuple[Path, ...] = ()

    @property
    def repositories(self) -> dict[str, str]:
        """Return ``org/name`` on the hub, in lower case, with the pipeline that stands for it."""
        return self.pipelines.repositories()

    def pipeline(self, name: str) -> Entry:
        """Return the pipeline called `name`; raises UsageError with a suggestion."""
        return find_pipeline(name, self.pipelines)

    def repository(self, name: str) -> Entry | None:
        """Return the pipeline that stands for the hub's ``ORG/NAME``, in whatever case, or None."""
        found = self.repositories.get(name.lower())
        return self.pipelines.get(found) if found is not None else None

    def card(self, text: str) -> CardChoice:
        """Return what the CARD `text` stands for; raises UsageError with a suggestion."""
        return match_card(text, self.cards)


def user_folders(
    option: Sequence[str | Path] = (), environment: Mapping[str, str] | None = None
) -> list[Path]:
    """Return the folders of ``--catalog`` and ``VRAMPLAN_CATALOG``, in the order they are asked.

    Raises UsageError for one that is not a folder.
    """
    environ = os.environ if environment is None else environment
    named = [(Path(folder), "--catalog") for folder in option]
    listed = environ.get(VARIABLE, "").split(os.pathsep)
    named += [(Path(folder), VARIABLE) for folder in listed if folder]
    for folder, origin in named:
        if not folder.is_dir():
            raise UsageError(f"{origin}: {folder} is not a folder")
    return [folder for folder, _ in named]


def load_catalog(folders: Sequence[Path] = (), inline: Iterable[Entry] = ()) -> Catalog:
    """Return the catalogue of `folders` over the shipped profiles, with `inline` over both.

    Raises CatalogError for a file that is wrong, and for a name that one folder gives twice.
    """
    shipped = profiles_dir()
    snapshot = read_snapshot(shipped)
    shipped_cards = None if snapshot is None else snapshot.cards()
    if shipped_cards is None:
        snapshot, shipped_cards = None, _read_folder(shipped)[1]
    cards = {card.name: card for card in shipped_cards}
    own: list[Entry] = []
    for folder in reversed(folders):
        found_pipelines, found_cards = _read_folder(folder)
        own += found_pipelines
        cards |= {card.name: card for card in found_cards}
    pipelines = Entries([*own, *inline], snapshot, lambda: _read_folder(shipped)[0])
    return Catalog(pipelines=pipelines, cards=cards, folders=(*folders, shipped))


def catalog_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the pipeline files and the card files of a catalogue folder."""
    pipelines, cards = folder / "pipelines", folder / "cards"
    if pipelines.is_dir() or cards.is_dir():
        return _yaml_files(pipelines), _yaml_files(cards)
    return [file for file in _yaml_files(folder) if file.name not in _NOT_PIPELINES], []


def _yaml_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def load_published(folder: Path) -> tuple[Claim, ...]:
    """Return the figures others published, as a catalogue folder lists them; none without a file.

    The shipped ones come out of the snapshot while that is fresh. Raises CatalogError, with the
    first thing that is wrong in the file.
    """
    from vramplan.catalog.published import build_published, load_published_file

    path = folder / PUBLISHED_FILE
    if not path.is_file():
        return ()
    found = read_published(folder)
    return load_published_file(path) if found is None else build_published(found)


def _read_folder(folder: Path) -> _Found:
    pipeline_files, card_files = catalog_files(folder)
    pipelines = [(load_pipeline_file(file), file) for file in pipeline_files]
    cards = [(card, file) for file in card_files for card in load_card_file(file)]
    _refuse_twins("pipeline", [(pipeline.name, file) for pipeline, file in pipelines])
    _refuse_twins("card", [(card.name, file) for card, file in cards])
    return tuple(pipeline for pipeline, _ in pipelines), tuple(card for card, _ in cards)


def _find_twins(folder: Path) -> list[CatalogError]:
    try:
        _read_folder(folder)
    except CatalogError as problem:
        return [problem]
    return []


def _refuse_twins(kind: str, named: Iterable[tuple[str, Path]]) -> None:
    first: dict[str, Path] = {}
    for name, file in named:
        if name in first:
            message = f"{file}:1:1: the {kind} {name!r} is in {first[name].name} already"
            raise CatalogError(message, hint="give it another name")
        first[name] = file


def validate(path: Path, *, is_named: bool = True) -> list[CatalogError]:
    """Return everything that is wrong with a catalogue file, or with the files of a folder.

    That a folder has none is wrong too, where somebody has named it.

    A file with the key ``cards`` is a card file, one with ``figures`` holds published figures, one
    with ``messages`` tells CUDA contexts, one called ``vramplan.yaml`` is a project's. Empty when
    nothing is wrong.
    """
    from vramplan.catalog.cards import check_cards
    from vramplan.catalog.contexts import check_contexts
    from vramplan.catalog.pipelines import check_pipeline
    from vramplan.catalog.published import check_published
    from vramplan.catalog.yaml_reader import read_yaml

    if path.is_dir():
        pipelines, cards = catalog_files(path)
        beside = (path / name for name in (PUBLISHED_FILE, CONTEXTS_FILE, PROJECT_FILE))
        files = [*pipelines, *cards, *(file for file in beside if file.is_file())]
        if not files and is_named:
            hint = "it takes YAML files of pipelines, or folders called pipelines and cards"
            return [CatalogError(f"{path}: nothing of a catalogue is in it", hint=hint)]
        return [error for file in files for error in validate(file)] or _find_twins(path)
    try:
        document = read_yaml(path)
    except CatalogError as problem:
        return [problem]
    if path.name == PROJECT_FILE:
        from vramplan.catalog.project import check_project

        return check_project(document)
    keys = document.data if isinstance(document.data, dict) else {}
    if "figures" in keys:
        return check_published(document)
    if "messages" in keys:
        return check_contexts(document)
    return check_cards(document) if "cards" in keys else check_pipeline(document)
