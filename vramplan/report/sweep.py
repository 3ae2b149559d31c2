"""Rows of a sweep as CSV and as JSON lines; `sweep_parquet` makes Parquet of the latter.

The columns are the same in every format and for every sweep, so that files can be put together:
the figures of a verdict as `check` has them, then a column for each setting. What is absent is an
empty field in CSV and null elsewhere. No field has a line break in it, and in CSV text that a
spreadsheet would take for a formula has an apostrophe before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from vramplan.known_settings import SETTING_HELP
from vramplan.model import Settings, SettingValue, SweepRow
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.report.serial import advice_object
from vramplan.report.text import clean as clean_text
from vramplan.settings import format_setting

if TYPE_CHECKING:
    from vramplan.report.serial import Json

#: the columns before those of the settings, each with what it says
FIGURES: Mapping[str, str] = {
    "pipeline": "the TARGET's name",
    "card": "the card, class or size as asked for",
    "verdict": "fits, tight, offload or oom",
    "need_low_bytes": "the need's low end",
    "need_bytes": "the expected need",
    "need_high_bytes": "the need's high end, which decides between fits and tight",
    "budget_bytes": "what the card leaves for the process",
    "headroom_bytes": "budget less expected need; negative where it does not fit",
    "offload_risk": "the probability that the need exceeds the budget, 0 to 1",
    "peak_phase": "the phase in which memory is tightest",
    "peak_component": "the component at which it is",
    "advice": "the first change that helps, with --advice; in JSON lines the objects of `check`",
    "judged_as": "the card or compute capability that decided it",
    "layers_total": "a model file's layers",
    "layers_on_gpu": "how many of them the engine puts on the GPU",
    "context_tokens": "the tokens that the engine makes room for",
    "problem": "why there is no verdict; every figure is absent then",
}
COLUMNS = (*FIGURES, *SETTING_HELP)

clean = lru_cache(maxsize=1024)(clean_text)  # names come again and again


def csv_head() -> bytes:
    """Return the first line of a CSV file."""
    return (",".join(COLUMNS) + "\n").encode()


def csv_rows(rows: Iterable[SweepRow]) -> bytes:
    """Return rows as lines of CSV (RFC 4180, with plain line feeds)."""
    settings = _Remembered(_csv_settings)
    lines = []
    for row in rows:
        figures = ",".join(_field(value) for value in _figures(row, _in_words))
        lines.append(f"{figures},{settings(row.settings)}\n")
    return "".join(lines).encode()


def json_rows(rows: Iterable[SweepRow]) -> bytes:
    """Return rows as lines of JSON, an object each, in ASCII."""
    settings = _Remembered(_json_settings)
    lines = []
    for row in rows:
        figures = json.dumps(dict(zip(FIGURES, _figures(row, _in_objects), strict=True)))
        lines.append(f"{figures[:-1]}, {settings(row.settings)}\n")
    return "".join(lines).encode()


def csv_start(pipeline: str, card: str) -> bytes:
    """Return what a row of CSV begins with."""
    return f"{_field(clean(pipeline))},{_field(clean(card))},".encode()


def json_start(pipeline: str, card: str) -> bytes:
    """Return what a row of JSON begins with."""
    named = json.dumps({"pipeline": clean(pipeline), "card": clean(card)})
    return f"{named[:-1]}, ".encode()


def _figures(row: SweepRow, advice: Callable[[SweepRow], Json]) -> tuple[Json, ...]:
    need, layers = row.need, row.layers
    return (
        clean(row.pipeline),
        clean(row.card),
        None if row.kind is None else row.kind.value,
        None if need is None else need.low_bytes,
        None if need is None else need.expected_bytes,
        None if need is None else need.high_bytes,
        row.budget_bytes,
        row.headroom_bytes,
        row.offload_risk,
        None if row.peak_phase is None else clean(row.peak_phase),
        None if row.peak_component is None else clean(row.peak_component),
        None if row.advice is None else advice(row),
        None if row.judged_as is None else clean(row.judged_as),
        None if layers is None else layers.total,
        None if layers is None else layers.on_gpu,
        row.context,
        None if row.problem is None else clean(row.problem),
    )


def _in_words(row: SweepRow) -> str:
    return clean("; ".join(one.change for one in row.advice or ()))


def _in_objects(row: SweepRow) -> Json:
    return [advice_object(one) for one in row.advice or ()]


#: what a spreadsheet takes for a formula where text begins with it.
#: Source: OWASP, CSV injection
_FORMULA = ("=", "+", "-", "@")


def _field(value: Json) -> str:
    """Return a field of CSV, in quotes where it must be; text that would be a formula is quoted."""
    if value is None:
        return ""
    text = str(value)
    if isinstance(value, str) and text.startswith(_FORMULA):
        text = f"'{text}"
    if '"' in text or "," in text:
        return '"' + text.replace('"', '""') + '"'
    return text


class _Remembered:
    """The settings' columns of the last row: those of a combination are the same on every card."""

    def __init__(self, write: Callable[[Settings], str]) -> None:
        self._write = write
        self._last: Settings | None = None
        self._text = ""

    def __call__(self, settings: Settings) -> str:
        if settings is not self._last:
            self._last, self._text = settings, self._write(settings)
        return self._text


def _csv_settings(settings: Settings) -> str:
    return ",".join(
        _field(None if key not in settings else clean(format_setting(key, settings[key])))
        for key in SETTING_HELP
    )


def _json_settings(settings: Settings) -> str:
    """Return the settings as the rest of an object: numbers as numbers, all else as text."""
    found = {key: _plain(key, settings.get(key)) for key in SETTING_HELP}
    return json.dumps(found)[1:]


def _plain(key: str, value: SettingValue | None) -> Json:
    if value is None or key not in NUMBERS:
        return None if value is None else format_setting(key, value)
    return value if isinstance(value, int | float) else None


#: settings whose values are numbers and nothing else, with what Parquet calls them
NUMBERS: Mapping[str, str] = {
    "batch": "int64",
    "steps": "int64",
    "prompt_tokens": "int64",
    "new_tokens": "int64",
    "guidance": "double",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """How rows are written: the file's first bytes, a batch of rows, and what one begins with."""

    head: bytes
    rows: Callable[[Iterable[SweepRow]], bytes]
    start: Callable[[str, str], bytes]


WRITERS: Mapping[str, Writer] = {
    "csv": Writer(head=csv_head(), rows=csv_rows, start=csv_start),
    "jsonl": Writer(head=b"", rows=json_rows, start=json_start),
}
