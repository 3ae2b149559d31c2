"""What to change so that several jobs fit one card side by side: any of them may be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from vramplan.ask.judge import judge_together, need_beside, weigh_together
from vramplan.ask.plan import MOST_OPTIONS, choose_card, together_advice
from vramplan.ask.targets import make_jobs, open_catalog, silent
from vramplan.budget.change import Change, combine
from vramplan.budget.combinations import Chain, everything, find_combinations
from vramplan.budget.plan import LeftOut, Option, Plan, SmallestCard
from vramplan.budget.system_share import system_share
from vramplan.budget.verdict import candidate_budgets
from vramplan.catalog import CardChoice, Catalog, usable_bytes
from vramplan.catalog.cards import class_names
from vramplan.engines.door import Remark, engine_of
from vramplan.errors import UsageError, VramplanError
from vramplan.model import Band, Card, Estimate, Job, SettingValue, Verdict, VerdictKind
from vramplan.quick_dataclass import dataclass, replace
from vramplan.searching import searching
from vramplan.settings import format_setting, write_target

#: more on one card at once are not planned for: every pair of changes of any of them is looked at
MOST_TARGETS = 16
#: stands between a target's place and one of its settings, which has no such sign
_OF = "."


@dataclass(frozen=True, slots=True, kw_only=True)
class TogetherQuestion:
    """Jobs that are to fit a card side by side; `worst` is the worst verdict that will do."""

    jobs: tuple[Job, ...]
    choice: CardChoice
    catalog: Catalog
    margin_bytes: int = 0
    other_bytes: int | None = None
    worst: VerdictKind = VerdictKind.FITS


def read_joint_plan(
    targets: Sequence[str],
    cards: Sequence[str],
    settings: Mapping[str, SettingValue],
    remark: Remark,
    *,
    catalog: Sequence[str | Path] = (),
    mmproj: str | None = None,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
    worst: VerdictKind = VerdictKind.FITS,
) -> TogetherQuestion:
    """Return the question about TARGETs side by side on a CARD, as `read_plan` does for one.

    Raises UsageError for fewer than two.
    """
    if len(targets) < 2:
        hint = "name all that are loaded at once: vramplan plan sd15 llava:7b --together"
        raise UsageError("--together takes two targets or more", hint=hint)
    known = open_catalog(catalog)
    jobs = make_jobs(targets, known, settings, mmproj, remark)
    return TogetherQuestion(
        jobs=tuple(jobs),
        choice=choose_card(cards, known, remark),
        catalog=known,
        margin_bytes=margin_bytes,
        other_bytes=other_bytes,
        worst=worst,
    )


def find_joint_plan(question: TogetherQuestion, progress: Callable[[str], None] = silent) -> Plan:
    """Return what makes several jobs fit a card side by side, as `find_plan` does for one.

    An option's settings are of the targets by name (``sd15.batch``), and its `targets` are all of
    them. Raises UsageError where no CUDA context fits the card, VramplanError where there is no
    estimate of one of the jobs as it is.
    """
    if len(question.jobs) > MOST_TARGETS:
        message = f"a plan for {len(question.jobs)} side by side is for {MOST_TARGETS} at most"
        raise UsageError(message, hint="vramplan check --together judges any number")
    with searching():
        trial = _Joint(question)
        plan = Plan(
            verdict=trial.verdict,
            settings={},
            pace=None,
            is_needed=trial.verdict.kind.rank > question.worst.rank,
            smallest=trial.smallest(),
        )
        return _with_options(plan, trial, progress) if plan.is_needed else plan


def _with_options(plan: Plan, trial: _Joint, progress: Callable[[str], None]) -> Plan:
    changes = list(trial.changes())
    options: list[Option] = []
    kinds = [trial.question.worst]
    if plan.verdict.kind.is_failure and trial.question.worst is VerdictKind.FITS:
        kinds.append(VerdictKind.TIGHT)  # rather than nothing
    for worst in kinds:
        options = options or list(islice(_options(trial, changes, worst, progress), MOST_OPTIONS))
    whole = everything([one for one in changes if trial.is_known(one.settings)])
    return replace(
        plan,
        options=tuple(options),
        everything=trial.option(whole) if whole and not options else None,
        nearest=together_advice(trial.verdict, trial.estimates),
        left_out=tuple(_left_out(trial, changes)),
    )


def _options(
    trial: _Joint, changes: Sequence[Change], worst: VerdictKind, progress: Callable[[str], None]
) -> Iterator[Option]:
    def fits(chain: Chain) -> bool:
        settings = combine(chain).settings
        told = (f"{key}={format_setting(key.rpartition(_OF)[2], v)}" for key, v in settings.items())
        progress(" ".join(told))
        return trial.is_accepted(settings, worst)

    for chain in find_combinations(changes, lambda _: True, fits):
        yield trial.option(chain)


def _left_out(trial: _Joint, changes: Sequence[Change]) -> Iterator[LeftOut]:
    for change in changes:
        why = trial.problems.get(tuple(sorted(change.settings.items())))
        if why is not None:
            yield LeftOut(line=change.line, why=why)
    for place, job in enumerate(trial.question.jobs):
        for line, why in engine_of(job.pipeline).not_modelled(job):
            yield LeftOut(line=f"{trial.labels[place]}: {line}", why=why)


class _Joint:
    """Several jobs on a card's choice, tried with other settings of any of them."""

    def __init__(self, question: TogetherQuestion) -> None:
        self.question = question
        self.labels = _labels(question.jobs)
        self.verdict, self.estimates = self._judge(question.jobs)
        self.problems: dict[object, str] = {}
        self._needs: dict[object, Band] = {}
        self._cards: dict[int, Card] = {}
        self._places = {label: place for place, label in enumerate(self.labels)}
        # no change is one of what weighs here: the platform, and what it does when memory is short
        self._settings = [job.settings for job in question.jobs]
        self._budgets = list(self._candidates(question.choice))

    def _judge(self, jobs: Sequence[Job]) -> tuple[Verdict, tuple[Estimate, ...]]:
        question = self.question
        return judge_together(
            jobs,
            question.choice,
            margin_bytes=question.margin_bytes,
            other_bytes=question.other_bytes,
        )

    def _candidates(self, choice: CardChoice) -> Iterator[tuple[Card, int]]:
        kept = max(system_share(job.settings).expected_bytes for job in self.question.jobs)
        question = self.question
        yield from candidate_budgets(choice, question.margin_bytes, question.other_bytes, kept)

    def changes(self) -> Iterator[Change]:
        """Yield each job's changes as changes of all: settings and ladders are of a target."""
        for place, job in enumerate(self.question.jobs):
            label = self.labels[place]
            for change in engine_of(job.pipeline).changes(job):
                yield replace(
                    change,
                    settings={f"{label}{_OF}{key}": v for key, v in change.settings.items()},
                    line=f"{label}: {change.line}",
                    cost=f"{label}: {change.cost}" if change.price else change.cost,
                    ladder=None if change.ladder is None else f"{label}{_OF}{change.ladder}",
                )

    def changed(self, settings: Mapping[str, SettingValue]) -> list[Job]:
        """Return the jobs with some settings changed, each of the target that is named."""
        own = self._own(settings)
        return [job.changed(own[place]) for place, job in enumerate(self.question.jobs)]

    def _own(self, settings: Mapping[str, SettingValue]) -> list[dict[str, SettingValue]]:
        found: list[dict[str, SettingValue]] = [{} for _ in self.labels]
        for key, value in settings.items():
            label, _, own = key.rpartition(_OF)
            found[self._places[label]][own] = value
        return found

    def is_known(self, settings: Mapping[str, SettingValue]) -> bool:
        """Return whether the need with some settings can be told, and keep why where it cannot."""
        try:
            self._kind(settings, *self._budgets[0])
        except VramplanError as problem:
            self.problems[tuple(sorted(settings.items()))] = str(problem)
            return False
        return True

    def is_accepted(self, settings: Mapping[str, SettingValue], worst: VerdictKind) -> bool:
        """Return whether all candidates have room with some settings changed."""
        try:
            for place, (card, budget) in enumerate(self._budgets):
                if self._kind(settings, card, budget).rank > worst.rank:
                    # it may well refuse the next one too
                    self._budgets.insert(0, self._budgets.pop(place))
                    return False
        except VramplanError as problem:
            self.problems[tuple(sorted(settings.items()))] = str(problem)
            return False
        return True

    def _kind(
        self, settings: Mapping[str, SettingValue], card: Card, budget_bytes: int
    ) -> VerdictKind:
        own = self._own(settings)
        needs = [self._need(place, changed, card) for place, changed in enumerate(own)]
        return weigh_together(needs, self._settings, budget_bytes).kind

    def _need(self, place: int, changed: Mapping[str, SettingValue], card: Card) -> Band:
        key = place, tuple(sorted(changed.items())), id(card)
        if key not in self._needs:
            job = self.question.jobs[place]
            self._needs[key] = need_beside(job.changed(changed), card)
            self._cards[id(card)] = card  # so that no other gets its number
        return self._needs[key]

    def option(self, chain: Chain) -> Option:
        """Return changes as an option, judged as `check` judges it."""
        change = combine(chain)
        verdict, _ = self._judge(self.changed(change.settings))
        own = self._own(change.settings)
        return Option(
            changes=tuple(chain),
            settings=change.settings,
            cost=change.cost,
            price=change.price,
            verdict=verdict,
            pace=None,
            targets=tuple(
                write_target(job.asked.target, {**job.asked.settings, **own[place]})
                for place, job in enumerate(self.question.jobs)
            ),
        )

    def smallest(self) -> SmallestCard:
        """Return the smallest class and card on which all fit side by side as they are."""
        catalog = self.question.catalog
        cards = [card for card in catalog.cards.values() if not card.shares_memory]
        cards.sort(key=usable_bytes)
        classes = (catalog.card(name) for name in class_names(cards))
        named = (CardChoice(label=c.name, title=c.title, candidates=(c,)) for c in cards)
        return SmallestCard(
            class_name=next((one.label for one in classes if self._suits(one)), None),
            card=next((one.label for one in named if self._suits(one)), None),
        )

    def _suits(self, choice: CardChoice) -> bool:
        worst = self.question.worst
        try:
            return all(
                self._kind({}, card, budget).rank <= worst.rank
                for card, budget in self._candidates(choice)
            )
        except VramplanError:  # no room for a context, or nothing recorded for an architecture
            return False


def _labels(jobs: Sequence[Job]) -> list[str]:
    """Return what each job is called in settings and lines; of two alike the second has a number.

    A name's own dots stay: settings have none, so that the last one tells them apart.
    """
    found: list[str] = []
    for job in jobs:
        plain = job.name or job.pipeline.name
        label, number = plain, 1
        while label in found:
            number += 1
            label = f"{plain}#{number}"
        found.append(label)
    return found
