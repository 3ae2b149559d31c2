"""A plan: the changes that make a job fit a card, what each saves and costs, and what fits at most.

A plan's figures are those of verdicts: each option was judged as `check` judges it.
"""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.budget.change import Change
from vramplan.budget.pace import Pace, slowdown
from vramplan.model import Advice, Settings, SettingValue, Verdict, VerdictKind
from vramplan.quick_dataclass import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Changes that together make it fit, the verdict with them, and the least time of a result."""

    changes: tuple[Change, ...]
    settings: Mapping[str, SettingValue]  # of all changes
    cost: str
    price: int
    verdict: Verdict
    pace: Pace | None
    #: the TARGETs with these settings, as the command line takes them; several are side by side
    targets: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Return what a user types."""
        return "; ".join(change.line for change in self.changes)

    @property
    def need_bytes(self) -> int:
        """Return the expected need with the changes."""
        return self.verdict.need.expected_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A change that was not tried, and why."""

    line: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Largest:
    """The largest value of a size that is good enough, and the verdict with it.

    `is_last_known` says that it is the last for which the need is known: that of a larger one is
    assumed, and too wide to say that it is good enough.
    """

    value: SettingValue
    verdict: Verdict
    is_last_known: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallestCard:
    """The smallest class and the smallest card of the catalogue on which a job fits as it is."""

    class_name: str | None
    card: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to change so that a job fits a card: `options`, cheapest first.

    There are none where it fits as it is (`is_needed`), where nobody asked (`is_searched`), and
    where nothing makes it fit: then `everything` is all changes at once, whose verdict tells by how
    much it misses (None where there is nothing to change), and `nearest` what helps most.
    `smaller_file` of the same model fits with all else as it is. `largest` has those of `SIZES`
    that the job has, None for one of which not even the smallest fits.
    """

    verdict: Verdict
    settings: Settings
    pace: Pace | None
    is_needed: bool
    is_searched: bool = True
    options: tuple[Option, ...] = ()
    everything: Option | None = None
    nearest: tuple[Advice, ...] = ()
    smaller_file: Advice | None = None
    left_out: tuple[LeftOut, ...] = ()
    largest: Mapping[str, Largest | None] = field(default_factory=dict)
    smallest: SmallestCard | None = None

    @property
    def succeeds(self) -> bool | None:
        """Return whether it fits or is tight, as it is or with an option.

        None where it is neither as it is, and nobody looked for an option.
        """
        if not self.verdict.kind.is_failure:
            return True
        return bool(self.options) if self.is_searched else None

    @property
    def best(self) -> VerdictKind:
        """Return the best verdict there is: as it is, or with an option."""
        kinds = [self.verdict.kind, *(option.verdict.kind for option in self.options)]
        return min(kinds, key=lambda kind: kind.rank)

    @property
    def beside(self) -> tuple[Advice, ...]:
        """Return what stands beside the ways, and was not said with `everything` already."""
        told = "" if self.everything is None else self.everything.line
        nearest = (advice for advice in self.nearest if advice.change != told)
        return (*nearest, *(() if self.smaller_file is None else (self.smaller_file,)))

    @property
    def missing_bytes(self) -> int | None:
        """Return by how much it misses with everything changed; None unless it does."""
        if self.everything is None:
            return None
        verdict = self.everything.verdict
        need = verdict.need
        short = need.expected_bytes if verdict.kind.is_failure else need.high_bytes
        return max(0, short - verdict.budget_bytes)

    def saving_bytes(self, option: Option) -> int:
        """Return what an option takes off the expected need; below 0 where it adds to it."""
        return self.verdict.need.expected_bytes - option.need_bytes

    def slowdown(self, option: Option) -> float | None:
        """Return how many times as long a result takes with an option, by moved bytes."""
        return slowdown(option.pace, self.pace)

    def is_on_front(self, option: Option) -> bool:
        """Return whether no other option needs less memory and is no slower, or the other way."""
        mine = option.need_bytes, self.slowdown(option) or 0.0
        for other in self.options:
            its = other.need_bytes, self.slowdown(other) or 0.0
            if its != mine and its[0] <= mine[0] and its[1] <= mine[1]:
                return False
        return True
