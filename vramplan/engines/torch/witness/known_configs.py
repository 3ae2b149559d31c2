"""What the catalogue knows of the hub's models, as a file that a program's own process can read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vramplan.catalog.pipelines import Entry
from vramplan.engines.torch.witness.card_state import CONFIGS_FILE
from vramplan.model import ComponentSpec

#: entries without a class of their own are run by hand; what the repository's index names
_PIPELINES = (
    ({"unet", "text_encoder_2"}, "diffusers.StableDiffusionXLPipeline"),
    ({"unet", "text_encoder"}, "diffusers.StableDiffusionPipeline"),
)


def write_known(folder: Path, entries: Iterable[Entry]) -> None:
    """Write the configs of all entries that stand for a repository into a run's folder."""
    found: dict[str, Any] = {}
    for entry in entries:
        if entry.repositories and entry.components():
            described = _described(entry)
            found |= {repository.lower(): described for repository in entry.repositories}
    (folder / CONFIGS_FILE).write_text(json.dumps(found))


def _described(entry: Entry) -> dict[str, Any]:
    scheduler = entry.scheduler()
    components = entry.components()
    return {
        "name": entry.name,
        "class": entry.text("class") or _pipeline_class(components),
        "runtime": str(entry.runtime),
        "dtype": str(entry.defaults.get("dtype", "")),
        "parts": dict(entry.section("parts") or {}),
        "scheduler": None if scheduler is None else _component(scheduler),
        "components": [_component(one) for one in components],
    }


def _pipeline_class(components: Iterable[ComponentSpec]) -> str | None:
    names = {one.name for one in components}
    return next((path for parts, path in _PIPELINES if parts <= names), None)


def _component(one: ComponentSpec) -> dict[str, Any]:
    return {"name": one.name, "class": one.class_path, "config": _plain(one.config)}


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
