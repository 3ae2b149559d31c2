"""The least limit: the smallest memory limit from which on the whole run completes.

The run gives cached segments back and asks again where torch does, so it lies well below the
reserved peak. Success is not monotone in the limit: a larger limit may keep a cache that fragments,
and fail where a smaller one completes. What is returned is the smallest limit such that the run
completes under it *and under every larger one*, found from above and without a gap: a limit acts
only where it is compared with what is reserved, so one completed run stands for every limit from
the most it was granted up to its own, and the next to be tried is a byte less than that.
"""

from __future__ import annotations

from vramplan.engines.torch.tape.rehearsed import Refused, Rehearsed
from vramplan.errors import TapeError
from vramplan.quick_dataclass import dataclass

#: more limits than this are not tried; the recorded pipelines need fewer than 30
_MOST_TRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastLimit:
    """The limit, and where the run fails under a byte less."""

    limit_bytes: int
    phase: str
    component: str


def find_least_limit(
    run: Rehearsed, *, refused: Refused = Refused.FAILS, from_bytes: int | None = None
) -> LeastLimit:
    """Return the smallest limit such that a rehearsed run completes under it and every larger one.

    `refused` is what becomes of scratch that does not fit. `from_bytes` is a limit of which
    that is known. Raises TapeError for a run that needs no memory.
    """
    limit_bytes = run.most_wanted_bytes if from_bytes is None else from_bytes
    for _ in range(_MOST_TRIES):
        granted_bytes, failure = run.attempt(limit_bytes - 1, refused=refused)
        if failure is not None:
            return LeastLimit(
                limit_bytes=limit_bytes, phase=failure.phase, component=failure.component
            )
        limit_bytes = granted_bytes
        if not limit_bytes:
            break
    raise TapeError(f"tape {run.tape.pipeline}: no limit is too small for it")
