"""Writes the lower half of pipelines.md: every entry of the catalogue, by family.

python -m tools.docs.pipelines            rewrite docs/pipelines.md
python -m tools.docs.pipelines --check    exit 1 where it is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tools.docs.page import ROOT, escape, run_generator
from vramplan.catalog import load_catalog
from vramplan.catalog.pipelines import Entry, setting_text

MODULE = "tools.docs.pipelines"
PAGE = ROOT / "docs" / "pipelines.md"
#: settings that are said of a default run, where an entry has them
_SHOWN = ("mode", "image", "frames", "prompt_tokens", "new_tokens", "batch", "dtype", "steps")
_HUB = "https://huggingface.co/"


def render() -> str:
    """Return a table of each family, as MyST."""
    families: dict[str, list[Entry]] = {}
    for entry in load_catalog(()).pipelines.values():
        families.setdefault(entry.family, []).append(entry)
    total = sum(map(len, families.values()))
    sections = [f"{total} entries in {len(families)} families."]
    for name in sorted(families, key=str.lower):
        sections.append(f"## {name}\n\n{_table(families[name])}")
    return "\n\n".join(sections) + "\n"


def _table(entries: Iterable[Entry]) -> str:
    head = ["| name | what it is | parameters | by default | licence |", "|---|---|--:|---|---|"]
    return "\n".join([*head, *map(_row, entries)])


def _row(entry: Entry) -> str:
    also = "".join(f"<br>`{alias}`" for alias in entry.aliases)
    hub = f"[{escape(entry.title)}]({_HUB}{entry.repositories[0]})" if entry.repositories else ""
    said = " ".join(
        f"{key}={_text(entry.defaults[key])}" for key in _SHOWN if key in entry.defaults
    )
    count = f"{entry.parameters:,}" if entry.parameters else ""
    cells = (
        f"`{entry.name}`{also}",
        hub or escape(entry.title),
        count,
        said or entry.runtime,
        escape(entry.license),
    )
    return "| " + " | ".join(cells) + " |"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return setting_text(value)  # type: ignore[arg-type]  # a setting's value is text, a number or a word


if __name__ == "__main__":
    sys.exit(run_generator(PAGE, MODULE, render))
