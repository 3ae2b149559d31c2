"""Tapes and their file format: deterministic JSON.

schema, pipeline, recorded_with {torch, diffusers, transformers}
least       the smallest numbers at which the recorded loops hold
dtype_facts which facts a dtype stands for
dims        settings → the entry routine's dimensions
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

from vramplan.engines.torch.tape.contents import Tape, Variant, Weights
from vramplan.engines.torch.tape.reader import build_tape
from vramplan.errors import TapeError
from vramplan.files import open_file

__all__ = ["SCHEMA", "Tape", "Variant", "Weights", "parse_tape", "read_tape", "write_tape"]

SCHEMA = 1
_LARGEST_BYTES = 8 << 20


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
        with open_file(path) as file:
            data = file.read(_LARGEST_BYTES + 1)
        if len(data) > _LARGEST_BYTES:
            raise TapeError(f"{path}: a tape larger than {_LARGEST_BYTES >> 20} MiB is not read")
        text = data.decode()
    except FileNotFoundError:
        raise TapeError(f"{path}: no such tape", hint="record it with: vramplan record") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TapeError(f"{path}: cannot be read: {error}") from None
    return parse_tape(text, str(path))


def parse_tape(text: str, path: str) -> Tape:
    """Return the tape in `text`; `path` names it in errors. Raises TapeError for anything else."""
    again = "record it again with: vramplan record"
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f":{error.lineno}:{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise TapeError(f"{path}{place}: not a whole tape (cut short?)", hint=again) from None
    if not isinstance(raw, dict) or "schema" not in raw:
        raise TapeError(f"{path}: not a tape")
    schema = raw["schema"]
    if type(schema) is not int or schema != SCHEMA:
        found = schema if type(schema) is int and abs(schema) < 10**6 else "of another kind"
        raise TapeError(f"{path}: tape schema {found}, this vramplan reads {SCHEMA}", hint=again)
    try:
        return build_tape(raw)
    except TapeError as error:
        raise TapeError(f"{path}: {error}", hint=error.hint) from None
    except RecursionError:
        raise TapeError(f"{path}: nested too deeply to be a tape") from None
