"""The catalogue page says what the schemas say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools.docs import catalogue
from tools.docs.catalogue import FILES, SCHEMAS, render_keys
from tools.docs.page import replace_generated
from vramplan.catalog.cards import load_card_file
from vramplan.catalog.pipelines import load_pipeline_file
from vramplan.catalog.project import load_project
from vramplan.errors import CatalogError


def test_page_is_up_to_date() -> None:
    page = catalogue.PAGE.read_text(encoding="utf-8")
    fresh = replace_generated(page, catalogue.MODULE, catalogue.render())
    assert fresh == page, "run: python -m tools.docs.catalogue"


def test_keys_are_listed_with_what_is_below_them() -> None:
    schema = {
        "type": "object",
        "required": ["parts"],
        "properties": {
            "parts": {
                "type": "array",
                "description": "the parts",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"$ref": "#/$defs/name"}, "n": {"type": "integer"}},
                },
            },
            "limits": {
                "type": "object",
                "additionalProperties": {"properties": {"min": {"type": "integer", "minimum": 0}}},
            },
            "kind": {"enum": ["a", "b", True], "description": "a | b"},
        },
        "$defs": {"name": {"type": "string", "description": "a name"}},
    }
    assert render_keys(schema).splitlines()[2:] == [
        "| `parts` | yes | a list of mappings | the parts |",
        "| `parts[].name` | yes | text | a name |",
        "| `parts[].n` |  | whole number |  |",
        "| `limits` |  | mapping |  |",
        "| `limits.*.min` |  | whole number, at least 0 |  |",
        "| `kind` |  | `a`, `b`, `true` | a \\| b |",
    ]


@pytest.mark.parametrize("name", [name for name, _ in FILES.values()])
def test_every_key_of_a_schema_is_on_the_page(name: str) -> None:
    """A walk over the schema that knows nothing of the generator finds no key without a row."""
    page = catalogue.PAGE.read_text(encoding="utf-8")
    pending = [json.loads((SCHEMAS / name).read_text(encoding="utf-8"))]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key in value.get("properties", {}):
                assert f"{key}`" in page, key
            pending.extend(value.values())


def test_examples_on_the_page_are_valid(tmp_path: Path) -> None:
    page = catalogue.PAGE.read_text(encoding="utf-8")
    checks = {
        "vramplan.yaml": load_project,
        "cards": load_card_file,
        "pipelines": load_pipeline_file,
    }
    seen = set()
    for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        kind = re.match(r"# ([a-z.]+)", block)
        assert kind is not None, "an example begins with the name of its file"
        path = tmp_path / "example.yaml"
        path.write_text(block, encoding="utf-8")
        checks[kind.group(1)](path)
        seen.add(kind.group(1))
    assert seen == set(checks)


def test_error_on_the_page_is_what_the_example_with_a_slip_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = catalogue.PAGE.read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(# pipelines/my-vae.yaml\n.*?)```", page, re.DOTALL)
    shown = re.search(r"error: (.*)\nhint: (.*)\n", page)
    assert example is not None
    assert shown is not None
    monkeypatch.chdir(tmp_path)
    path = Path("pipelines/my-vae.yaml")
    path.parent.mkdir()
    path.write_text(example.group(1).replace("dtype: fp16", "dtype: fp17"), encoding="utf-8")
    with pytest.raises(CatalogError) as error:
        load_pipeline_file(path)
    assert (str(error.value), error.value.hint) == shown.groups()
