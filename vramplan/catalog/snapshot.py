"""The shipped catalogue as one JSON file, so that no command parses forty YAML files.

`profiles/snapshot.json` holds the checked data of every shipped pipeline and card and of the
published figures, and for each source its size and CRC-32. Reading it takes a few milliseconds and
no YAML parser; a pipeline's data is a text in it that is read when the pipeline is asked for. It is
believed only while every source still has the bytes it was made from (a CRC against edits, not
against malice: who can write the sources can write the snapshot); a stale one is passed over in
favour of the sources, so that an edit shows at once, slowly, and `python -m tools.snapshot` makes
it quick again. Times of files are not compared: a checkout sets them anew.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vramplan.catalog.cards import build_cards
from vramplan.catalog.entries import Entries
from vramplan.catalog.shipped import PUBLISHED_FILE
from vramplan.model import Card
from vramplan.quick_dataclass import dataclass

if TYPE_CHECKING:
    from typing import TypedDict

    from vramplan.catalog.entries import Kept
    from vramplan.catalog.yaml_reader import Plain

    class Source(TypedDict):
        """One YAML file as it was: its bytes' length and CRC-32, and its checked data."""

        bytes: int
        crc32: int
        data: dict[str, Plain]

    class PipelineSource(TypedDict):
        """The YAML file of one pipeline; its data is read when it is asked for."""

        bytes: int
        crc32: int
        kept: Kept


VERSION = 2
NAME = "snapshot.json"
PUBLISHED = "published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The shipped pipelines and cards, in the order of their files."""

    pipelines: Entries
    cards: tuple[Card, ...]


def source_files(profiles: Path, kind: str) -> list[Path]:
    """Return the YAML files of `kind` (pipelines, cards or published) under `profiles`, by name."""
    if kind == PUBLISHED:
        return [path for path in [profiles / PUBLISHED_FILE] if path.is_file()]
    folder = profiles / kind
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  # many times quicker than patterns
    except OSError:
        return []
    return [folder / name for name in names if name.endswith((".yaml", ".yml"))]


def read_snapshot(profiles: Path) -> Snapshot | None:
    """Return the snapshot of `profiles`, or None when it is missing, damaged, foreign or stale."""
    content = _read(profiles)
    if content is None:
        return None
    if not all(_is_fresh(profiles, kind, content.get(kind)) for kind in ("pipelines", "cards")):
        return None
    entries = Entries()
    folder = f"{profiles / 'pipelines'}{os.sep}"
    for name, source in cast("Mapping[str, PipelineSource]", content["pipelines"]).items():
        entries.add_kept(source["kept"], folder + name)
    cards = cast("Mapping[str, Source]", content["cards"])
    return Snapshot(
        pipelines=entries,
        cards=tuple(card for source in cards.values() for card in build_cards(source["data"])),
    )


def read_published(profiles: Path) -> dict[str, Plain] | None:
    """Return the checked data of the published figures, or None when the file has to be read."""
    content = _read(profiles)
    if content is None or not _is_fresh(profiles, PUBLISHED, content.get(PUBLISHED)):
        return None
    sources = cast("Mapping[str, Source]", content[PUBLISHED])
    return next((source["data"] for source in sources.values()), None)


def _read(profiles: Path) -> dict[str, object] | None:
    try:
        content = json.loads((profiles / NAME).read_bytes())
    except (OSError, ValueError):
        return None
    is_ours = isinstance(content, dict) and content.get("snapshot") == VERSION
    return content if is_ours else None


def _is_fresh(profiles: Path, kind: str, sources: object) -> bool:
    files = source_files(profiles, kind)
    if not isinstance(sources, dict) or [file.name for file in files] != list(sources):
        return False
    for file in files:
        recorded = sources[file.name]
        # a file more than a hundred times: without what a buffered reader sets up
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            raw = os.read(handle, recorded["bytes"] + 1)
        finally:
            os.close(handle)
        if len(raw) != recorded["bytes"] or zlib.crc32(raw) != recorded["crc32"]:
            return False
    return True
