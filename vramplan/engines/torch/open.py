"""A pipeline that torch runs, from the catalogue's entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vramplan.catalog.pipelines import Entry
from vramplan.engines.torch.pipeline import TorchPipeline


def open_entry(entry: Entry, folders: Sequence[Path]) -> TorchPipeline:
    """Return the pipeline of a catalogue's entry; its tape is looked for in `folders`."""
    return TorchPipeline(
        name=entry.name,
        title=entry.title,
        summary=entry.summary,
        runtime=entry.runtime,
        defaults=entry.defaults,
        constraints=entry.constraints,
        source=entry.source,
        path=entry.path,
        aliases=entry.aliases,
        components=entry.components(),
        scheduler=entry.scheduler(),
        class_path=entry.text("class"),
        parts=entry.section("parts") or {},
        tape=entry.text("tape"),
        loading=entry.text("loading") or "to",
        folders=tuple(folders),
    )
