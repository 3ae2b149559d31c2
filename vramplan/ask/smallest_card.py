"""The smallest card of the catalogue on which a job fits, and the smallest class of cards."""

from __future__ import annotations

from collections.abc import Iterable

from vramplan.ask.judge import weigh
from vramplan.budget.plan import SmallestCard
from vramplan.budget.system_share import system_share
from vramplan.budget.verdict import candidate_budgets
from vramplan.catalog import CardChoice, Catalog, usable_bytes
from vramplan.catalog.cards import class_names
from vramplan.engines.door import engine_of
from vramplan.errors import VramplanError
from vramplan.model import Card, Job, VerdictKind
from vramplan.setting_values import AUTO


def find_smallest(
    job: Job,
    catalog: Catalog,
    *,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
    worst: VerdictKind = VerdictKind.FITS,
) -> SmallestCard:
    """Return the smallest class and card on which a job is good enough; None for each not found.

    GPUs that share the CPU's memory are left out.
    """
    trial = _Cards(job, (margin_bytes, other_bytes), worst)
    cards = [card for card in catalog.cards.values() if not card.shares_memory]
    cards.sort(key=usable_bytes)
    return SmallestCard(
        class_name=trial.first(catalog.card(name) for name in class_names(cards)),
        card=trial.first(
            CardChoice(label=card.name, title=card.title, candidates=(card,)) for card in cards
        ),
    )


class _Cards:
    """One card after another for the same job."""

    def __init__(self, job: Job, taken: tuple[int, int | None], worst: VerdictKind) -> None:
        self._job, self._worst = job, worst
        self._taken = (*taken, system_share(job.settings).expected_bytes)
        self._engine = engine_of(job.pipeline)
        self._grader = self._engine.grader(job)

    def first(self, choices: Iterable[CardChoice]) -> str | None:
        """Return the first choice that is good enough."""
        return next((choice.label for choice in choices if self._is_good_enough(choice)), None)

    def _is_good_enough(self, choice: CardChoice) -> bool:
        try:
            budgets = candidate_budgets(choice, *self._taken)
            return all(self._suits(card, budget) for card, budget in budgets)
        except VramplanError:  # no room for a context, or nothing recorded for an architecture
            return False

    def _suits(self, card: Card, budget_bytes: int) -> bool:
        if self._job.settings.get("context") != AUTO:  # which an engine may cut until it fits
            need = self._engine.estimate(self._job, card).need.band
            is_fit = self._worst is VerdictKind.FITS
            if (need.high_bytes if is_fit else need.expected_bytes) > budget_bytes:
                return False  # without finding out where it fails
        graded = self._grader(card, budget_bytes)
        kind = weigh(graded, self._job.settings, budget_bytes).kind
        return kind.rank <= self._worst.rank
