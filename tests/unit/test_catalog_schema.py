"""The shape check says of a document what a full JSON Schema validator says."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from vramplan.catalog.schema import _KEYWORDS, _SILENT, check_shape
from vramplan.catalog.shipped import profiles_dir
from vramplan.catalog.yaml_reader import Document, Plain, parse_yaml

SCHEMAS = {
    name: json.loads((profiles_dir() / "schema" / f"{name}.schema.json").read_text("utf-8"))
    for name in ("pipeline", "card", "project", "sweep")
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (f"{name}.schema.json", Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)

PIPELINE: dict[str, Plain] = {
    "schema": 1,
    "name": "sd15",
    "aliases": ["stable-diffusion-1.5"],
    "title": "Stable Diffusion 1.5",
    "summary": "Text to image.",
    "runtime": "diffusers",
    "source": "https://example.org",
    "tape": "sd15",
    "loading": "to",
    "settings": {"image": "512x512", "batch": 1},
    "constraints": {
        "image": {"multiple_of": 8, "min": 64, "max": 4096},
        "mode": {"choices": ["a"]},
    },
    "scheduler": {"class": "diffusers.PNDMScheduler", "config": {}},
    "components": [{"name": "unet", "class": "diffusers.UNet2DConditionModel", "config": {"a": 1}}],
    "ggml": {"file": "x.gguf"},
}
DOCUMENTS: dict[str, dict[str, Plain]] = {
    "pipeline": PIPELINE,
    "card": {
        "schema": 1,
        "cards": [
            {
                "name": "rtx-3060-12gb",
                "aliases": ["a"],
                "title": "RTX 3060",
                "kind": "consumer",
                "class_gib": 12,
                "total_bytes": "12288MiB",
                "reserved_bytes": 1,
                "compute_capability": "8.6",
                "bandwidth_bytes_per_s": "360GB",
                "source": "x",
            }
        ],
    },
    "project": {
        "schema": 1,
        "targets": ["sd15", "llava:7b"],
        "cards": ["8gb"],
        "settings": {"batch": 2},
        "together": "on",
        "catalog": ".",
        "pipelines": [PIPELINE],
    },
    "sweep": {
        "schema": 1,
        "cards": ["8gb", "all"],
        "grids": [{"targets": ["sd15"], "settings": {"batch": [1, "2..4"], "dtype": "fp16"}}],
        "margin": "500MiB",
        "other": 0,
        "catalog": ".",
    },
}
REPLACEMENTS: list[Plain] = [
    None, True, 0, -1, 1, 2, 5000, 1.5, "", "x", "Upper Case", "on", "sd15", "diffusers",
    "os.system", "torch.nn.Linear", "x" * 2000, [], ["a", "a"], [1], {}, {"x": 1}, {"choices": []},
]  # fmt: skip


def document(data: Plain) -> Document:
    return parse_yaml(json.dumps(data), "f.yaml")


def spots(data: Plain, where: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children: list[tuple[str | int, Plain]] = []
    if isinstance(data, dict):
        children = list(data.items())
    elif isinstance(data, list):
        children = list(enumerate(data))
    return [where, *(spot for step, child in children for spot in spots(child, (*where, step)))]


def changed(data: Plain, where: tuple[str | int, ...], change: str, value: Plain) -> Plain:
    """Return `data` with the value at `where` replaced, or removed, or with a key beside it."""
    if not where:
        return value
    whole = copy.deepcopy(data)
    node: Any = whole
    for step in where[:-1]:
        node = node[step]
    if change == "replace":
        node[where[-1]] = value
    elif change == "remove":
        del node[where[-1]]
    elif isinstance(node, dict):
        node["surprise"] = value
    return whole


@given(st.data())
def test_it_finds_fault_exactly_where_jsonschema_does(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SCHEMAS)))
    where = data.draw(st.sampled_from(spots(DOCUMENTS[name])))
    change = data.draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    wrong = changed(DOCUMENTS[name], where, change, data.draw(st.sampled_from(REPLACEMENTS)))
    if wrong is None:
        return  # an empty file never gets this far
    validator = Draft202012Validator(SCHEMAS[name], registry=REGISTRY)
    found = check_shape(document(wrong), name)
    assert bool(found) == bool(list(validator.iter_errors(wrong))), (wrong, found)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_schemas_are_schemas_and_use_only_keywords_that_are_checked(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert keywords(SCHEMAS[name]) <= set(_KEYWORDS) | _SILENT | {"$ref"}
    assert check_shape(document(DOCUMENTS[name]), name) == []


def keywords(schema: Plain) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    below: list[Plain] = [schema.get("items"), schema.get("additionalProperties")]
    for group in ("properties", "$defs"):
        members = schema.get(group, {})
        assert isinstance(members, dict)
        below += members.values()
    return set(schema).union(*(keywords(child) for child in below))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("titel: x", "f.yaml:2:1: titel: unknown key", "did you mean 'title'?"),
        ("zzz: x", "f.yaml:2:1: zzz: unknown key", "known keys: schema, name"),
        ("runtime: difusers", "2:10: runtime: unknown runtime 'difusers'", "'diffusers'?"),
        ("title: [a]", "2:8: title: expected text, found a list", "it is the name people use"),
        ("title:", "title: expected text, found nothing", ""),
        ("title: 12", "title: expected text, found 12", ""),
        ("settings: {}", "settings: must have a number of keys of at least 1", ""),
        ("components: []", "components: must list at least 1", ""),
        ("schema: 2", "schema: 2 is not known; this vramplan reads 1", ""),
        ("tape: ../x", "tape: '../x' is not accepted", "lower-case letters, digits"),
        ("aliases: [a, a]", "2:14: aliases[1]: 'a' stands twice in the list", ""),
        ("settings: {batch: [1]}", "settings.batch: expected text or a whole number", ""),
        ("constraints: {batch: {min: 1.5}}", "constraints.batch.min: expected a whole number", ""),
        (
            "components: [{name: a, class: os.system}]",
            "components.a.class: 'os.system' is not accepted",
            "nothing else is ever imported",
        ),
        ("components: [{name: a, class: transformers.utils.X}]", "is not accepted", ""),
    ],
)
def test_messages_are_for_people(text: str, message: str, hint: str) -> None:
    errors = check_shape(parse_yaml(f"name: a\n{text}\n", "f.yaml"), "pipeline")
    found = [error for error in errors if message in str(error)]
    assert found, [str(error) for error in errors]
    assert hint in (found[0].hint or "")


def test_missing_keys_are_all_named() -> None:
    errors = check_shape(parse_yaml("name: a\n", "f.yaml"), "pipeline")
    assert [str(error) for error in errors] == [
        f"f.yaml:1:1: the key {key!r} is missing"
        for key in ("title", "summary", "runtime", "source", "settings")
    ]
    assert errors[2].hint == "runtime is what loads and runs it"
