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

#: a search gives up after so much CPU time, as a replay does: most need fewer than 30 tries, long
#: generation in batches some thousands, and a tape may come from a stranger
_MOST_SECONDS = 60.0


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
    that is known. Raises TapeError for a run that needs no memory, and for a search that is too
    long.
    """
    start_bytes = run.most_wanted_bytes if from_bytes is None else from_bytes
    found = run.lower(start_bytes, refused=refused, seconds=_MOST_SECONDS)
    failure = found.failure
    if failure is not None:
        return LeastLimit(
            limit_bytes=found.limit_bytes, phase=failure.phase, component=failure.component
        )
    if not found.limit_bytes:
        raise TapeError(f"tape {run.tape.pipeline}: no limit is too small for it")
    raise TapeError(
        f"tape {run.tape.pipeline}: its least limit was not found in {_MOST_SECONDS:.0f} seconds: "
        f"of {found.tries:,} limits, down to {found.limit_bytes} bytes, none was too small",
        hint="ask for fewer tokens, steps or images at once",
    )
