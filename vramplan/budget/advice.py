"""Advice for a verdict that does not fit: what is asked of an engine, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vramplan.budget.change import Change
from vramplan.model import Advice, Card, Estimate, Job, Verdict, VerdictKind
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import Protocol


class Judge(Protocol):
    """Judges a job anew, as the verdict at hand was reached."""

    def __call__(self, job: Job, cards: Sequence[Card] = ()) -> tuple[Verdict, Estimate]:
        """Return the verdict, on `cards` alone where some are named. Raises VramplanError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A verdict that is to get better.

    `budgets` are the candidates it was sought on, the one that decided it first, each with what it
    offers in bytes; `progress` is told which change is tried.
    """

    job: Job
    verdict: Verdict
    budgets: tuple[tuple[Card, int], ...]
    judge: Judge
    progress: Callable[[str], None]

    def with_change(
        self, change: Change | None, cards: Sequence[Card] = ()
    ) -> tuple[Verdict, Estimate]:
        """Return the verdict with a change, on some of the candidates. Raises VramplanError."""
        return self.judge(self.job.changed(change.settings) if change else self.job, cards)


def advise(change: Change, found: Verdict, estimate: Estimate, before: Verdict) -> Advice:
    """Return a change as advice: `found` is the verdict with it, `before` the one without."""
    effect = "not enough yet" if found.kind is before.kind else found.kind.value
    if found.kind is VerdictKind.OFFLOAD and estimate.layers is not None:
        effect = estimate.layers.in_words()
    elif found.kind is VerdictKind.OFFLOAD and estimate.settings.get("offload", "none") != "none":
        effect = f"runs with {estimate.settings['offload']} offload"
    return Advice(
        change=change.line,
        effect=effect,
        cost=change.cost,
        need_bytes=found.need.expected_bytes,
    )


def is_useful(found: Verdict, before: Verdict) -> bool:
    """True for a change that ends the failure, or closes a tenth of the gap at least.

    A change that hardly helps is worse than none: it sends people the wrong way.
    """
    gained = before.need.expected_bytes - found.need.expected_bytes
    gap = before.need.expected_bytes - before.budget_bytes
    return gained > 0 and (not found.kind.is_failure or gained * 10 >= gap)
