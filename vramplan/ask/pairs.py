"""Which two of several jobs fit a card side by side: any two, judged as `judge_together` does."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from vramplan.ask.judge import badness, need_beside, weigh_together
from vramplan.budget.ranked import Pair
from vramplan.budget.system_share import system_share
from vramplan.budget.verdict import candidate_budgets
from vramplan.catalog import CardChoice
from vramplan.errors import UsageError, VramplanError
from vramplan.model import Band, Card, Job

#: any two of so many are tried
MOST_MODELS = 200


def find_pairs(
    jobs: Mapping[int, Job],
    choice: CardChoice,
    *,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> tuple[Pair, ...]:
    """Return any two of `jobs`, by their keys, with the verdict on them on the worst candidate.

    Each job is estimated once a candidate, and their needs are added up. One that has no estimate
    on some candidate is in no pair. Raises UsageError for more jobs than a person can look at, and
    for several cards as one.
    """
    if len(jobs) > MOST_MODELS:
        hint = "name those that are meant, with --only-named"
        raise UsageError(f"pairs of {len(jobs):,} models are more than can be shown", hint=hint)
    if any(card.seats for card in choice.candidates):
        message = f"{choice.label}: pipelines side by side on several cards are not modelled"
        raise UsageError(message, hint="ask for one card")
    needs: dict[tuple[int, Card], Band] = {}
    known = [key for key, job in jobs.items() if _estimate(key, job, choice, needs)]
    found = []
    for one, other in combinations(known, 2):
        pair = [jobs[one], jobs[other]]
        kept = max(system_share(job.settings).expected_bytes for job in pair)
        worst = max(
            (
                weigh_together(
                    [needs[one, card], needs[other, card]],
                    [job.settings for job in pair],
                    budget,
                )
                for card, budget in candidate_budgets(choice, margin_bytes, other_bytes, kept)
            ),
            key=lambda weighed: badness(weighed.kind, weighed.risk, weighed.need),
        )
        found.append(
            Pair(
                places=(one, other),
                kind=worst.kind,
                need=worst.need,
                budget_bytes=worst.budget_bytes,
            )
        )
    return tuple(found)


def _estimate(key: int, job: Job, choice: CardChoice, needs: dict[tuple[int, Card], Band]) -> bool:
    """Put a job's need on each candidate into `needs`; return whether there is one everywhere."""
    try:
        for card in choice.candidates:
            needs[key, card] = need_beside(job, card)
    except VramplanError:
        return False
    return True
