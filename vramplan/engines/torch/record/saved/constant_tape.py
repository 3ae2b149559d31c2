"""Recordings of one model as a tape: its sizes are constants, or what the new tokens make of them.

The tape holds for the settings it was recorded at; new tokens alone may vary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import torch

from vramplan.engines.torch.record.assemble import Grammar, assemble
from vramplan.engines.torch.record.recorder import describe_weights, versions
from vramplan.engines.torch.record.stream import Event, LoopBegin, LoopEnd, LoopNext, Stream
from vramplan.engines.torch.tape.format import SCHEMA, write_tape
from vramplan.errors import RecordingError
from vramplan.quick_dataclass import dataclass

#: what the loops of a run are called, and its one dimension
STEPS, TOKENS, NEW = "step", "token", "new"
#: with fewer new tokens than these the first and the last passes are all that there is
LEAST_TOKENS = 4
_MARKS = (LoopBegin, LoopNext, LoopEnd)


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
        return assemble("main", runs, grammar)
    grammar = Grammar(
        counts={name: str(count) for name, count in recorded.loops.items()},
        fixed=frozenset(recorded.loops),
        splits=(),
    )
    try:
        return assemble("main", runs, grammar)
    except RecordingError:  # a step of other sizes than the one before: as they ran
        return assemble("main", [_without_loops(run) for run in runs], Grammar(splits=()))


def _without_loops(run: Stream) -> Stream:
    events: list[Event] = [event for event in run.events if not isinstance(event, _MARKS)]
    return Stream(run.routine, run.dims, events, run.slots)
