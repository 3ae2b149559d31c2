"""The allocator's own events of a run beside the tape's, from the file to the comparison."""

from __future__ import annotations

from pathlib import Path

from vramplan.compare.events import EventComparison, asked_in, compare_events
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.errors import MeasurementError
from vramplan.measurement.history import read_history
from vramplan.model import Settings


def compare_event_lists(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, history: Path
) -> EventComparison:
    """Return the events in a history's file next to those of a tape, one by one.

    Raises MeasurementError for a file that is no history, TapeError where no tape holds at these
    settings.
    """
    from vramplan.engines.torch.replayed import conditions_at
    from vramplan.engines.torch.tape.history_replay import replay_history
    from vramplan.engines.torch.tape.requests import requests_of
    from vramplan.engines.torch.tape_files import find_tape, open_tape

    events = read_history(history)
    tape = open_tape(find_tape(pipeline))
    conditions = conditions_at(pipeline, settings, compute_capability, tape)
    planned = requests_of(tape, conditions)
    places = compare_events(asked_in(events), planned.tensors, planned.scratch)
    try:
        return EventComparison(places=places, allocator=replay_history(events))
    except MeasurementError as problem:
        return EventComparison(places=places, allocator=None, note=str(problem))
