"""What a rehearsal answers, whoever made it: the Python or the compiled core."""

from __future__ import annotations

from enum import IntEnum
from time import process_time

from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.trace import ReplayOutOfMemory, Trace
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import Protocol


class Refused(IntEnum):
    """What becomes of a run whose library scratch a limit refuses.

    It fails; or the library's next plan is tried, as torch does with cuDNN's, and stays in use; or
    that and, after the last plan that is known, none is needed.
    """

    FAILS = 0
    NEXT_PLAN = 1
    WITHOUT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """How far down limits were tried: the run completes under `limit_bytes` and all above it.

    `failure` is how it fails under a byte less; None where nothing is too little, or time was up.
    """

    limit_bytes: int
    failure: ReplayOutOfMemory | None
    tries: int


class Rehearsed(Protocol):
    """A run without a limit that can be asked how it would have gone under one."""

    @property
    def tape(self) -> Tape:
        """The tape that was run."""

    @property
    def trace(self) -> Trace:
        """The stretches of the run."""

    @property
    def most_wanted_bytes(self) -> int:
        """The least limit that refuses nothing: the run under it is the run without one."""

    @property
    def request_count(self) -> int:
        """How many requests it holds, which says how much memory it takes."""

    def like(self, conditions: Conditions) -> Rehearsed | None:
        """Return the same run under conditions of which nothing but the scratch is another.

        None where it may differ in more than scratch, and has to be rehearsed.
        """

    def warm_reserved_peak_bytes(self) -> int:
        """Return the reserved peak of this and one more run of the entry, in the same process."""

    def attempt(
        self, limit_bytes: int, *, refused: Refused = Refused.FAILS
    ) -> tuple[int, ReplayOutOfMemory | None]:
        """Return what a limit granted the run at most, and how the run fails under it."""

    def failure(
        self, limit_bytes: int, *, refused: Refused = Refused.FAILS
    ) -> ReplayOutOfMemory | None:
        """Return how what was run so far fails under a limit; None where it completes."""

    def lower(self, limit_bytes: int, *, refused: Refused, seconds: float) -> Lowered:
        """Try limits downwards from one under which the run completes, until it fails.

        It ends after so many seconds of CPU time, too.
        """


def lower_by_attempts(
    run: Rehearsed, limit_bytes: int, *, refused: Refused, seconds: float
) -> Lowered:
    """Do as `Rehearsed.lower`: each limit is a byte less than what the one before was granted."""
    deadline = process_time() + seconds
    failure, tries = None, 0
    while limit_bytes and failure is None and process_time() <= deadline:
        tries += 1
        granted_bytes, failure = run.attempt(limit_bytes - 1, refused=refused)
        if failure is None:
            limit_bytes = granted_bytes
    return Lowered(limit_bytes=limit_bytes, failure=failure, tries=tries)
