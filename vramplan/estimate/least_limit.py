"""The least limit: the smallest memory limit under which the whole run completes.

The replay frees cached segments and retries where torch does, so it lies well below the reserved peak.
Success is not always monotone in the limit (a larger limit may keep a cache that fragments), so what is
returned is the smallest limit found above which the limits tried all succeed.
"""

from __future__ import annotations

from dataclasses import dataclass

from vramplan.errors import TapeError
from vramplan.tape.format import Tape
from vramplan.tape.replay import Conditions, ReplayOutOfMemory, replay
from vramplan.units import MIB

#: segments are multiples of 2 MiB, so no finer limit makes a difference
STEP_BYTES = 2 * MIB
_SAMPLES_ABOVE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastLimit:
    """The limit, and where the run fails first below it."""

    limit_bytes: int
    phase: str
    component: str


def find_least_limit(
    tape: Tape,
    conditions: Conditions,
    *,
    allocated_peak_bytes: int,
    reserved_peak_bytes: int,
    expandable_segments: bool = False,
) -> LeastLimit:
    """Return the least limit between what is live at the peak and what is reserved without a limit."""

    def failure(steps: int) -> ReplayOutOfMemory | None:
        try:
            replay(
                tape,
                conditions,
                limit_bytes=steps * STEP_BYTES,
                expandable_segments=expandable_segments,
            )
        except ReplayOutOfMemory as error:
            return error
        return None

    low = max(0, allocated_peak_bytes // STEP_BYTES - 1)
    high = -(-reserved_peak_bytes // STEP_BYTES)
    last = failure(low)
    while last is None:  # elastic scratch: less than the peak without a limit is enough
        high, low = low, low * 7 // 8
        if not low:
            raise TapeError(f"tape {tape.pipeline}: it runs in no memory at all")
        last = failure(low)
    while True:
        low, high, last = _bisect(failure, low, high, last)
        top = -(-reserved_peak_bytes // STEP_BYTES)
        above = [
            high + (top - high) * i // (_SAMPLES_ABOVE + 1) for i in range(1, _SAMPLES_ABOVE + 1)
        ]
        failed = [(steps, error) for steps in above if steps > high and (error := failure(steps))]
        if not failed:
            return LeastLimit(
                limit_bytes=high * STEP_BYTES, phase=last.phase, component=last.component
            )
        low, last = failed[-1]
        high = top


def _bisect(failure, low: int, high: int, last: ReplayOutOfMemory):  # type: ignore[no-untyped-def]
    while high - low > 1:
        middle = (low + high) // 2
        error = failure(middle)
        if error is None:
            high = middle
        else:
            low, last = middle, error
    return low, high, last
