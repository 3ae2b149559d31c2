"""The allocator's own events of a run beside the tape's, from the files to the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.ask.compare import capability_of
from vramplan.catalog import Catalog
from vramplan.errors import MeasurementError, MissingError
from vramplan.measurement.files import history_of
from vramplan.measurement.run import Run

if TYPE_CHECKING:
    from vramplan.compare.events import EventComparison


def compare_event_lists(
    run: Run, path: Path, catalog: Catalog, folders: Sequence[Path]
) -> EventComparison:
    """Return the history beside the run in `path` next to its tape, event by event.

    Raises MissingError where the run has none, MeasurementError for a file that is no history,
    TapeError where no tape holds at the run's settings.
    """
    from vramplan.compare.events import EventComparison, asked_in, compare_events
    from vramplan.engines.torch.estimate import find_tape, open_tape
    from vramplan.engines.torch.open import open_entry
    from vramplan.engines.torch.replayed import conditions_at
    from vramplan.engines.torch.tape.history_replay import replay_history
    from vramplan.engines.torch.tape.requests import requests_of
    from vramplan.measurement.history import read_history

    beside = history_of(path, run)
    if beside is None:
        hint = "vramplan profile TARGET --events -o run.json keeps them, on a GPU"
        raise MissingError(f"{path}: the run has no allocator events", hint=hint)
    history = read_history(beside)
    pipeline = catalog.pipeline(run.pipeline)
    opened = open_entry(pipeline, folders)
    tape = open_tape(find_tape(opened))
    conditions = conditions_at(opened, run.settings, capability_of(run), tape)
    planned = requests_of(tape, conditions)
    places = compare_events(asked_in(history), planned.tensors, planned.scratch)
    try:
        return EventComparison(places=places, allocator=replay_history(history))
    except MeasurementError as problem:
        return EventComparison(places=places, allocator=None, note=str(problem))
