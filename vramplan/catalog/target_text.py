"""A TARGET's text: what it names, and settings of its own in brackets behind that.

    sd15[offload=model,image=768x768]

The brackets are at the end, with commas between settings; commas within a value's own brackets are
the value's. A file or a folder whose own name ends so goes before: it is there, and is meant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping

from vramplan.errors import UsageError
from vramplan.quick_dataclass import dataclass, field
from vramplan.quick_typing import TypeVar
from vramplan.setting_values import SettingValue
from vramplan.settings import parse_assignment

#: what is meant for a setting, and is not a bracket in some other name
_SETTING = r"\s*(?:[A-Za-z_]+\s*(?:=|$)|$)"
_OPEN, _CLOSE = "([{", ")]}"
#: what a whole TARGET may be long, its settings with it: a path and a few patterns
LONGEST = 16_384
#: no pipeline has as many settings
_MOST = 64

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a TARGET names, the settings that are its own, and what a project calls it.

    `place` is where it stands in a project's file, as messages begin: ``vramplan.yaml:2:5``.
    """

    text: str
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    name: str = ""
    place: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        """Return what messages call it."""
        return self.name or self.text


def read_target(text: str) -> Target:
    """Return what a TARGET says; raises UsageError, which names it, for settings that are none."""
    name, settings = split_target(text, parse_assignment)
    return Target(text=name, settings=settings)


def split_target(
    text: str, read: Callable[[str], tuple[str, Value]]
) -> tuple[str, dict[str, Value]]:
    """Return what a TARGET names, and its settings as `read` takes each ``key=value``.

    Raises UsageError where the brackets or a setting in them are wrong.
    """
    if len(text) > LONGEST:
        raise UsageError(f"a TARGET of {len(text):,} characters is longer than {LONGEST:,}")
    if "[" not in text and not text.endswith("]"):
        return text, {}
    if _is_there(text):
        return text, {}
    start = _opening(text)
    if start is None:
        return text, {}
    name, inside = text[:start], text[start + 1 : -1]
    if not name:
        raise UsageError(f"{text!r}: nothing stands before the bracket", hint=_hint("sd15"))
    if not inside.strip():
        hint = f"leave the brackets out, or write {_example(name)}"
        raise UsageError(f"{text!r}: no setting is in the brackets", hint=hint)
    found: dict[str, Value] = {}
    for part in _parts(inside):
        if len(found) == _MOST:
            raise UsageError(f"{name}: more than {_MOST} settings are in the brackets")
        try:
            key, value = read(part)
        except UsageError as problem:
            raise UsageError(f"{name}: {problem}", hint=problem.hint) from None
        if key in found:
            raise UsageError(f"{name}: {key} stands twice in the brackets")
        found[key] = value
    return name, found


def _is_there(text: str) -> bool:
    try:
        return os.path.lexists(text)
    except ValueError:  # a NUL: whoever looks for it says so
        return False


def _opening(text: str) -> int | None:
    """Return where the brackets at the end begin; None where none are at the end.

    Raises UsageError for a bracket that is never closed, or never opened.
    """
    depth, start = 0, None
    for place, letter in enumerate(text):
        if letter == "[" and depth == 0:
            start = place
        depth += (letter == "[") - (letter == "]")
        if depth < 0:
            hint = f"settings stand behind the name: {_example(text[:place])}"
            raise UsageError(f"{text!r}: a bracket is closed that is not open", hint=hint)
    if depth and start is not None and re.match(_SETTING, text[start + 1 :]):
        raise UsageError(
            f"{text!r}: the bracket is not closed", hint=f"write {_quoted(text + ']')}"
        )
    return start if text.endswith("]") and not depth else None


def _parts(inside: str) -> Iterator[str]:
    """Yield what stands between commas; those within brackets of any kind are a value's own."""
    depth, start = 0, 0
    for place, letter in enumerate(inside):
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if letter == "," and depth <= 0:
            yield inside[start:place].strip()
            start = place + 1
    yield inside[start:].strip()


def _hint(name: str) -> str:
    return f"write {_example(name)}"


def _example(name: str) -> str:
    return _quoted(f"{name or 'sd15'}[batch=2]")


def _quoted(text: str) -> str:
    return f"'{text}'"
