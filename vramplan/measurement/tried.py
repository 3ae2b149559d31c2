"""What became of a program that was run on a pretended card."""

from __future__ import annotations

from enum import StrEnum

from vramplan.quick_dataclass import dataclass


class TrialOutcome(StrEnum):
    """How a program ended; `FAILED` is for reasons of its own."""

    COMPLETES = "completes"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodePlace:
    """A line of a program; `count` says how often something happened there, where it is counted."""

    file: str
    line: int
    function: str
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds memory: a module's weights and the like by `name`, or the line that allocated it.

    Both are None for blocks whose history was not kept.
    """

    size_bytes: int
    name: str | None = None
    place: CodePlace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAllocation:
    """An allocation that did not fit: what it asked for, where, and what was held then.

    `inside` are the classes of the modules at work, from the outside in, `operator` what was called
    last of torch.
    """

    asked_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    free_bytes: int
    where: CodePlace | None
    inside: tuple[str, ...] = ()
    operator: str = ""
    holders: tuple[Holder, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The most of a stretch of a run; `launches` counts the calls that gave the card work before.

    `place` is the line of the program that ran where most was allocated.
    """

    launches: int
    allocated_bytes: int
    reserved_bytes: int
    place: CodePlace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to change in a program that ran out of memory, by what the run has shown.

    `saves_bytes` is about what it would spare, then or later in the run; None where no figure
    follows.
    """

    text: str
    saves_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of a program on one pretended card; figures of several cards are the fullest one's.

    `errors` counts the out-of-memory errors that reached the program, `failed` is the last of them;
    where the outcome is OUT_OF_MEMORY the program ended by it. `value_reads` counts reads of values
    that nobody computed. `context_bytes` is the band of the CUDA context; the middle was taken.
    `refusals` are functions of NVIDIA's that a pretended card does not have and the program asked
    for.
    """

    outcome: TrialOutcome
    card: str
    card_title: str
    compute_capability: str
    total_bytes: int
    context_bytes: tuple[int, int, int]
    status: int
    ended_by: str | None = None  # the exception that ended it, where one did
    ended_at: CodePlace | None = None
    ended_saying: str = ""  # the first line of what that exception says
    allocated_peak_bytes: int
    reserved_peak_bytes: int
    device_peak_bytes: int
    errors: int = 0
    retries: int = 0
    failed: FailedAllocation | None = None
    holders: tuple[Holder, ...] = ()  # at the peak of what is allocated
    timeline: tuple[Moment, ...] = ()
    advice: tuple[Advice, ...] = ()
    value_reads: int = 0
    value_places: tuple[CodePlace, ...] = ()
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()  # what models were met with, under `--weights none`
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def is_tight(self) -> bool:
        """True where it completes, but a CUDA context at the high end of its band has no room."""
        _, taken, high = self.context_bytes
        room = self.total_bytes - self.device_peak_bytes
        return self.outcome is TrialOutcome.COMPLETES and room < high - taken
