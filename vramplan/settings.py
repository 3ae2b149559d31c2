"""Settings of a pipeline: written, checked against its bounds, and over its defaults.

Which settings a pipeline has, and within which bounds, its catalogue entry says; this leaf knows an
entry only by the three attributes of `Configurable`. Which there are is `known_settings`, and how
their values are read `setting_values`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from vramplan.errors import UsageError, did_you_mean
from vramplan.known_settings import (
    LIKENESS,
    MODELLED_BY_SOME,
    SETTINGS,
    find_setting,
    refuse_unmodelled,
)
from vramplan.quick_typing import Protocol
from vramplan.setting_values import SettingValue


class Bounds(Protocol):
    """Which values of a setting are accepted; `model.Constraint` is one."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it takes; empty where any will do."""

    @property
    def multiple_of(self) -> int | None:
        """What each of its numbers is a multiple of."""

    @property
    def minimum(self) -> int | None:
        """The smallest number it takes."""

    @property
    def maximum(self) -> int | None:
        """The largest number it takes."""


class Configurable(Protocol):
    """What has settings with defaults and bounds; `model.Pipeline` is one."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def defaults(self) -> Mapping[str, SettingValue]:
        """Every setting it has, with its default."""

    @property
    def constraints(self) -> Mapping[str, Bounds]:
        """The bounds of the settings that have any."""


def parse_setting(key: str, text: str) -> SettingValue:
    """Return the value that `text` stands for: ``parse_setting("image", "512")`` is (512, 512).

    Raises UsageError for a setting nobody knows and for text that the setting does not take.
    """
    return find_setting(key).read(key, text.strip())


def parse_assignment(text: str) -> tuple[str, SettingValue]:
    """Return the key and the value of a ``key=value`` from the command line."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip() or not value.strip():
        raise UsageError(f"not a setting: {text!r}", hint="write key=value, such as batch=2")
    return key.strip(), parse_setting(key.strip(), value)


def format_setting(key: str, value: SettingValue) -> str:
    """Return the text of a setting's value; `parse_setting` reads it back to the same value."""
    find_setting(key)
    if isinstance(value, tuple):
        return f"{value[0]}x{value[1]}"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return str(value)


def write_target(text: str, settings: Mapping[str, SettingValue]) -> str:
    """Return a TARGET with settings of its own, as the command line takes it: ``sd15[batch=2]``."""
    if not settings:
        return text
    said = ",".join(f"{key}={format_setting(key, value)}" for key, value in settings.items())
    return f"{text}[{said}]"


def check_setting(pipeline: Configurable, key: str, value: SettingValue) -> None:
    """Raise UsageError when `pipeline` has no setting `key` or does not take `value` for it."""
    if key not in pipeline.defaults:
        find_setting(key)
        refuse_unmodelled(key, MODELLED_BY_SOME)
        known = ", ".join(pipeline.defaults)
        near = did_you_mean(key, pipeline.defaults, likeness=LIKENESS)
        hint = f"{near} it has: {known}" if near else f"it has: {known}"
        raise UsageError(f"{pipeline.name} has no setting {key!r}", hint=hint)
    _check_type(key, value)
    bounds = pipeline.constraints.get(key)
    if bounds is None:
        return
    if bounds.choices and isinstance(value, str) and value not in bounds.choices:
        near = did_you_mean(value, bounds.choices)
        takes = "takes " + ", ".join(bounds.choices)
        hint = f"{near} it {takes}" if near else f"it {takes}"
        raise UsageError(f"{pipeline.name} has no {key} {value!r}", hint=hint)
    if not isinstance(value, str):
        _check_numbers(key, value, bounds)


def _check_type(key: str, value: SettingValue) -> None:
    """Raise where a caller passes what `parse_setting` could not have returned."""
    text = format_setting(key, value)
    if parse_setting(key, text) != value and not isinstance(value, float):
        raise UsageError(f"{key} {value!r} is not in its plain form", hint=f"write {text}")


def _check_numbers(key: str, value: int | float | tuple[int, int], bounds: Bounds) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    what = "width and height must be" if isinstance(value, tuple) else "must be"
    text = f"{key} {format_setting(key, value)}"
    low, high, step = bounds.minimum, bounds.maximum, bounds.multiple_of
    if low is not None and min(numbers) < low:
        raise UsageError(f"{text}: {what} at least {low}", hint=_nearest(key, value, bounds))
    if high is not None and max(numbers) > high and not SETTINGS[key].takes_more:
        raise UsageError(f"{text}: {what} at most {high}", hint=_nearest(key, value, bounds))
    if step is not None and any(number % step for number in numbers):
        kind = "multiples" if isinstance(value, tuple) else "a multiple"
        raise UsageError(f"{text}: {what} {kind} of {step}", hint=_nearest(key, value, bounds))


def _nearest(key: str, value: int | float | tuple[int, int], bounds: Bounds) -> str:
    """Return the values next to `value`, below and above, that the bounds accept."""
    sides = value if isinstance(value, tuple) else (value,)
    below = tuple(_fit(side, bounds, up=False) for side in sides)
    above = tuple(_fit(side, bounds, up=True) for side in sides)
    found = dict.fromkeys(
        format_setting(key, (near[0], near[1]) if len(near) == 2 else near[0])
        for near in (below, above)
    )
    return "nearest that work: " + ", ".join(found)


def _fit(number: float, bounds: Bounds, *, up: bool) -> int:
    step = bounds.multiple_of or 1
    low = -(-(bounds.minimum or 1) // step) * step
    rounded = math.ceil(number / step) * step if up else math.floor(number / step) * step
    if bounds.maximum is not None:
        rounded = min(rounded, bounds.maximum // step * step)
    return max(rounded, low)


def resolve_settings(
    pipeline: Configurable, overrides: Mapping[str, SettingValue]
) -> dict[str, SettingValue]:
    """Return the pipeline's defaults with `overrides` over them, each of them checked."""
    for key, value in overrides.items():
        check_setting(pipeline, key, value)
    return {**pipeline.defaults, **overrides}
