"""What to change so that it fits: the engine is asked for the first useful advice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vramplan.ask.judge import judge
from vramplan.budget.advice import Question
from vramplan.budget.system_share import system_share
from vramplan.budget.verdict import candidate_budgets, judged_as
from vramplan.catalog import CardChoice
from vramplan.engines.door import engine_of
from vramplan.model import Advice, Card, Estimate, Job, Verdict, VerdictKind
from vramplan.quick_dataclass import replace


def first_advice(
    job: Job,
    verdict: Verdict,
    choice: CardChoice,
    *,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Advice, ...]:
    """Return the cheapest change that makes `verdict` fit; for a failure, else the nearest one.

    Nothing is returned for a verdict that fits already, and where no change helps. `progress` is
    told which change is tried.
    """
    if verdict.kind is VerdictKind.FITS:
        return ()

    def judge_again(job: Job, cards: Sequence[Card] = ()) -> tuple[Verdict, Estimate]:
        asked = replace(choice, candidates=tuple(cards)) if cards else choice
        return judge(job, asked, margin_bytes=margin_bytes, other_bytes=other_bytes)

    share = system_share(job.settings)
    budgets = sorted(
        candidate_budgets(choice, margin_bytes, other_bytes, share.expected_bytes),
        key=lambda pair: judged_as(pair[0]) != verdict.judged_as,
    )
    question = Question(
        job=job,
        verdict=verdict,
        budgets=tuple(budgets),
        judge=judge_again,
        progress=progress,
    )
    return engine_of(job.pipeline).advise(question)


def together_advice(verdict: Verdict, estimates: Sequence[Estimate]) -> tuple[Advice, ...]:
    """Return the advice to run one after the other what fits alone but not side by side."""
    largest = max((found.need.band for found in estimates), key=lambda band: band.high_bytes)
    if verdict.kind is VerdictKind.FITS or largest.high_bytes > verdict.budget_bytes:
        return ()
    advice = Advice(
        change="run them one after the other",
        effect="each fits alone",
        cost="one process ends before the next one loads",
        need_bytes=largest.expected_bytes,
    )
    return (advice,)
