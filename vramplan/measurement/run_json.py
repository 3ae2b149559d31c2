"""A measured run as JSON, both ways. A file may come from a stranger: everything is bounded.

Field names are the JSON's names. Reading is strict about types and sizes and ignores fields it does
not know, so that a newer file can still be read.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from vramplan.errors import MeasurementError, UsageError
from vramplan.measurement.run import Run
from vramplan.settings import format_setting, parse_setting

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | None"

T = TypeVar("T")

_LONGEST_TEXT = 200_000  # nvidia-smi lists every process
_LONGEST_LIST = 200_000
_MOST_ENTRIES = 1_000
_LARGEST = 1 << 62


def encode_run(run: Run) -> dict[str, Json]:
    """Return a run as JSON-ready data."""
    return cast("dict[str, Json]", _encode(run))


def decode_run(data: object) -> Run:
    """Return the run that JSON data describes; raises MeasurementError where it does not."""
    run: Run = _decode(Run, data, "run")
    return run


def encode_part(part: object) -> Json:
    """Return a piece of a run as JSON-ready data."""
    return _encode(part)


def decode_part(kind: type[T], data: object) -> T:
    """Return the piece of a run, such as a Stretch, that JSON data describes."""
    part: T = _decode(kind, data, kind.__name__.lower())
    return part


def _encode(value: Any) -> Json:
    if is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: _encode_settings(getattr(value, one.name))
            if one.name == "settings"
            else _encode(getattr(value, one.name))
            for one in fields(value)
        }
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, float):
        return round(value, 6)
    return cast("Json", value)


def _encode_settings(settings: Mapping[str, Any]) -> Json:
    """Return settings as the command line writes them: an image is WIDTHxHEIGHT."""
    return {
        key: format_setting(key, value) if isinstance(value, tuple) else value
        for key, value in settings.items()
    }


def _decode(kind: Any, data: object, where: str) -> Any:
    """Return `data` as a value of type `kind`."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        choices = [one for one in get_args(kind) if one is not type(None)]
        if data is None and len(choices) < len(get_args(kind)):
            return None
        return _decode(choices[0], data, where)
    if origin is tuple:
        return tuple(
            _decode(get_args(kind)[0], item, f"{where}[{number}]")
            for number, item in enumerate(_list(data, where))
        )
    if origin is not None and issubclass(origin, Mapping):
        return _decode_mapping(data, where)
    if is_dataclass(kind):
        return _decode_fields(kind, data, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _decode_word(kind, data, where)
    return _decode_plain(kind, data, where)


def _decode_fields(kind: Any, data: object, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise _wrong(where, "an object")
    found = {}
    for one in fields(kind):
        place = f"{where}.{one.name}"
        if one.name in data:
            found[one.name] = _decode(_hints(kind)[one.name], data[one.name], place)
        elif one.default is MISSING and one.default_factory is MISSING:
            raise MeasurementError(f"{place}: is missing")
    return kind(**found)


@lru_cache(maxsize=64)
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode_mapping(data: object, where: str) -> Mapping[str, Any]:
    """Return words by name, or settings, whose texts are read as the command line reads them."""
    if not isinstance(data, Mapping) or len(data) > _MOST_ENTRIES:
        raise _wrong(where, f"an object of at most {_MOST_ENTRIES} entries")
    is_settings = where.endswith(".settings")
    found = {}
    for key, value in data.items():
        place = f"{where}.{key}"
        if is_settings:
            found[str(key)] = _decode_setting(str(key), value, place)
        else:
            found[str(key)] = _decode_plain(str, value, place)
    return found


def _decode_setting(key: str, value: object, where: str) -> Any:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise _wrong(where, "a setting's value")
    try:
        return parse_setting(key, format_setting(key, value))
    except UsageError as problem:
        raise MeasurementError(f"{where}: {problem}") from None


def _decode_word(kind: type[StrEnum], data: object, where: str) -> StrEnum:
    words = [word.value for word in kind]
    if data not in words:
        raise _wrong(where, "one of " + ", ".join(words))
    return kind(data)


def _decode_plain(kind: Any, data: object, where: str) -> Any:
    if kind is str and isinstance(data, str) and len(data) <= _LONGEST_TEXT:
        return data
    is_number = isinstance(data, (int, float)) and not isinstance(data, bool)
    if kind is float and is_number and abs(cast("float", data)) < _LARGEST:
        return float(cast("float", data))
    if kind is int and is_number and isinstance(data, int) and abs(data) < _LARGEST:
        return data
    wanted = {str: "a text", int: "a whole number", float: "a number"}.get(kind, str(kind))
    raise _wrong(where, wanted)


def _list(data: object, where: str) -> list[object]:
    if not isinstance(data, list) or len(data) > _LONGEST_LIST:
        raise _wrong(where, f"a list of at most {_LONGEST_LIST:,}")
    return data


def _wrong(where: str, wanted: str) -> MeasurementError:
    return MeasurementError(f"{where}: is not {wanted}")
