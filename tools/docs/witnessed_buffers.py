"""The part of docs/accuracy.md that is about the real engine's buffers beside ours.

Read from docs/engine_witness.json, which tools/engine_matrix.py writes;
`generate_accuracy.py` puts it into the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.docs.page import ROOT, escape

TITLE = "## llama.cpp itself as witness"

_INTRODUCTION = """\
What llama.cpp's CPU build ({engine}) allocates for model files with the shapes of real models and
no data, beside ours: {cases} cases of {families} families, over contexts of {contexts} tokens,
batches of {batches}, with and without flash attention, caches in {caches}. Made again by
`{command}`; `vramplan estimate FILE --engine-check` asks the same of one file.
{refused} more it refuses, and so do we.
The engine prints hundredths of a MiB, so {rounding} MiB is no difference."""

_HEAD = (
    "| family | cases | weights, worst | {buffers}, worst | compute: ours, lowest | highest |\n"
    "|---|--:|--:|--:|--:|--:|"
)
_MIB = 1 << 20
_ROUNDING = 0.01
#: the buffers that hold what a sequence was told so far
_CACHES = ("KV", "RS")


@dataclass(frozen=True, slots=True)
class _Row:
    """A family's worst cases: bytes off, and shares off."""

    family: str
    cases: int
    weights: int
    caches: int
    lowest: float
    highest: float


def read_witness(path: Path = ROOT / "docs" / "engine_witness.json") -> dict[str, Any]:
    """Return what the script wrote."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def render() -> str:
    """Return the section."""
    witness = read_witness()
    cases = [one for one in witness["cases"] if one["engine"]]
    refused = len(witness["cases"]) - len(cases)
    rows = [_row(name, [one for one in cases if one["family"] == name]) for name in _names(cases)]
    about = _INTRODUCTION.format(
        engine=escape(witness["engine"]),
        cases=len(cases),
        refused=refused,
        families=len(rows),
        contexts=_list(cases, "context"),
        batches=_list(cases, "ubatch"),
        caches=_list(cases, "kv_type"),
        command=witness["command"],
        rounding=_ROUNDING,
    )
    has_state = any("RS" in one["engine"] for one in cases)
    buffers = "KV cache and recurrent state" if has_state else "KV cache"
    table = "\n".join([_HEAD.format(buffers=buffers), *(_cells(row) for row in rows)])
    return "\n\n".join([TITLE, about, _summary(rows), table])


def _summary(rows: Sequence[_Row]) -> str:
    lowest, highest = min(row.lowest for row in rows), max(row.highest for row in rows)
    return (
        f"Weights are within {max(row.weights for row in rows) / _MIB:.2f} MiB, caches within "
        f"{max(row.caches for row in rows) / _MIB:.2f} MiB; compute buffers are between "
        f"{_percent(lowest)} and {_percent(highest)} of the engine's."
    )


def _row(family: str, cases: Sequence[Mapping[str, Any]]) -> _Row:
    compute = [one["ours"]["compute"] / one["engine"]["compute"] - 1 for one in cases]
    return _Row(
        family=family,
        cases=len(cases),
        weights=max(_off(one, "model") for one in cases),
        caches=max(_off(one, name) for one in cases for name in _CACHES),
        lowest=min(compute),
        highest=max(compute),
    )


def _off(case: Mapping[str, Any], name: str) -> int:
    return abs(int(case["engine"].get(name, 0)) - int(case["ours"].get(name, 0)))


def _cells(row: _Row) -> str:
    cells = (
        escape(row.family),
        str(row.cases),
        f"{row.weights / _MIB:.2f} MiB",
        f"{row.caches / _MIB:.2f} MiB",
        _percent(row.lowest),
        _percent(row.highest),
    )
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return f"{share * 100:+.2f} %".replace("-", "\N{MINUS SIGN}")


def _names(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(one["family"]) for one in cases))


def _list(cases: Sequence[Mapping[str, Any]], key: str) -> str:
    found = sorted({one[key] for one in cases}, key=lambda value: (str(type(value)), value))
    words = [f"{one:,}" if isinstance(one, int) else str(one) for one in found]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
