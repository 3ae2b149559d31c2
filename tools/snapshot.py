"""Writes the shipped catalogue as one JSON file, `profiles/snapshot.json`.

    python -m tools.snapshot            write it anew
    python -m tools.snapshot --check    exit 1 where it is not as its sources say

What it is for, and when it is believed, is said where it is read: `vramplan.catalog.snapshot`.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from vramplan.catalog.cards import check_cards, with_sizes_in_bytes
from vramplan.catalog.pipelines import check_pipeline
from vramplan.catalog.published import check_published
from vramplan.catalog.shipped import profiles_dir
from vramplan.catalog.snapshot import NAME, PUBLISHED, VERSION, line_name, source_files
from vramplan.catalog.yaml_reader import Plain, read_yaml
from vramplan.errors import VramplanError

_CHECKS = {"pipelines": check_pipeline, "cards": check_cards, PUBLISHED: check_published}


def snapshot_text(profiles: Path) -> str:
    """Return what the snapshot of `profiles` must say: the same text for the same sources.

    Raises CatalogError when a source is not valid.
    """
    index: dict[str, dict[str, Mapping[str, object]]] = {}
    lines: list[str] = []
    at = 0
    for kind, check in _CHECKS.items():
        sources = index[kind] = {}
        for name in source_files(profiles, kind):
            file = profiles / ("" if kind == PUBLISHED else kind) / name
            raw = file.read_bytes()
            document = read_yaml(file)
            if errors := check(document):
                raise errors[0]
            data = cast("dict[str, Plain]", document.data)
            if kind == "cards":  # so that no start reads hundreds of sizes
                data = with_sizes_in_bytes(data)
            sources[name] = {"bytes": len(raw), "crc32": zlib.crc32(raw), "at": at}
            if kind == "pipelines":
                called = {key: data.get(key, []) for key in ("aliases", "repositories")}
                sources[name] = {**sources[name], "name": data["name"], **called}
            lines.append(f"{_dense(line_name(kind, name))}:{_dense(data)}")
            at += len(lines[-1].encode()) + 2  # a comma, and the line's end
    head = [f'{{"snapshot":{VERSION},', f'"index":{_dense(index)}']
    return "\n".join([head[0], ",\n".join([head[1], *lines])]) + "\n}\n"


def _dense(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def write_snapshot(profiles: Path) -> Path:
    """Write the snapshot of `profiles` anew and return its path."""
    path = profiles / NAME
    path.write_text(snapshot_text(profiles), encoding="utf-8", newline="\n")
    return path


def main(arguments: Sequence[str]) -> int:
    """Write the shipped snapshot, or with ``--check`` say whether it is as its sources say."""
    profiles = profiles_dir()
    try:
        if "--check" in arguments:
            path = profiles / NAME
            is_fresh = path.is_file() and path.read_text(encoding="utf-8") == snapshot_text(
                profiles
            )
            print("fresh" if is_fresh else "stale: run python -m tools.snapshot")
            return 0 if is_fresh else 1
        print(write_snapshot(profiles))
    except VramplanError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
