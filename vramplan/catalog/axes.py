"""The axes of a sweep: which values each setting takes, written as lists and ranges.

512x512,768x768     a list
1..8                every whole number from 1 to 8
512..1024:64        every 64th from 512 on; of `image` these are square
1..4,8,16           ranges and single values together
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from vramplan.errors import UsageError
from vramplan.setting_values import SettingValue
from vramplan.settings import parse_setting

#: a setting, and the values it takes one after the other
Axes = Mapping[str, tuple[SettingValue, ...]]

#: more values of one setting than this are a mistake
MOST_VALUES = 100_000
_RANGE = re.compile(r"(?P<first>[^.:,]+)\.\.(?P<last>[^.:,]+)(?::(?P<step>[0-9]{1,9}))?")


def read_axis(key: str, text: str) -> tuple[SettingValue, ...]:
    """Return the values that `text` lists for a setting, each once, in the order given.

    Raises UsageError for a setting nobody knows and for text that lists none of its values.
    """
    found: dict[SettingValue, None] = {}
    for item in text.split(","):
        for value in _read_item(key, item.strip()):
            found[value] = None
            if len(found) > MOST_VALUES:
                raise UsageError(f"{key}: more than {MOST_VALUES:,} values")
    return tuple(found)


def _read_item(key: str, item: str) -> Iterator[SettingValue]:
    if not item:
        parse_setting(key, "1")  # a setting nobody knows is the first thing to say
        raise UsageError(f"{key}: a value is missing", hint=f"such as {key}=1,2 or {key}=1..8")
    match = _RANGE.fullmatch(item)
    if match is None:
        yield parse_setting(key, item)
        return
    first, last = (parse_setting(key, match[name].strip()) for name in ("first", "last"))
    step = int(match["step"] or 1)
    low, high = _number(key, item, first), _number(key, item, last)
    if high < low or step < 1:
        raise UsageError(f"{key} {item}: no value is in this range", hint="write FIRST..LAST:STEP")
    for number in range(low, high + 1, step):
        yield (number, number) if isinstance(first, tuple) else number


def _number(key: str, item: str, value: SettingValue) -> int:
    """Return an end of a range as a whole number, the side of a square image."""
    if isinstance(value, tuple) and value[0] == value[1]:
        return value[0]
    if isinstance(value, int):
        return value
    hint = "only whole numbers and square images have ranges; list the values: A,B,C"
    raise UsageError(f"{key} {item}: not a range", hint=hint)


def read_axis_assignment(text: str) -> tuple[str, tuple[SettingValue, ...]]:
    """Return the key and the values of a ``key=values`` from the command line."""
    key, sign, values = (part.strip() for part in text.partition("="))
    if not sign or not key or not values:
        raise UsageError(f"not a setting: {text!r}", hint="write key=values, such as batch=1..8")
    return key, read_axis(key, values)
