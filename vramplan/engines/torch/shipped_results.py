"""Replay results that ship beside the tapes, so that the common questions are answered at once.

They are made for every torch pipeline that ships with a tape, at the catalogue's default settings,
on every architecture that differs in kernels or scratch; those that do not differ share a result.
``python -m vramplan.engines.torch.shipped_results`` makes them anew, with ``--check`` it says
whether they are as they should be; a test replays each of them again. A result that is damaged, or
not of this form, is none: what it would say is replayed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TextIO

from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.torch.replayed import PartWeights, Replayed, Scenario
from vramplan.engines.torch.tape.trace import Mark
from vramplan.errors import VramplanError

FILE = "results.json"
_LARGEST_FILE_BYTES = 16 << 20
#: no figure of a result is beyond this
_LARGEST = 1 << 60

#: architectures the results are made for: one of each that differs in kernels or scratch
CAPABILITIES = ("6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

#: results of this process: cards of one architecture share them
_made: dict[tuple[Path, str], Replayed] = {}


@cache
def _read(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            return {}
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def find_result(tapes: Path, key: str) -> Replayed | None:
    """Return the shipped result for `key`, or None where it has to be replayed."""
    found = _read(tapes / FILE).get(key)
    return None if found is None else from_json(found)


def remembered(tapes: Path, key: str, replay: Callable[[], Replayed]) -> Replayed:
    """Return the shipped result for `key`, or what `replay` gives, once a process."""
    if (tapes, key) not in _made:
        _made[tapes, key] = find_result(tapes, key) or replay()
    return _made[tapes, key]


def to_json(result: Replayed) -> dict[str, object]:
    """Return the result as JSON-ready lists; a mark names the weights that were there by place."""
    scenarios = (result.low, result.expected, result.high)
    weights = list(dict.fromkeys(mark.weights for mark in result.marks))
    return {
        "scenarios": [
            [
                s.allocated_peak_bytes,
                s.reserved_peak_bytes,
                s.least_limit_bytes,
                s.phase,
                s.component,
            ]
            for s in scenarios
        ],
        "marks": [
            [
                m.phase,
                m.component,
                m.allocated_peak_bytes,
                m.reserved_peak_bytes,
                m.allocated_bytes,
                m.reserved_bytes,
                weights.index(m.weights),
            ]
            for m in result.marks
        ],
        "weights": [[list(pair) for pair in there] for there in weights],
        "warm": result.warm_reserved_peak_bytes,
        "parts": [[p.name, p.component, p.parameters, p.weights_bytes] for p in result.parts],
    }


def from_json(raw: object) -> Replayed | None:
    """Return the result that `to_json` wrote; None for anything that it cannot have written."""
    try:
        result = _result(raw)
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return result if _holds_together(result) else None


def _result(raw: object) -> Replayed:
    if not isinstance(raw, dict):
        raise TypeError("a result is a mapping")
    low, expected, high = (_scenario(row) for row in _rows(raw["scenarios"]))
    weights = [
        tuple((_text(name), _whole(size)) for name, size in _rows(there))
        for there in _rows(raw["weights"])
    ]
    return Replayed(
        low=low,
        expected=expected,
        high=high,
        marks=tuple(_mark(row, weights) for row in _rows(raw["marks"])),
        warm_reserved_peak_bytes=_whole(raw["warm"]),
        parts=tuple(_part(row) for row in _rows(raw["parts"])),
    )


def _holds_together(result: Replayed) -> bool:
    """True where the figures are in the order that any replay gives them."""
    low, expected, high = result.low, result.expected, result.high
    totals = _sums((part.component, part.weights_bytes) for part in result.parts)
    return (
        bool(result.marks)
        and low.allocated_peak_bytes <= expected.allocated_peak_bytes
        and all(s.allocated_peak_bytes <= s.reserved_peak_bytes for s in (low, expected, high))
        and all(totals.get(name, 0) > 0 for mark in result.marks for name, _ in mark.weights)
    )


def _sums(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for name, size in pairs:
        totals[name] = totals.get(name, 0) + size
    return totals


def _scenario(row: Sequence[object]) -> Scenario:
    allocated, reserved, limit, phase, component = row
    return Scenario(
        allocated_peak_bytes=_whole(allocated),
        reserved_peak_bytes=_whole(reserved),
        least_limit_bytes=_whole(limit),
        phase=_text(phase),
        component=_text(component),
    )


def _mark(row: Sequence[object], weights: Sequence[tuple[tuple[str, int], ...]]) -> Mark:
    phase, component, allocated_peak, reserved_peak, allocated, reserved, there = row
    return Mark(
        phase=_text(phase),
        component=_text(component),
        allocated_peak_bytes=_whole(allocated_peak),
        reserved_peak_bytes=_whole(reserved_peak),
        allocated_bytes=_whole(allocated),
        reserved_bytes=_whole(reserved),
        weights=weights[_whole(there)],
    )


def _part(row: Sequence[object]) -> PartWeights:
    name, component, parameters, size = row
    return PartWeights(
        name=_text(name),
        component=_text(component),
        parameters=_whole(parameters),
        weights_bytes=_whole(size),
    )


def _rows(value: object) -> list[list[object]]:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise TypeError("not a list of lists")
    return value


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise ValueError("not a number of bytes")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


# ------------------------------------------------------------------------------- making
def make_results(profiles: Path, progress: Callable[[str], None]) -> Iterator[tuple[str, Replayed]]:
    """Yield the key and the result of all that ships; `progress` is told what is replayed.

    Raises VramplanError for a tape that does not replay.
    """
    from vramplan.catalog.pipelines import load_pipeline_file
    from vramplan.catalog.snapshot import source_files
    from vramplan.engines.torch.open import open_entry
    from vramplan.engines.torch.replayed import conditions_at, replay_run, result_key
    from vramplan.engines.torch.tape.format import read_tape

    for entry in map(load_pipeline_file, source_files(profiles, "pipelines")):
        pipeline = open_entry(entry, (profiles,))
        path = profiles / "tapes" / f"{pipeline.tape}.json"
        if not pipeline.tape or not path.is_file():
            continue
        tape, settings = read_tape(path), pipeline.defaults
        seen: set[str] = set()
        for capability in CAPABILITIES:
            key = result_key(path, pipeline, settings, capability)
            if key not in seen:
                seen.add(key)
                progress(f"replaying {pipeline.name} on {capability}")
                conditions = conditions_at(pipeline, settings, capability, tape)
                yield key, replay_run(tape, conditions, capability)


def results_text(profiles: Path, progress: Callable[[str], None]) -> str:
    """Return what the file must say: the same text for the same tapes, a result a line."""
    rows = [
        f"{json.dumps(key)}:{json.dumps(to_json(result), separators=(',', ':'))}"
        for key, result in sorted(make_results(profiles, progress), key=lambda made: made[0])
    ]
    return "{" + ",\n".join(rows) + "}\n"


def main(arguments: Sequence[str]) -> int:
    """Write the shipped results, or with ``--check`` say whether they are as they should be."""
    profiles = profiles_dir()
    path = profiles / "tapes" / FILE
    try:
        text = results_text(profiles, lambda line: _say(sys.stderr, line))
    except VramplanError as problem:
        _say(sys.stderr, f"error: {problem}")
        return problem.exit_code
    if "--check" in arguments:
        is_fresh = path.is_file() and path.read_text(encoding="utf-8") == text
        stale = "stale: run python -m vramplan.engines.torch.shipped_results"
        _say(sys.stdout, "fresh" if is_fresh else stale)
        return 0 if is_fresh else 1
    path.write_text(text, encoding="utf-8", newline="\n")
    _say(sys.stdout, str(path))
    return 0


def _say(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
