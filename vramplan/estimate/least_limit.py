"""The least limit: the smallest memory limit under which the whole run completes.

The run gives cached segments back and asks again where torch does, so it lies well below the
reserved peak. Success is not always monotone in the limit (a larger limit may keep a cache that
fragments), so what is returned is the smallest limit found above which every limit tried succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vramplan.errors import TapeError
from vramplan.tape.rehearsal import Rehearsal
from vramplan.tape.trace import ReplayOutOfMemory
from vramplan.units import MIB

#: segments are multiples of 2 MiB, so no finer limit makes a difference
STEP_BYTES = 2 * MIB
_SAMPLES_ABOVE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastLimit:
    """The limit, and where the run fails first below it."""

    limit_bytes: int
    phase: str
    component: str


def find_least_limit(
    run: Rehearsal, *, live_bytes: int | None = None, is_elastic: bool = False
) -> LeastLimit:
    """Return the least limit of a run that was rehearsed, to `STEP_BYTES`.

    `live_bytes` is where to begin below it (default: what is live at the run's peak). With
    `is_elastic`, scratch that does not fit is done without. Raises TapeError for a run that needs
    no memory.
    """

    def failure(steps: int) -> ReplayOutOfMemory | None:
        return run.failure(steps * STEP_BYTES, is_elastic=is_elastic)

    top = -(-run.trace.reserved_peak_bytes // STEP_BYTES)
    while failure(top) is not None:  # an expandable segment asks for more than it maps
        top += 1 + top // 8
    live = run.trace.allocated_peak_bytes if live_bytes is None else live_bytes
    low, high = max(0, min(live // STEP_BYTES, top) - 1), top
    while (last := failure(low)) is None:  # without some of the scratch less may be enough
        if not low:
            raise TapeError(f"tape {run.tape.pipeline}: it runs in no memory at all")
        high, low = low, low * 7 // 8
    while True:
        low, high, last = _bisect(failure, low, high, last)
        above = (high + (top - high) * i // _SAMPLES_ABOVE for i in range(1, _SAMPLES_ABOVE))
        failed = [(steps, error) for steps in above if (error := failure(steps)) is not None]
        if not failed:
            return LeastLimit(
                limit_bytes=high * STEP_BYTES, phase=last.phase, component=last.component
            )
        (low, last), high = failed[-1], top


def _bisect(
    failure: Callable[[int], ReplayOutOfMemory | None],
    low: int,
    high: int,
    last: ReplayOutOfMemory,
) -> tuple[int, int, ReplayOutOfMemory]:
    """Return neighbours of which the lower fails and the higher does not, and how it fails."""
    while high - low > 1:
        middle = (low + high) // 2
        error = failure(middle)
        if error is None:
            high = middle
        else:
            low, last = middle, error
    return low, high, last
