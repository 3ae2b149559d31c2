"""What a rehearsal answers, whoever made it: the Python or the compiled core."""

from __future__ import annotations

from enum import IntEnum

from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.trace import ReplayOutOfMemory, Trace
from vramplan.quick_typing import Protocol


class Refused(IntEnum):
    """What becomes of a run whose library scratch a limit refuses.

    It fails; or the library's next plan is tried, as torch does with cuDNN's, and stays in use; or
    that and, after the last plan that is known, none is needed.
    """

    FAILS = 0
    NEXT_PLAN = 1
    WITHOUT = 2


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
