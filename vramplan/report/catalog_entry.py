"""One pipeline of the catalogue, whole: its settings, what they accept, and its parts."""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.catalog.pipelines import Entry
from vramplan.known_settings import SETTING_HELP
from vramplan.model import Constraint, Pipeline
from vramplan.quick_typing import TYPE_CHECKING, cast
from vramplan.report import phrases, serial
from vramplan.report.colour import Tone
from vramplan.report.rows import Table, cell, table
from vramplan.report.sheet import Sheet
from vramplan.report.text import clean

if TYPE_CHECKING:
    from vramplan.report.serial import Json

_NO_CONSTRAINT = Constraint()


def entry_sheet(pipeline: Pipeline) -> Sheet:
    """Return a pipeline's entry to be shown to a person."""
    also = ", ".join(pipeline.aliases)
    tables = [("settings", _settings(pipeline))]
    hub = pipeline.repositories if isinstance(pipeline, Entry) else ()
    tape = None
    if isinstance(pipeline, Entry):
        tape = pipeline.text("tape")
        if pipeline.components():
            tables.append(("components", _components(pipeline)))
        if (described := pipeline.section("ggml")) is not None:
            tables.append(("model file", _model_file(described)))
    return Sheet(
        heading=f"{pipeline.name} · {pipeline.title}",
        lines=[
            pipeline.summary,
            f"also called: {also}" if also else "",
            f"on the hub: {', '.join(hub)}" if hub else "",
            f"runtime: {pipeline.runtime}" + (f", tape: {tape}" if tape else ""),
            *_kind_of(pipeline),
            f"source: {pipeline.source}",
            f"file: {pipeline.path}",
        ],
        tables=tables,
    )


def _kind_of(pipeline: Pipeline) -> list[str]:
    """Return what an entry says of its family, its task and its licence, each a line."""
    if not isinstance(pipeline, Entry):
        return []
    said = {"family": pipeline.family, "task": pipeline.task, "licence": pipeline.license}
    return [f"{key}: {value}" for key, value in said.items() if value]


def entry_result(pipeline: Pipeline) -> dict[str, Json]:
    """Return a pipeline's entry as the JSON result of ``catalog show``."""
    listed = cast("list[dict[str, Json]]", serial.catalog_result([pipeline])["pipelines"])
    body = pipeline.body if isinstance(pipeline, Entry) else {}
    components = pipeline.components() if isinstance(pipeline, Entry) else ()
    return {
        **listed[0],
        "tape": cast("Json", body.get("tape")),
        "loading": cast("Json", body.get("loading", "to")),
        "constraints": {
            key: {
                "choices": list(bounds.choices) or None,
                "multiple_of": bounds.multiple_of,
                "min": bounds.minimum,
                "max": bounds.maximum,
            }
            for key, bounds in pipeline.constraints.items()
        },
        "components": [
            {
                "name": part.name,
                "class": part.class_path,
                "parameters": part.parameters,
                "config": cast("Json", part.config),
            }
            for part in components
        ],
        "ggml": cast("Json", body.get("ggml")),
    }


def _settings(pipeline: Pipeline) -> Table:
    rows = (
        (
            cell(phrases.name(key), tone=Tone.STRONG),
            cell(phrases.value(value)),
            cell(clean(_accepts(pipeline.constraints.get(key, _NO_CONSTRAINT)), 240)),
            cell(SETTING_HELP.get(key, "")),
        )
        for key, value in pipeline.defaults.items()
    )
    return table("setting!, default, accepts, what it is", rows)


def _accepts(bounds: Constraint) -> str:
    """Return which values are accepted, in words: ``64 to 4096, multiples of 8``."""
    words = [", ".join(bounds.choices)] if bounds.choices else []
    low, high = bounds.minimum, bounds.maximum
    if low is not None and high is not None:
        words.append(f"{low} to {high}")
    elif high is not None:
        words.append(f"up to {high}")
    elif low is not None:
        words.append(f"{low} or more")
    if bounds.multiple_of is not None:
        words.append(f"multiples of {bounds.multiple_of}")
    return ", ".join(words) or phrases.NOTHING


def _components(entry: Entry) -> Table:
    scheduler = entry.scheduler()
    parts = [*entry.components(), *([scheduler] if scheduler else [])]
    rows = (
        (
            cell(phrases.name(part.name), tone=Tone.STRONG),
            cell(clean(part.class_path, 120)),
            cell(f"{part.parameters:,}" if part.parameters else phrases.NOTHING),
        )
        for part in parts
    )
    return table("component!, class!, parameters#", rows)


def _model_file(ggml: Mapping[str, object]) -> Table:
    rows = ((cell(phrases.name(key)), cell(clean(value, 120))) for key, value in _flatten("", ggml))
    return table("key!, value", rows)


def _flatten(prefix: str, data: Mapping[str, object]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            found += _flatten(f"{prefix}{key}.", value)
        else:
            found.append((f"{prefix}{key}", str(value)))
    return found
