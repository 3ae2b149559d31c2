"""The file of a run's allocator events: where it goes, and that it is never there by half."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vramplan.errors import UsageError
from vramplan.measurement.history import SUFFIX


def events_beside(run_file: Path | None) -> Path:
    """Return where the allocator's events go, beside the file of their run.

    Raises UsageError where there is no file to stand beside.
    """
    if run_file is None:
        raise UsageError("--events stand beside a run's file", hint="add -o run.json")
    return run_file.with_name(run_file.name.removesuffix(".json") + SUFFIX).resolve()


@contextmanager
def written_beside(events: Path | None) -> Iterator[None]:
    """Leave no events without the run that they belong to."""
    try:
        yield
    except BaseException:
        if events is not None:
            events.unlink(missing_ok=True)
        raise
