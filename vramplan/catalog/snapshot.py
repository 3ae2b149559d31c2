"""The shipped catalogue as one JSON file, so that no command parses forty YAML files.

`profiles/snapshot.json` holds the checked data of every shipped pipeline and card and of the
published figures, a source in a line, and before them an index: of each source its size, its
CRC-32, the names in it and where its line begins behind the index. A line is read when somebody
asks for what is in it, so that a command takes no longer where the catalogue is longer, and no YAML
parser. It is believed only while every source still has the size it was made from, and a line only
while its source has those bytes (a CRC against edits, not against malice: who can write the sources
can write the snapshot). A stale one is passed over in favour of the sources, so that an edit shows
at once, slowly, and `python -m tools.snapshot` makes it quick again. Times of files are not
compared: a checkout sets them anew.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from vramplan.catalog.cards import build_cards
from vramplan.catalog.pipelines import Entry, build_pipeline
from vramplan.catalog.shipped import PUBLISHED_FILE
from vramplan.model import Card
from vramplan.opened_file import open_file
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypedDict

    from vramplan.catalog.yaml_reader import Plain

    class Source(TypedDict):
        """One YAML file as it was: its bytes' length and CRC-32; what a pipeline is called.

        `at` is where its line begins, in bytes behind the index.
        """

        bytes: int
        crc32: int
        at: int
        name: str
        aliases: list[str]
        repositories: list[str]


VERSION = 3
NAME = "snapshot.json"
PUBLISHED = "published"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """The shipped catalogue, of which nothing is read before it is asked for.

    `lines` are what stands behind the index. `sources` are, by kind, the files that it was made
    from, by name.
    """

    profiles: Path
    lines: bytes
    sources: Mapping[str, Mapping[str, Source]]

    def pipeline(self, file: str) -> Entry | None:
        """Return the pipeline of a source, or None where it is not as it was."""
        data = self._data("pipelines", file)
        if data is None:
            return None
        return build_pipeline(data, str(self.profiles / "pipelines" / file))

    def cards(self) -> tuple[Card, ...] | None:
        """Return all cards, in the order of their files; None where one is not as it was."""
        found: list[Card] = []
        for file in self.sources["cards"]:
            data = self._data("cards", file)
            if data is None:
                return None
            found += build_cards(data)
        return tuple(found)

    def published(self) -> dict[str, Plain] | None:
        """Return the checked data of the published figures; None where they are to be read."""
        return next((self._data(PUBLISHED, file) for file in self.sources[PUBLISHED]), None)

    def is_fresh(self) -> bool:
        """Return whether every source of pipelines and cards has the bytes it had."""
        return all(
            self._is_as_it_was(kind, file)
            for kind in ("pipelines", "cards")
            for file in self.sources[kind]
        )

    def _data(self, kind: str, file: str) -> dict[str, Plain] | None:
        begins = f"{json.dumps(line_name(kind, file), ensure_ascii=False)}:".encode()
        at = self.sources[kind][file]["at"]
        if not self.lines.startswith(begins, at) or not self._is_as_it_was(kind, file):
            return None
        line = self.lines[at + len(begins) : self.lines.find(b"\n", at)]
        try:
            found = json.loads(line.removesuffix(b","))
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def _is_as_it_was(self, kind: str, file: str) -> bool:
        source = self.sources[kind][file]
        try:
            with open_file(_folder(self.profiles, kind) / file) as opened:
                raw = opened.read(source["bytes"] + 1)
        except OSError:
            return False
        return len(raw) == source["bytes"] and zlib.crc32(raw) == source["crc32"]


def line_name(kind: str, file: str) -> str:
    """Return what a source's line begins with."""
    return f"{kind}/{file}"


def _folder(profiles: Path, kind: str) -> Path:
    return profiles if kind == PUBLISHED else profiles / kind


def source_files(profiles: Path, kind: str) -> dict[str, int]:
    """Return the YAML files of a kind (pipelines, cards or published) by name, with their sizes."""
    try:
        with os.scandir(_folder(profiles, kind)) as listing:
            found = {
                one.name: one.stat().st_size
                for one in listing
                if one.name.endswith((".yaml", ".yml"))
                and (kind != PUBLISHED or one.name == PUBLISHED_FILE)
            }
    except OSError:
        return {}
    return dict(sorted(found.items()))


def read_snapshot(profiles: Path) -> Snapshot | None:
    """Return the snapshot of `profiles`, or None when it is missing, damaged, foreign or stale.

    Of what is stale only that is seen here which has another size, or files more or fewer.
    """
    try:
        with open_file(profiles / NAME) as file:
            head, index, lines = file.read().split(b"\n", 2)
        sources = json.loads(index.removeprefix(b'"index":').removesuffix(b","))
    except (OSError, ValueError):
        return None
    if head != b'{"snapshot":%d,' % VERSION or not isinstance(sources, dict):
        return None
    try:
        for kind in ("pipelines", "cards"):
            sizes = {name: one["bytes"] for name, one in sources[kind].items()}
            if source_files(profiles, kind) != sizes:
                return None
    except (AttributeError, LookupError, TypeError):
        return None
    return Snapshot(profiles=profiles, lines=lines, sources={PUBLISHED: {}, **sources})


def read_published(profiles: Path) -> dict[str, Plain] | None:
    """Return the checked data of the published figures, or None when the file has to be read."""
    snapshot = read_snapshot(profiles)
    return None if snapshot is None else snapshot.published()
