"""Writes the lower half of catalogue.md from the JSON Schemas and the settings.

    python -m tools.docs.catalogue            rewrite docs/catalogue.md
    python -m tools.docs.catalogue --check    exit 1 where it is out of date

Everything above the marker is written by hand and kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tools.docs.page import ROOT, escape, run_generator

MODULE = "tools.docs.catalogue"
PAGE = ROOT / "docs" / "catalogue.md"
SCHEMAS = ROOT / "profiles" / "schema"

#: each kind of file, the schema that describes it, and where such files live
FILES = {
    "A pipeline": ("pipeline.schema.json", "`profiles/pipelines/*.yaml`"),
    "Cards": ("card.schema.json", "`profiles/cards/*.yaml`"),
    "A project": ("project.schema.json", "`vramplan.yaml` beside a project"),
    "A sweep": ("sweep.schema.json", "a YAML file of any name"),
}

Schema = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a catalogue file: its path, whether it must be there, its values, its meaning."""

    path: str
    is_required: bool
    values: str
    meaning: str


def render() -> str:
    """Return the reference of all kinds of file and of the settings, as MyST."""
    sections = []
    for title, (name, place) in FILES.items():
        schema = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
        intro = f"{place} (JSON Schema: `profiles/schema/{name}`). {escape(schema['description'])}"
        sections.append(f"## {title}\n\n{intro}\n\n{render_keys(schema)}")
    sections.append(_settings())
    return "\n\n".join(sections) + "\n"


def render_keys(schema: Schema) -> str:
    """Return a schema's keys as a table; ``components[].name`` is a key of each list item."""
    rows = [
        f"| `{key.path}` | {'yes' if key.is_required else ''} | {key.values} | {key.meaning} |"
        for key in find_keys(schema, schema, "")
    ]
    return "\n".join(["| key | needed | value | meaning |", "|---|---|---|---|", *rows])


def find_keys(schema: Schema, root: Schema, prefix: str) -> Iterator[Key]:
    """Yield every key below `schema`, outer keys first, in the order in which they are declared."""
    required = schema.get("required", [])
    assert isinstance(required, list)
    for name, entry in _mapping(schema.get("properties")).items():
        child = _resolve(_mapping(entry), root)
        path = f"{prefix}{name}"
        yield Key(
            path=path,
            is_required=name in required,
            values=_values(child, root),
            meaning=escape(str(child.get("description", ""))),
        )
        yield from _find_below(child, root, path)


def _find_below(schema: Schema, root: Schema, path: str) -> Iterator[Key]:
    yield from find_keys(schema, root, f"{path}.")
    for choice in _choices(schema, root):
        yield from _find_below(choice, root, path)
    for keyword, mark in (("items", "[]"), ("additionalProperties", ".*")):
        below = schema.get(keyword)
        if isinstance(below, dict):
            yield from _find_below(_resolve(below, root), root, path + mark)


def _resolve(schema: Schema, root: Schema) -> Schema:
    """Follow a reference into the same file; what stands beside the reference wins."""
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
        return schema
    return {**_mapping(_mapping(root["$defs"])[reference.rsplit("/", 1)[1]]), **schema}


def _choices(schema: Schema, root: Schema) -> list[Schema]:
    """Return the schemas that a value may fit, one of them."""
    listed = schema.get("anyOf", [])
    assert isinstance(listed, list)
    return [_resolve(_mapping(choice), root) for choice in listed]


def _values(schema: Schema, root: Schema) -> str:
    """Return which values a key takes, in words."""
    if choices := _choices(schema, root):
        return " or ".join(_values(choice, root) for choice in choices)
    if "const" in schema:
        return f"`{schema['const']}`"
    if isinstance(schema.get("enum"), list):
        return ", ".join(f"`{_word(value)}`" for value in schema["enum"])  # type: ignore[attr-defined]  # a list, by the test above it
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.endswith(".json"):
        return _REFERENCES[reference]
    kinds = schema.get("type", [])
    names = [kinds] if isinstance(kinds, str) else kinds
    assert isinstance(names, list)
    if names == ["array"]:
        items = _resolve(_mapping(schema["items"]), root)
        return f"a list of {_plural(items, root)}"
    return " or ".join(_KINDS[str(name)] for name in names) + _bounds(schema)


def _plural(items: Schema, root: Schema) -> str:
    if choices := _choices(items, root):
        return " or ".join(_plural(choice, root) for choice in choices)
    if items.get("type") == "array":
        return f"lists of {_plural(_resolve(_mapping(items['items']), root), root)}"
    return "mappings" if items.get("type") == "object" else _values(items, root)


_KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`on` or `off`",
    "object": "mapping",
    "null": "`null`",
}
_REFERENCES = {"pipeline.schema.json": "pipelines, with the keys of a pipeline's file"}


def _word(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low is not None else ""


def _mapping(value: object) -> Schema:
    return value if isinstance(value, dict) else {}


def _settings() -> str:
    from vramplan.known_settings import SETTING_HELP

    rows = [f"| `{key}` | {escape(meaning)} |" for key, meaning in SETTING_HELP.items()]
    head = (
        "## Settings\n\n"
        "All the keys that `settings` may have in a pipeline's file, and that `--set` takes for a\n"
        "pipeline that has them. A value is written alike in YAML and on the command line.\n\n"
        "| key | meaning |\n|---|---|\n"
    )
    return head + "\n".join(rows)


if __name__ == "__main__":
    sys.exit(run_generator(PAGE, MODULE, render))
