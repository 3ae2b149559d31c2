"""Denoising loops in which another transformer takes over: the first steps are one's, the rest its.

Wan 2.2 has two, one for much noise and one for little. Their steps are loops of their own, whose
bodies are alike; how many steps are the first one's follows from the scheduler's times alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vramplan.engines.torch.record.stream import Call, LoopBegin, LoopEnd, LoopNext, Stream
from vramplan.errors import RecordingError

#: what the loop of those that take over is called, behind the name of the loop before
SECOND = "_2"
#: with fewer steps on either side nothing is a loop
_LEAST_STEPS = 2
_LARGEST_DIVISOR = 1000


def part_steps(stream: Stream, loops: Mapping[str, int]) -> dict[str, int]:
    """End loops of steps where other components take over, and begin them anew; return all counts.

    `loops` are the loops of a run by their names, and how often each ran.
    """
    counts: dict[str, int] = {}
    for name, count in loops.items():
        starts, called = _iterations(stream, name)
        first = next((n for n, those in enumerate(called) if those != called[0]), count)
        is_apart = all(those == called[-1] for those in called[first:]) and called[0].isdisjoint(
            called[-1]
        )
        if not is_apart or not _LEAST_STEPS <= first <= count - _LEAST_STEPS:
            counts[name] = count
            continue
        stream.events[starts[first] : starts[first]] = [LoopEnd(), LoopBegin(name + SECOND)]
        counts |= {name: first, name + SECOND: count - first}
    return counts


def _iterations(stream: Stream, name: str) -> tuple[list[int], list[frozenset[str]]]:
    """Return where each iteration of a loop begins, and which components it calls."""
    starts: list[int] = []
    called: list[set[str]] = []
    depth = 0  # of loops, from the one that is meant
    for place, event in enumerate(stream.events):
        if isinstance(event, LoopBegin):
            depth += bool(depth) or event.name == name
        elif isinstance(event, LoopEnd):
            depth -= bool(depth)
        elif isinstance(event, LoopNext) and depth == 1:
            starts.append(place)
            called.append(set())
        elif isinstance(event, Call) and depth:
            called[-1].add(event.routine.partition(".")[0])
    return starts, [frozenset(those) for those in called]


def steps_before(scheduler: Any, boundary: float, least: int, most: int) -> str:
    """Return how many of `steps` steps are at times from `boundary` on, as an expression of them.

    `boundary` is a part of the scheduler's times in training. The expression is held against the
    scheduler's own times for every number of steps from `least` to `most`. Raises RecordingError
    where none is found.
    """
    time = boundary * scheduler.config.num_train_timesteps
    counts: dict[int, int] = {}
    for steps in range(least, most + 1):
        scheduler.set_timesteps(steps)
        counts[steps] = int((scheduler.timesteps >= time).sum())
    found = _whole_part(counts)
    if found is None:
        raise RecordingError("when the second transformer takes over is not known")
    return found


def _whole_part(counts: Mapping[int, int]) -> str | None:
    """Return ``(a*steps+b)//c`` that gives each count, the least `c` there is."""
    pairs: Sequence[tuple[int, int]] = tuple(counts.items())
    steps, count = pairs[-1]
    for c in range(1, _LARGEST_DIVISOR + 1):
        near = c * count // steps
        for a in (near, near + 1):
            low = max(c * k - a * n for n, k in pairs)
            high = min(c * (k + 1) - 1 - a * n for n, k in pairs)
            if low <= high:
                return f"({a}*steps{low:+})//{c}" if low else f"{a}*steps//{c}"
    return None
