"""Tapes and their file format: deterministic JSON.

schema, pipeline, recorded_with {torch, diffusers, transformers}
least       the smallest numbers at which the recorded loops hold
dtype_facts which facts a dtype stands for
dims        settings → the entry routine's dimensions
domain      expressions of the dimensions -> the least and the most for which the tape is proved
entry       the routine that is run
components  name → its modules' tensors, in load order: element counts, or "616B" for fixed
            bytes; parts and part_parameters where its parts have rows of their own
routines    name → variants: when {fact: values}, if (a condition on dims), indices (loops),
            derived (dims), sizes, outputs (slots), code (see `code`)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from vramplan.codec import JsonError, Limits, parse_json, read_json
from vramplan.engines.torch.tape.contents import Tape, Variant, Weights
from vramplan.engines.torch.tape.reader import build_tape
from vramplan.errors import TapeError

__all__ = ["SCHEMA", "Tape", "Variant", "Weights", "parse_tape", "read_tape", "write_tape"]

SCHEMA = 1
LARGEST_BYTES = 8 << 20
_LIMITS = Limits(text_bytes=LARGEST_BYTES)
_AGAIN = "record it again with: vramplan record"


def write_tape(tape: Mapping[str, object]) -> str:
    """Return the tape's text, a variant of a routine per line: the same tape, the same bytes."""
    head = {key: value for key, value in tape.items() if key != "routines"}
    routines = tape["routines"]
    assert isinstance(routines, dict)
    lines = [_dense(head)[:-1] + ',"routines":{']
    for i, name in enumerate(sorted(routines)):
        variants = ",\n".join(_dense(variant) for variant in routines[name])
        lines.append(("," if i else "") + json.dumps(name) + ":[\n" + variants + "\n]")
    return "\n".join(lines) + "\n}}\n"


def _dense(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def read_tape(path: Path) -> Tape:
    """Return the tape in `path`.

    Raises TapeError where it is missing, cut short, foreign or too large.
    """
    try:
        raw = read_json(path, _LIMITS)
    except JsonError as problem:
        raise _not_whole(problem) from None
    return _build(raw, str(path))


def parse_tape(text: str, path: str) -> Tape:
    """Return the tape in `text`; `path` names it in errors. Raises TapeError for anything else."""
    try:
        raw = parse_json(text, path, _LIMITS)
    except JsonError as problem:
        raise _not_whole(problem) from None
    return _build(raw, path)


def _not_whole(problem: JsonError) -> TapeError:
    if problem.is_missing:
        return TapeError(f"{problem.place}: no such tape", hint="record it with: vramplan record")
    if problem.is_damaged:
        return TapeError(f"{problem.place}: not a whole tape (cut short?)", hint=_AGAIN)
    return TapeError(str(problem))


def _build(raw: object, path: str) -> Tape:
    if not isinstance(raw, dict) or "schema" not in raw:
        raise TapeError(f"{path}: not a tape")
    schema = raw["schema"]
    if type(schema) is not int or schema != SCHEMA:
        found = schema if type(schema) is int and abs(schema) < 10**6 else "of another kind"
        raise TapeError(f"{path}: tape schema {found}, this vramplan reads {SCHEMA}", hint=_AGAIN)
    try:
        return build_tape(raw)
    except TapeError as error:
        raise TapeError(f"{path}: {error}", hint=error.hint) from None
    except RecursionError:
        raise TapeError(f"{path}: nested too deeply to be a tape") from None
