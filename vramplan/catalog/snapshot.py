"""The shipped catalogue as one JSON file, so that no command parses forty YAML files.

`profiles/snapshot.json` holds the checked data of every shipped pipeline and card and of the
published figures, and for each source its size and CRC-32. Reading it takes a few milliseconds and
no YAML parser. It is believed only while every source still has the bytes it was made from (a CRC
against edits, not against malice: who can write the sources can write the snapshot); a stale one is
passed over in favour of the sources, so that an edit shows at once, slowly, and
`python -m vramplan.catalog.snapshot` makes it quick again. Times of files are not compared: a
checkout sets them anew.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

from vramplan.catalog.cards import build_cards
from vramplan.catalog.pipelines import Entry, build_pipeline
from vramplan.catalog.shipped import PUBLISHED_FILE, profiles_dir
from vramplan.errors import VramplanError
from vramplan.model import Card

if TYPE_CHECKING:
    from vramplan.catalog.yaml_reader import Plain

_VERSION = 1
_NAME = "snapshot.json"
_PUBLISHED = "published"


class _Source(TypedDict):
    """One YAML file as it was: its bytes' length and CRC-32, and its checked data."""

    bytes: int
    crc32: int
    data: dict[str, Plain]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The shipped pipelines and cards, in the order of their files."""

    pipelines: tuple[Entry, ...]
    cards: tuple[Card, ...]


def source_files(profiles: Path, kind: str) -> list[Path]:
    """Return the YAML files of `kind` (pipelines, cards or published) under `profiles`, by name."""
    if kind == _PUBLISHED:
        return [path for path in [profiles / PUBLISHED_FILE] if path.is_file()]
    folder = profiles / kind
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def read_snapshot(profiles: Path) -> Snapshot | None:
    """Return the snapshot of `profiles`, or None when it is missing, damaged, foreign or stale."""
    content = _read(profiles)
    if content is None:
        return None
    if not all(_is_fresh(profiles, kind, content.get(kind)) for kind in ("pipelines", "cards")):
        return None
    pipelines = cast("Mapping[str, _Source]", content["pipelines"])
    cards = cast("Mapping[str, _Source]", content["cards"])
    return Snapshot(
        pipelines=tuple(
            build_pipeline(source["data"], str(profiles / "pipelines" / name))
            for name, source in pipelines.items()
        ),
        cards=tuple(card for source in cards.values() for card in build_cards(source["data"])),
    )


def read_published(profiles: Path) -> dict[str, Plain] | None:
    """Return the checked data of the published figures, or None when the file has to be read."""
    content = _read(profiles)
    if content is None or not _is_fresh(profiles, _PUBLISHED, content.get(_PUBLISHED)):
        return None
    sources = cast("Mapping[str, _Source]", content[_PUBLISHED])
    return next((source["data"] for source in sources.values()), None)


def _read(profiles: Path) -> dict[str, object] | None:
    try:
        content = json.loads((profiles / _NAME).read_bytes())
    except (OSError, ValueError):
        return None
    is_ours = isinstance(content, dict) and content.get("snapshot") == _VERSION
    return content if is_ours else None


def _is_fresh(profiles: Path, kind: str, sources: object) -> bool:
    files = source_files(profiles, kind)
    if not isinstance(sources, dict) or [file.name for file in files] != list(sources):
        return False
    for file in files:
        raw = file.read_bytes()
        recorded = sources[file.name]
        if len(raw) != recorded["bytes"] or zlib.crc32(raw) != recorded["crc32"]:
            return False
    return True


def snapshot_text(profiles: Path) -> str:
    """Return what the snapshot of `profiles` must say: the same text for the same sources.

    Raises CatalogError when a source is not valid.
    """
    from vramplan.catalog.cards import check_cards
    from vramplan.catalog.pipelines import check_pipeline
    from vramplan.catalog.published import check_published
    from vramplan.catalog.yaml_reader import read_yaml

    content: dict[str, object] = {"snapshot": _VERSION}
    checks = {
        "pipelines": check_pipeline,
        "cards": check_cards,
        _PUBLISHED: check_published,
    }
    for kind, check in checks.items():
        sources: dict[str, _Source] = {}
        for file in source_files(profiles, kind):
            raw = file.read_bytes()
            document = read_yaml(file)
            if errors := check(document):
                raise errors[0]
            data = cast("dict[str, Plain]", document.data)
            sources[file.name] = _Source(bytes=len(raw), crc32=zlib.crc32(raw), data=data)
        if sources or kind != _PUBLISHED:
            content[kind] = sources
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_snapshot(profiles: Path) -> Path:
    """Write the snapshot of `profiles` anew and return its path."""
    path = profiles / _NAME
    path.write_text(snapshot_text(profiles), encoding="utf-8", newline="\n")
    return path


def main(arguments: Sequence[str]) -> int:
    """Write the shipped snapshot, or with ``--check`` say whether it is as its sources say."""
    profiles = profiles_dir()
    try:
        if "--check" in arguments:
            path = profiles / _NAME
            fresh = path.is_file() and path.read_text(encoding="utf-8") == snapshot_text(profiles)
            stale = "stale: run python -m vramplan.catalog.snapshot"
            sys.stdout.write("fresh\n" if fresh else f"{stale}\n")
            return 0 if fresh else 1
        sys.stdout.write(f"{write_snapshot(profiles)}\n")
    except VramplanError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
