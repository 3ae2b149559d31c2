"""The shape of catalogue files, checked against the JSON Schemas that editors use.

`profiles/schema/*.schema.json` are the only description of the formats: an editor underlines with
them, and this module reports with them, naming line and column. It knows the keywords those files
use and no other; a schema with another keyword fails at once instead of going unchecked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from vramplan.catalog.shipped import profiles_dir
from vramplan.catalog.yaml_reader import Document, KeyPath, Plain
from vramplan.errors import CatalogError, did_you_mean
from vramplan.quick_dataclass import dataclass, replace

Schema = dict[str, Plain]

_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_SILENT = frozenset({"$schema", "$defs", "title", "description", "type"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A value of a document under the schema that it must fit."""

    document: Document
    where: KeyPath
    value: Plain
    schema: Schema
    root: Schema  # the file that the schema's references are looked up in

    def child(self, step: str | int, value: Plain, schema: Plain) -> _Place:
        return replace(self, where=(*self.where, step), value=value, schema=_dict(schema))

    def error(self, message: str, hint: str | None = None) -> CatalogError:
        description = self.schema.get("description")
        known = f"it is {description}" if isinstance(description, str) else None
        return self.document.error(self.where, message, hint=hint or known)


def check_shape(
    document: Document, schema_name: str, where: KeyPath = (), value: Plain = None
) -> list[CatalogError]:
    """Return what is not as ``<schema_name>.schema.json`` says; empty when everything is.

    Checks the whole document, or only the `value` that stands at `where` in it.
    """
    root = _load(schema_name)
    whole = document.data if value is None else value
    return list(_check(_Place(document=document, where=where, value=whole, schema=root, root=root)))


@lru_cache(maxsize=8)
def _load(schema_name: str) -> Schema:
    path = profiles_dir() / "schema" / f"{schema_name}.schema.json"
    schema: Schema = json.loads(path.read_text(encoding="utf-8"))
    return schema


def _check(place: _Place) -> Iterator[CatalogError]:
    place = _resolve(place)
    kinds = _list(place.schema.get("type", []))
    if kinds and not any(_IS_OF_KIND[str(kind)](place.value) for kind in kinds):
        wanted = " or ".join(_KINDS[str(kind)] for kind in kinds)
        yield place.error(f"expected {wanted}, found {_describe(place.value)}")
        return
    for keyword in place.schema:
        if keyword not in _SILENT:
            yield from _KEYWORDS[keyword](place)


def _resolve(place: _Place) -> _Place:
    reference = place.schema.get("$ref")
    if not isinstance(reference, str):
        return place
    if reference.startswith("#/$defs/"):
        definitions = _dict(place.root["$defs"])
        return replace(place, schema=_dict(definitions[reference.removeprefix("#/$defs/")]))
    other = _load(reference.removesuffix(".schema.json"))
    return replace(place, schema=other, root=other)


def _check_properties(place: _Place) -> Iterator[CatalogError]:
    known = _dict(place.schema["properties"])
    for key, value in _dict(place.value).items():
        if key in known:
            yield from _check(place.child(key, value, known[key]))


def _check_other_keys(place: _Place) -> Iterator[CatalogError]:
    known = _dict(place.schema.get("properties", {}))
    rule = place.schema["additionalProperties"]
    for key, value in _dict(place.value).items():
        if key in known:
            continue
        if rule is not False:
            yield from _check(place.child(key, value, rule))
            continue
        hint = did_you_mean(key, known) or "known keys: " + ", ".join(known)
        where = (*place.where, key)
        yield place.document.error(where, "unknown key", hint=hint, at_key=True)


def _check_required(place: _Place) -> Iterator[CatalogError]:
    known = _dict(place.schema["properties"])
    for key in _list(place.schema["required"]):
        if key not in _dict(place.value):
            rule = _resolve(place.child(str(key), None, known[str(key)])).schema
            description = rule.get("description")
            hint = f"{key} is {description}" if description else None
            yield place.document.error(place.where, f"the key {key!r} is missing", hint=hint)


def _check_enum(place: _Place) -> Iterator[CatalogError]:
    choices = _list(place.schema["enum"])
    if place.value not in choices:
        words = [choice for choice in choices if isinstance(choice, str)]
        hint = did_you_mean(str(place.value), words) or "use " + ", ".join(words)
        yield place.error(f"unknown {place.where[-1]} {place.value!r}", hint)


def _check_const(place: _Place) -> Iterator[CatalogError]:
    const = place.schema["const"]
    if place.value != const or isinstance(place.value, bool):
        yield place.error(f"{_describe(place.value)} is not known; this vramplan reads {const}")


def _check_pattern(place: _Place) -> Iterator[CatalogError]:
    if not re.fullmatch(str(place.schema["pattern"]), str(place.value)):
        yield place.error(f"{place.value!r} is not accepted")


def _check_any(place: _Place) -> Iterator[CatalogError]:
    """Check against the one of several schemas whose type the value has: types tell them apart."""
    choices = [_resolve(replace(place, schema=_dict(one))) for one in _list(place.schema["anyOf"])]
    kinds = []
    for choice in choices:
        its = [str(kind) for kind in _list(choice.schema["type"])]
        if any(_IS_OF_KIND[kind](place.value) for kind in its):
            yield from _check(choice)
            return
        kinds += [_KINDS[kind] for kind in its]
    wanted = " or ".join(dict.fromkeys(kinds))
    yield place.error(f"expected {wanted}, found {_describe(place.value)}")


def _check_items(place: _Place) -> Iterator[CatalogError]:
    for index, value in enumerate(_list(place.value)):
        yield from _check(place.child(index, value, place.schema["items"]))


def _check_unique(place: _Place) -> Iterator[CatalogError]:
    items = _list(place.value)
    for index, value in enumerate(items):
        if value in items[:index]:
            yield place.child(index, value, {}).error(f"{value!r} stands twice in the list")


def _bounded(keyword: str, what: str) -> Callable[[_Place], Iterator[CatalogError]]:
    """Return the check of a keyword that bounds a number, a length or a count."""
    is_low = keyword.startswith("min")

    def check(place: _Place) -> Iterator[CatalogError]:
        limit, value = place.schema[keyword], place.value
        size = len(value) if isinstance(value, str | list | dict) else value
        if not isinstance(size, int | float) or not isinstance(limit, int):
            return
        if size < limit if is_low else size > limit:
            yield place.error(f"must {what} {'at least' if is_low else 'at most'} {limit}")

    return check


def _describe(value: Plain) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _dict(value: Plain) -> dict[str, Plain]:
    return value if isinstance(value, dict) else {}


def _list(value: Plain) -> list[Plain]:
    return value if isinstance(value, list) else [value]


_IS_OF_KIND: Mapping[str, Callable[[Plain], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "null": lambda value: value is None,
}

_KEYWORDS: Mapping[str, Callable[[_Place], Iterator[CatalogError]]] = {
    "properties": _check_properties,
    "additionalProperties": _check_other_keys,
    "required": _check_required,
    "enum": _check_enum,
    "const": _check_const,
    "pattern": _check_pattern,
    "anyOf": _check_any,
    "items": _check_items,
    "uniqueItems": _check_unique,
    "minimum": _bounded("minimum", "be"),
    "maximum": _bounded("maximum", "be"),
    "minLength": _bounded("minLength", "have a length of"),
    "maxLength": _bounded("maxLength", "have a length of"),
    "minItems": _bounded("minItems", "list"),
    "maxItems": _bounded("maxItems", "list"),
    "minProperties": _bounded("minProperties", "have a number of keys of"),
}
