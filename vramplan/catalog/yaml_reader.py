"""YAML in, plain data out, with the place of every key and value kept for messages.

Plain data is what JSON has: mappings with text keys, lists, text, numbers, true, false and null.
PyYAML parses (libyaml's parser where it is built in); what its events mean is decided here, because
YAML 1.1 reads more into plain words than their writers mean: ``on`` and ``no`` become booleans,
``12:30`` becomes 750, ``010`` becomes 8 and ``1e6`` stays text. Here ``on``, ``no``, ``12:30`` and
``010`` are the text they look like and ``1e6`` is a number.

A catalogue file may come from anywhere, so its size and its depth are bounded, and anchors, aliases
and tags are refused: a few lines of aliases can stand for gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from vramplan.errors import CatalogError
from vramplan.opened_file import open_file
from vramplan.quick_dataclass import dataclass, field

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
KeyPath = tuple[str | int, ...]
#: line and column, both counted from 1
Mark = tuple[int, int]

LARGEST_FILE_BYTES = 256 * 1024
DEEPEST_NESTING = 24

_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_WORDS: Mapping[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file's plain data, and where each of its keys and values stands."""

    path: str
    data: Plain
    key_marks: Mapping[KeyPath, Mark] = field(repr=False)
    value_marks: Mapping[KeyPath, Mark] = field(repr=False)

    def error(
        self, where: KeyPath, message: str, *, hint: str | None = None, at_key: bool = False
    ) -> CatalogError:
        """Return an error about the value (or the key) at `where`, to be raised or listed."""
        marks = self.key_marks if at_key else self.value_marks
        mark = marks.get(where) or self.value_marks.get(where) or self._nearest_mark(where)
        named = f"{self.name(where)}: " if where else ""
        return CatalogError(f"{self.path}:{mark[0]}:{mark[1]}: {named}{message}", hint=hint)

    def at(self, where: KeyPath) -> str:
        """Return where a value stands, as messages begin: ``vramplan.yaml:2:5``."""
        line, column = self._nearest_mark(where)
        return f"{self.path}:{line}:{column}"

    def name(self, where: KeyPath) -> str:
        """Return the dotted path; an item of a list goes by its `name` where it has one."""
        node, parts = self.data, []
        for step in where:
            child: Plain = None
            if isinstance(node, dict) and isinstance(step, str):
                child = node.get(step)
                parts.append(f".{step}")
            elif isinstance(node, list) and isinstance(step, int) and step < len(node):
                child = node[step]
                named = child.get("name") if isinstance(child, dict) else None
                parts.append(f".{named}" if isinstance(named, str) else f"[{step}]")
            else:
                parts.append(f".{step}")
            node = child
        return "".join(parts).removeprefix(".")

    def _nearest_mark(self, where: KeyPath) -> Mark:
        while where and where not in self.value_marks:
            where = where[:-1]
        return self.value_marks.get(where, (1, 1))


def read_yaml(path: Path) -> Document:
    """Return the plain data of the YAML file at `path`.

    Raises CatalogError for a file that cannot be read, is not UTF-8, is not YAML, is empty, is too
    large or too deep, or uses duplicate keys, anchors, aliases, tags or several documents.
    """
    try:
        with open_file(path) as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as problem:
        raise CatalogError(f"{path}: cannot be read: {problem.strerror}") from problem
    if len(raw) > LARGEST_FILE_BYTES:
        raise CatalogError(f"{path}: larger than {LARGEST_FILE_BYTES // 1024} KiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise CatalogError(f"{path}:{line}:1: not UTF-8 text") from problem
    return parse_yaml(text, str(path))


def parse_yaml(text: str, path: str) -> Document:
    """Return the plain data of YAML `text`; `path` is how messages call it."""
    try:
        return _Builder(path).build(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise CatalogError(f"{path}{place}: not YAML: {problem.problem}") from problem
    except yaml.reader.ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        code = problem.character  # libyaml gives the number, PyYAML's own reader the character
        what = f"the character U+{code if isinstance(code, int) else ord(code):04X} is not allowed"
        raise CatalogError(f"{path}:{line}:1: not YAML: {what}") from problem


class _Builder:
    """Turns the parser's events into plain data, once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._key_marks: dict[KeyPath, Mark] = {}
        self._value_marks: dict[KeyPath, Mark] = {}

    def build(self, events: Iterator[yaml.Event]) -> Document:
        data: Plain = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error(event, "only one document is allowed in a file")
                data = self._value(next(events), events, ())
        if not documents or data is None:
            raise CatalogError(f"{self._path}:1:1: the file is empty")
        return Document(
            path=self._path, data=data, key_marks=self._key_marks, value_marks=self._value_marks
        )

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], where: KeyPath) -> Plain:
        self._refuse_cleverness(event)
        self._value_marks[where] = _mark(event)
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if len(where) >= DEEPEST_NESTING:
            raise self._error(event, f"nested more than {DEEPEST_NESTING} deep")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(events, where)
        return self._mapping(events, where)

    def _list(self, events: Iterator[yaml.Event], where: KeyPath) -> list[Plain]:
        items: list[Plain] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._value(event, events, (*where, len(items))))
        return items

    def _mapping(self, events: Iterator[yaml.Event], where: KeyPath) -> dict[str, Plain]:
        pairs: dict[str, Plain] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            self._refuse_cleverness(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "a key must be a word")
            key = event.value
            if key in pairs:
                first = self._key_marks[(*where, key)]
                hint = f"it stands first in line {first[0]}"
                raise self._error(event, f"the key {key!r} appears twice", hint=hint)
            self._key_marks[(*where, key)] = _mark(event)
            pairs[key] = self._value(next(events), events, (*where, key))
        return pairs

    def _refuse_cleverness(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise self._error(event, "anchors and aliases are not allowed", hint="write it out")
        tag = getattr(event, "tag", None)
        if tag:
            raise self._error(event, f"the tag {tag!r} is not allowed")

    def _error(self, event: yaml.Event, message: str, *, hint: str | None = None) -> CatalogError:
        line, column = _mark(event)
        return CatalogError(f"{self._path}:{line}:{column}: {message}", hint=hint)


def _mark(event: yaml.Event) -> Mark:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _scalar(event: yaml.ScalarEvent) -> Plain:
    """Return what a scalar says: quoted is text, plain may be a number, true, false or null."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) <= 20 else text
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text
