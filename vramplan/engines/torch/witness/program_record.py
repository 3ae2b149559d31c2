"""What a process of a program tells of itself: a file of JSON in the run's folder.

The standard library alone: every process of the program imports it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vramplan.engines.torch.witness.card_state import state_path

if TYPE_CHECKING:
    from vramplan.engines.torch.witness.loaded_libraries import LoadedCore

#: the stand-ins of this process, once they are loaded
CORE: list[LoadedCore] = []
#: what is to be known of this process, beside what the watch finds
REMARKS: list[str] = []

_PREFIX = "process-"
_LONGEST_RECORD = 16 << 20
_MOST_RECORDS = 256


def tell(record: Mapping[str, Any]) -> None:
    """Write down what this process has to tell; what it told before is replaced."""
    state = state_path()
    if state is None:
        return
    path = state.parent / f"{_PREFIX}{os.getpid()}.json"
    beside = path.with_suffix(".part")
    with suppress(OSError):  # the run's folder is gone: nobody listens
        beside.write_text(json.dumps(record))
        beside.replace(path)


def tell_problem(message: str, hint: str | None) -> None:
    """Write down why there is no card for this process."""
    tell({"problem": message, "hint": hint})


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return what the processes of a run told, in the order of their numbers."""
    found = []
    for path in sorted(folder.glob(f"{_PREFIX}*.json"))[:_MOST_RECORDS]:
        if path.stat().st_size > _LONGEST_RECORD:
            continue
        with suppress(ValueError):  # written by a process that was killed
            record = json.loads(path.read_text())
            if isinstance(record, dict):
                found.append(record)
    return found
