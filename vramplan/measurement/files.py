"""Files of measured runs: one by its path, and those that a catalogue folder has.

A file is what ``vramplan profile --json`` writes, or that compressed with gzip.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from vramplan.errors import MeasurementError
from vramplan.files import open_file
from vramplan.measurement.codec import decode_run
from vramplan.measurement.history import SUFFIX as HISTORY_SUFFIX
from vramplan.measurement.run import Run
from vramplan.model import Settings

#: a run of llava with 1,536 new tokens is 3 MB; nothing reads more than this
_LARGEST_BYTES = 64 << 20

#: the commands whose results are runs
WRITERS = ("profile", "campaign")

SUFFIXES = (".json", ".json.gz")


def read_run(path: Path) -> Run:
    """Return the run in a file; raises MeasurementError where it is not one."""
    envelope = read_envelope(path)
    result = envelope.get("result")
    if not isinstance(result, dict) or "run" not in result:
        hint = "vramplan profile TARGET -o run.json writes one"
        raise MeasurementError(f"{path}: not a measured run", hint=hint)
    try:
        return decode_run(result["run"])
    except MeasurementError as problem:
        raise MeasurementError(f"{path}: {problem}") from None


def read_envelope(path: Path) -> dict[str, object]:
    """Return the object in a file of JSON, compressed or not, of a bounded size."""
    try:
        data = _read_bytes(path)
        found = json.loads(data)
    except OSError as problem:
        raise MeasurementError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except (EOFError, zlib.error):
        raise MeasurementError(f"{path}: its compressed data is damaged") from None
    except (ValueError, RecursionError) as problem:
        raise MeasurementError(f"{path}: not JSON: {problem}") from None
    if not isinstance(found, dict):
        raise MeasurementError(f"{path}: not an object of JSON")
    return found


def _read_bytes(path: Path) -> bytes:
    with open_file(path) as raw, _plain(path, raw) as file:
        data = file.read(_LARGEST_BYTES + 1)
    if len(data) > _LARGEST_BYTES:
        raise MeasurementError(f"{path}: larger than {_LARGEST_BYTES >> 20} MiB")
    return data


def _plain(path: Path, raw: BinaryIO) -> BinaryIO:
    """Return the file with its compression taken off."""
    return cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw


def runs_in(folder: Path) -> Iterator[tuple[Path, Run]]:
    """Yield the runs that a catalogue folder's ``measured`` has, in the order of their paths.

    Raises MeasurementError for a file there that is not a run.
    """
    for path in sorted((folder / "measured").glob("*/*")):
        if _is_a_runs(path.name):
            envelope = read_envelope(path)
            if envelope.get("command") in WRITERS:
                yield path, read_run(path)


def _is_a_runs(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.endswith(HISTORY_SUFFIX) and name[0] != "."


def history_of(path: Path, run: Run) -> Path | None:
    """Return where the history of the run in `path` is: beside it; None where it has none.

    Raises MeasurementError for a name that would lead elsewhere.
    """
    if run.history is None:
        return None
    if Path(run.history).name != run.history or not run.history.endswith(HISTORY_SUFFIX):
        raise MeasurementError(f"{path}: its history is no file beside it: {run.history[:80]!r}")
    return path.parent / run.history


def find_runs(folders: Sequence[Path], pipeline: str, settings: Settings) -> list[tuple[Path, Run]]:
    """Return the runs of a pipeline at exactly these settings, in the order of the folders."""
    found = []
    for folder in folders:
        for path, run in runs_in(folder):
            if run.pipeline == pipeline and dict(run.settings) == dict(settings):
                found.append((path, run))
    return found


def is_run_file(path: Path) -> bool:
    """True for the path of a file that is named as runs are."""
    return path.name.endswith(SUFFIXES) and path.is_file()
