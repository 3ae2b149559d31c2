"""One job with this or that changed: whether it is good enough on a card, found out cheaply.

What a quick look refuses on one candidate is not judged; what passes is, on all of them, and only
that verdict counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vramplan.ask.judge import judge
from vramplan.budget.change import Change
from vramplan.budget.system_share import system_share
from vramplan.budget.verdict import Screening, candidate_budgets, judged_as
from vramplan.catalog import CardChoice
from vramplan.engines.door import engine_of
from vramplan.errors import VramplanError
from vramplan.model import Card, Estimate, Job, SettingValue, Verdict, VerdictKind
from vramplan.quick_dataclass import replace
from vramplan.setting_values import AUTO

#: a verdict, and the estimate behind it
Judged = tuple[Verdict, Estimate]


class Trial:
    """A job on a card's choice, tried with other settings; `worst` is still good enough.

    `problems` are why some were not tried, by their settings in text.
    """

    def __init__(
        self,
        job: Job,
        choice: CardChoice,
        *,
        margin_bytes: int = 0,
        other_bytes: int | None = None,
        worst: VerdictKind = VerdictKind.FITS,
        judged: Judged | None = None,
    ) -> None:
        """Judge the job as it is, unless that was done (`judged`).

        Raises UsageError where no CUDA context fits.
        """
        self.job, self.choice, self.worst = job, choice, worst
        self._taken = margin_bytes, other_bytes
        self._engine = engine_of(job.pipeline)
        self._known: dict[object, Verdict | None] = {}
        self._screened: dict[object, bool] = {}
        self.problems: dict[object, str] = {}
        self._judged: dict[object, Judged] = {}
        self.verdict, self._estimate = judged or self.judge_on(job)
        share = system_share(job.settings).expected_bytes
        self.budgets = sorted(
            candidate_budgets(choice, *self._taken, share),
            key=lambda pair: judged_as(pair[0]) != self.verdict.judged_as,
        )
        self._strictest_first = list(self.budgets)

    def again(self, worst: VerdictKind) -> Trial:
        """Return a trial of the same that is content with another verdict."""
        margin_bytes, other_bytes = self._taken
        return Trial(
            self.job,
            self.choice,
            margin_bytes=margin_bytes,
            other_bytes=other_bytes,
            worst=worst,
            judged=(self.verdict, self._estimate),
        )

    def changes(self) -> list[Change]:
        """Return the changes that the job's settings leave open.

        Where a setting is left to the engine they go out from what it takes.
        """
        taken = {
            key: value
            for key, value in self._estimate.settings.items()
            if self.job.settings.get(key) == AUTO and isinstance(value, int)
        }
        return list(self._engine.changes(self.job.changed(taken)))

    def judge(self, changed: Mapping[str, SettingValue]) -> Verdict:
        """Return the verdict with some settings changed. Raises VramplanError."""
        return self.judge_on(self.job.changed(changed))[0]

    def judge_on(self, job: Job, cards: Sequence[Card] = ()) -> Judged:
        """Return the verdict on the job at some settings, on all or some of the candidates.

        Raises VramplanError.
        """
        margin_bytes, other_bytes = self._taken
        if cards:
            choice = replace(self.choice, candidates=tuple(cards))
            return judge(job, choice, margin_bytes=margin_bytes, other_bytes=other_bytes)
        key = tuple(sorted(job.settings.items()))
        if key not in self._judged:
            self._judged[key] = judge(
                job, self.choice, margin_bytes=margin_bytes, other_bytes=other_bytes
            )
        return self._judged[key]

    def accepted(self, changed: Mapping[str, SettingValue]) -> Verdict | None:
        """Return the verdict with some settings changed where it is good enough, else None."""
        key = tuple(sorted(changed.items()))
        if key not in self._known:
            try:
                self._known[key] = self._try(changed)
            except VramplanError as problem:
                self._known[key] = None
                self.problems[key] = str(problem)
        return self._known[key]

    def _try(self, changed: Mapping[str, SettingValue]) -> Verdict | None:
        if not self._screen(changed):
            return None
        found = self.judge(changed)
        return found if self.is_accepted(found) else None

    def may_be_accepted(self, changed: Mapping[str, SettingValue]) -> bool:
        """Return whether a quick look leaves it open that some settings are good enough."""
        key = tuple(sorted(changed.items()))
        try:
            return self._screen(changed)
        except VramplanError as problem:
            self.problems[key] = str(problem)
            return False

    def _screen(self, changed: Mapping[str, SettingValue]) -> bool:
        key = tuple(sorted(changed.items()))
        if key not in self._screened:
            self._screened[key] = self._passes(changed)
        return self._screened[key]

    def _passes(self, changed: Mapping[str, SettingValue]) -> bool:
        job = self.job.changed(changed)
        for place, (card, budget) in enumerate(self._strictest_first):
            if not self._engine.screen(job, card, budget).passes(self.worst):
                # it may well refuse the next one too
                self._strictest_first.insert(0, self._strictest_first.pop(place))
                return False
        return True

    def is_accepted(self, verdict: Verdict) -> bool:
        """Return whether a verdict is good enough."""
        return verdict.kind.rank <= self.worst.rank

    def is_unknown(self, changed: Mapping[str, SettingValue]) -> str | None:
        """Return why some settings could not be tried; None where they could, or were not."""
        return self.problems.get(tuple(sorted(changed.items())))

    def look(self, changed: Mapping[str, SettingValue]) -> Screening:
        """Return what a quick look says with some settings changed, on the deciding candidate.

        Raises VramplanError.
        """
        return self._engine.screen(self.job.changed(changed), *self.deciding)

    def least_bytes(
        self, changed: Mapping[str, SettingValue], card: Card, budget_bytes: int
    ) -> int | None:
        """Return what is needed at least on a candidate, for all that is known; None where nothing.

        Where a size has no room for it no larger one is good enough, whichever way success goes.
        """
        try:
            seen = self._engine.screen(self.job.changed(changed), card, budget_bytes)
        except VramplanError:  # what the tape does not hold for
            return None
        return seen.least_for(self.worst)

    @property
    def deciding(self) -> tuple[Card, int]:
        """The candidate that decided the verdict, and its budget."""
        return self.budgets[0]
