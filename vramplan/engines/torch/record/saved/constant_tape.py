"""Recordings of one model as a tape: its sizes are constants, or what the new tokens make of them.

The tape holds for the settings it was recorded at; new tokens alone may vary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import torch

from vramplan.engines.torch.record.assemble import Grammar, assemble
from vramplan.engines.torch.record.recorder import describe_weights, versions
from vramplan.engines.torch.record.stream import LOOP_MARKS, Free, LoopEnd, Stream
from vramplan.engines.torch.tape.format import SCHEMA, write_tape
from vramplan.errors import RecordingError
from vramplan.quick_dataclass import dataclass

#: what the loops of a run are called, and its one dimension
STEPS, TOKENS, NEW = "step", "token", "new"
#: with fewer new tokens than these the first and the last passes are all that there is
LEAST_TOKENS = 4
#: of a loop of two passes: where it begins, where each does, and where it ends
_LEAST_MARKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What was recorded: the same run with other numbers of new tokens, or one run.

    `routines` are the components' calls that `runs` name, `loops` how often each loop of steps ran.
    """

    runs: Sequence[Stream]
    routines: Sequence[Stream] = ()
    loops: Mapping[str, int] = field(default_factory=dict)
    is_generation: bool = False


def write_recording(
    name: str, recorded: Recorded, modules: Mapping[str, torch.nn.Module], element_bytes: int
) -> str:
    """Return the text of the tape of what was recorded.

    Denoising steps are folded where all but the first are equal, event for event and byte for
    byte. Raises RecordingError where tokens do not grow by the same from one to the next.
    """
    called = {one.routine: assemble(one.routine, [one], Grammar()) for one in recorded.routines}
    routines = {"main": _main(recorded), **called}
    tape = {
        "schema": SCHEMA,
        "pipeline": name[:100],
        "recorded_with": versions(),
        "dims": {NEW: "new_tokens"} if recorded.is_generation else {},
        "least": {"new_tokens": LEAST_TOKENS} if recorded.is_generation else {},
        "dtype_facts": {},
        "entry": "main",
        "components": {
            component: describe_weights(module, {}, element_bytes)
            for component, module in modules.items()
        },
        "routines": {
            routine: [{**variant, "when": {}} for variant in variants]
            for routine, variants in routines.items()
        },
    }
    return write_tape(tape)


def _main(recorded: Recorded) -> list[dict[str, object]]:
    runs = list(recorded.runs)
    if recorded.is_generation:
        grammar = Grammar(products=(NEW, TOKENS), counts={TOKENS: f"{NEW}-1"}, splits=())
        try:
            return assemble("main", runs, grammar)
        except RecordingError as problem:
            for run in runs:
                _end_with_the_last_pass(run)
            try:
                return assemble("main", runs, grammar)
            except RecordingError:
                raise problem from None
    grammar = Grammar(
        counts={name: str(count) for name, count in recorded.loops.items()},
        fixed=frozenset(recorded.loops),
        splits=(),
    )
    try:
        return assemble("main", runs, grammar)
    except RecordingError:  # a step of other sizes than the one before: as they ran
        for run in runs:  # what is freed was made in the same stream
            run.events = [event for event in run.events if not isinstance(event, LOOP_MARKS)]
        return assemble("main", runs, Grammar(splits=()))


def _end_with_the_last_pass(run: Stream) -> None:
    """Let a run's passes end where the last one has done what those before it do.

    What comes behind them has no mark, and is in the last pass. It may free what every one of them
    made: that can only be said from outside of them.
    """
    marks = [n for n, event in enumerate(run.events) if isinstance(event, LOOP_MARKS)]
    if len(marks) < _LEAST_MARKS or not isinstance(run.events[marks[-1]], LoopEnd):
        return
    before, last, end = marks[-3:]
    alike = _made(run, before, last), _made(run, last, end)
    same = 0
    for (_, one), (_, other) in zip(*alike, strict=False):
        if one != other:
            break
        same += 1
    if same:
        place = alike[1][same - 1][0] + 1
        run.events.insert(place, run.events.pop(end))


def _made(run: Stream, start: int, end: int) -> list[tuple[int, object]]:
    """Return where something is made between two marks, and what makes it."""
    return [
        (n, (type(event), getattr(event, "operator", None)))
        for n, event in enumerate(run.events[start + 1 : end], start + 1)
        if not isinstance(event, Free)
    ]
