"""The file of a run's allocator events: where it goes, and that it is never there by half."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vramplan.catalog.pipelines import GGML_RUNTIMES
from vramplan.commands.output import choose_format
from vramplan.errors import UsageError
from vramplan.measurement.history import SUFFIX, part_of


def events_file(args: Namespace, runtime: str) -> Path | None:
    """Return where the allocator's events go, beside the run's file; None where none are wanted.

    Raises UsageError where there is nothing to record, or no file to stand beside.
    """
    if not args.events:
        return None
    if runtime in GGML_RUNTIMES or args.dry_run:
        raise UsageError("--events are those of torch's allocator on a GPU: leave it out")
    path = Path(args.output or "-")
    if choose_format(args) != "json" or path.name == "-":
        raise UsageError("--events stand beside a run's file", hint="add -o run.json")
    return path.with_name(path.name.removesuffix(".json") + SUFFIX).resolve()


@contextmanager
def written_beside(events: Path | None) -> Iterator[None]:
    """Leave no events without the run that they belong to."""
    try:
        yield
    except BaseException:
        if events is not None:
            events.unlink(missing_ok=True)
        raise


@contextmanager
def no_half_of(history: str | None) -> Iterator[None]:
    """Leave neither an older run's events nor what a process that died had written of its own."""
    if history is None:
        yield
        return
    path = Path(history)
    path.unlink(missing_ok=True)
    try:
        yield
    finally:
        part_of(path).unlink(missing_ok=True)
