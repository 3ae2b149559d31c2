"""A tape against a run that nothing on it was found from: event for event, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.engines.torch.record.proof import compare
from vramplan.engines.torch.record.saved.constant_tape import Recorded
from vramplan.engines.torch.record.session import Sample
from vramplan.engines.torch.record.stream import Alloc, Birth, Call, Event, Free, Stream
from vramplan.engines.torch.tape.contents import Tape
from vramplan.errors import RecordingError, TapeError


def hold(
    tape: Tape, numbers: Mapping[str, int], facts: Mapping[str, str], recorded: Recorded
) -> None:
    """Raise RecordingError where a tape does not run as a recorded run, event for event."""
    (main,) = recorded.runs
    routines = {stream.routine: stream for stream in recorded.routines}
    try:
        compare(tape, Sample(numbers=dict(numbers), facts=dict(facts)), _whole(main, routines))
    except TapeError as problem:  # how often a loop runs was found from too few runs
        raise RecordingError(str(problem)) from problem


def _whole(main: Stream, routines: Mapping[str, Stream]) -> Stream:
    """Return a run with the events of its calls where they were."""
    whole = Stream(main.routine, dict(main.dims))
    births: dict[Birth, Birth] = {}
    for event in main.events:
        if isinstance(event, Call):
            inner = dict[Birth, Birth]()
            for one in routines[event.routine].events:
                whole.events.append(_moved(one, inner, whole))
            freed = {id(e.birth) for e in routines[event.routine].events if isinstance(e, Free)}
            left = [new for old, new in inner.items() if id(old) not in freed]
            births.update(zip(event.outputs, left, strict=True))
        else:
            whole.events.append(_moved(event, births, whole))
    return whole


def _moved(event: Event, births: dict[Birth, Birth], whole: Stream) -> Event:
    if isinstance(event, Alloc):
        births[event.birth] = whole.new_birth()
        return Alloc(births[event.birth], event.size_bytes, event.operator)
    return Free(births[event.birth]) if isinstance(event, Free) else event
