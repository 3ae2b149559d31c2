"""What to change so that it fits: combinations of changes, each judged anew, cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from vramplan.ask.cards import LOCAL, choose_cards
from vramplan.ask.largest import find_largest, has_answer
from vramplan.ask.smallest_card import find_smallest
from vramplan.ask.targets import make_jobs, open_catalog, silent
from vramplan.ask.trial import Trial
from vramplan.budget.advice import Question, advise
from vramplan.budget.change import SOME, Change, combine
from vramplan.budget.combinations import Chain, everything, find_combinations
from vramplan.budget.pace import Pace
from vramplan.budget.plan import LeftOut, Option, Plan
from vramplan.catalog import CardChoice, Catalog
from vramplan.engines.door import Remark, engine_of
from vramplan.errors import UsageError, VramplanError
from vramplan.hearing import heard_by
from vramplan.model import Advice, Estimate, Job, SettingValue, Verdict, VerdictKind
from vramplan.quick_dataclass import dataclass, replace
from vramplan.searching import searching
from vramplan.setting_values import SIZES
from vramplan.settings import format_setting, write_target

#: so many options are worth reading
MOST_OPTIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanQuestion:
    """A job that is to fit a card of a catalogue; `worst` is the worst verdict that will do."""

    job: Job
    choice: CardChoice
    catalog: Catalog
    margin_bytes: int = 0
    other_bytes: int | None = None
    worst: VerdictKind = VerdictKind.FITS

    def trial(self) -> Trial:
        """Return what tries the job with this or that changed."""
        return Trial(
            self.job,
            self.choice,
            margin_bytes=self.margin_bytes,
            other_bytes=self.other_bytes,
            worst=self.worst,
        )


def read_plan(
    target: str,
    cards: Sequence[str],
    settings: Mapping[str, SettingValue],
    remark: Remark,
    *,
    catalog: Sequence[str | Path] = (),
    mmproj: str | None = None,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
    worst: VerdictKind = VerdictKind.FITS,
) -> PlanQuestion:
    """Return the question about a TARGET on a CARD; without one this machine's GPU is taken.

    Of several GPUs in a machine the one with most room is taken. Raises UsageError where several
    cards are named, MissingError where none is and there is no GPU, and what `make_jobs` raises.
    """
    known = open_catalog(catalog)
    (job,) = make_jobs([target], known, settings, mmproj, remark)
    return PlanQuestion(
        job=job,
        choice=choose_card(cards, known, remark),
        catalog=known,
        margin_bytes=margin_bytes,
        other_bytes=other_bytes,
        worst=worst,
    )


def choose_card(cards: Sequence[str], catalog: Catalog, remark: Remark) -> CardChoice:
    """Return the one card of a plan; without one this machine's GPU with most room.

    Raises UsageError where several are named, MissingError where none is and there is no GPU.
    """
    if len(cards) > 1:
        hint = "vramplan check takes several, and vramplan plan one of them after the other"
        raise UsageError("a plan is for one card", hint=hint)
    found = choose_cards(cards or [LOCAL], catalog, remark)
    choice = max(found, key=_room)
    if len(found) > 1:
        remark(f"planned for {choice.title} ({choice.label})")
    return choice


def _room(choice: CardChoice) -> int:
    card = choice.candidates[0]
    return card.total_bytes if card.free_bytes is None else card.free_bytes


def find_plan(
    question: PlanQuestion,
    progress: Callable[[str], None] = silent,
    sizes: Sequence[str] = SIZES,
    *,
    with_options: bool = True,
) -> Plan:
    """Return what makes a job fit, and the largest of those `sizes` that it has.

    Where nothing fits, what is tight is taken. Raises UsageError where no CUDA context fits the
    card, VramplanError where there is no estimate of the job as it is.
    """
    with heard_by(progress):
        trial = question.trial()  # no part of the search: what has no tape is recorded, as by check
    with searching():
        return _find_plan(question, trial, progress, sizes, with_options=with_options)


def _find_plan(
    question: PlanQuestion,
    trial: Trial,
    progress: Callable[[str], None],
    sizes: Sequence[str],
    *,
    with_options: bool,
) -> Plan:
    job = question.job
    plan = Plan(
        verdict=trial.verdict,
        settings=job.settings,
        pace=_pace(job, trial),
        is_needed=not trial.is_accepted(trial.verdict),
        is_searched=with_options,
    )
    if with_options and plan.is_needed:
        plan = _with_options(plan, trial, progress)
    largest = {
        key: find_largest(trial, key, progress)
        for key in sizes
        if job.settings.get(key) is not None and has_answer(trial, key)
    }
    smallest = find_smallest(
        job,
        question.catalog,
        margin_bytes=question.margin_bytes,
        other_bytes=question.other_bytes,
        worst=question.worst,
    )
    return replace(plan, largest=largest, smallest=smallest)


def _with_options(plan: Plan, trial: Trial, progress: Callable[[str], None]) -> Plan:
    changes = trial.changes()
    options = list(islice(find_options(trial, changes, progress), MOST_OPTIONS))
    if not options and trial.verdict.kind.is_failure and trial.worst is VerdictKind.FITS:
        second = trial.again(VerdictKind.TIGHT)
        options = list(islice(find_options(second, changes, progress), MOST_OPTIONS))
    return replace(
        plan,
        options=tuple(options),
        everything=None if options else _everything(trial, changes),
        nearest=() if options else _nearest(trial, progress),
        smaller_file=_smaller_file(trial),
        left_out=(*_left_out(trial, changes), *_not_modelled(trial.job)),
    )


def find_options(
    trial: Trial, changes: Sequence[Change], progress: Callable[[str], None] = silent
) -> Iterator[Option]:
    """Yield the combinations of changes that are good enough, cheapest first."""
    for chain in _find_chains(trial, changes, progress):
        change = combine(chain)
        found = trial.accepted(change.settings)
        assert found is not None
        yield _option(trial, chain, change, found)


def _find_chains(
    trial: Trial, changes: Sequence[Change], progress: Callable[[str], None]
) -> Iterator[Chain]:
    """Yield the changes of each option; nothing is said of the time that one takes."""

    def may_fit(chain: Chain) -> bool:
        settings = combine(chain).settings
        progress(" ".join(f"{key}={format_setting(key, v)}" for key, v in settings.items()))
        return trial.may_be_accepted(settings)

    def fits(chain: Chain) -> bool:
        return trial.accepted(combine(chain).settings) is not None

    yield from find_combinations(changes, may_fit, fits)


def _option(trial: Trial, chain: Chain, change: Change, found: Verdict) -> Option:
    asked = trial.job.asked
    return Option(
        changes=chain,
        settings=change.settings,
        cost=change.cost,
        price=change.price,
        verdict=found,
        pace=_pace(trial.job.changed(change.settings), trial),
        targets=(write_target(asked.target, {**asked.settings, **change.settings}),),
    )


def _pace(job: Job, trial: Trial) -> Pace | None:
    card, _ = trial.deciding
    try:
        return engine_of(job.pipeline).pace(job, card)
    except VramplanError:  # nothing is planned by it
        return None


def _everything(trial: Trial, changes: Sequence[Change]) -> Option | None:
    """Return all changes at once, or as many of them from the cheapest on as there is a verdict of.

    None where there is nothing to change.
    """
    known = [change for change in changes if not trial.is_unknown(change.settings)]
    chain = everything(known)
    while chain:
        change = combine(chain)
        try:
            return _option(trial, chain, change, trial.judge(change.settings))
        except VramplanError:
            chain = chain[:-1]
    return None


def _left_out(trial: Trial, changes: Sequence[Change]) -> Iterator[LeftOut]:
    for change in changes:
        why = trial.is_unknown(change.settings)
        if why:
            yield LeftOut(line=change.line, why=why)


def _not_modelled(job: Job) -> Iterator[LeftOut]:
    for line, why in engine_of(job.pipeline).not_modelled(job):
        yield LeftOut(line=line, why=why)


# ------------------------------------------------------------------------------- advice of a check
def first_advice(
    job: Job,
    verdict: Verdict,
    choice: CardChoice,
    *,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
    estimate: Estimate | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Advice, ...]:
    """Return the first option of a plan for `verdict`; for a failure, else what comes nearest.

    Unless that costs next to nothing, the smaller file with which it would fit stands beside it.
    Nothing is returned for a verdict that fits already, and where no change helps. `estimate` is
    the one behind the verdict, if it is at hand, and `progress` is told which change is tried.
    """
    if verdict.kind is VerdictKind.FITS:
        return ()
    trial = Trial(
        job,
        choice,
        margin_bytes=margin_bytes,
        other_bytes=other_bytes,
        judged=None if estimate is None else (verdict, estimate),
    )
    with searching():
        return _first_of(trial, verdict, progress)


def _first_of(
    trial: Trial, verdict: Verdict, progress: Callable[[str], None]
) -> tuple[Advice, ...]:
    for chain in _find_chains(trial, trial.changes(), progress):
        change = combine(chain)
        found, behind = trial.judge_on(trial.job.changed(change.settings))
        first = (advise(change, found, behind, verdict),)
        return first if change.price < SOME else (*first, *_some(_smaller_file(trial)))
    return (*_nearest(trial, progress), *_some(_smaller_file(trial)))


def _some(advice: Advice | None) -> tuple[Advice, ...]:
    return () if advice is None else (advice,)


def _smaller_file(trial: Trial) -> Advice | None:
    """Return which smaller file of the same model a failure would not be with."""
    if not trial.verdict.kind.is_failure:
        return None
    return engine_of(trial.job.pipeline).smaller_file(_question(trial))


def _question(trial: Trial, progress: Callable[[str], None] = silent) -> Question:
    return Question(
        job=trial.job,
        verdict=trial.verdict,
        budgets=tuple(trial.budgets),
        judge=trial.judge_on,
        progress=progress,
    )


def _nearest(trial: Trial, progress: Callable[[str], None]) -> tuple[Advice, ...]:
    """Return what helps a failure most where no change ends it: what is tight, else the nearest."""
    if not trial.verdict.kind.is_failure:
        return ()
    tight = trial.again(VerdictKind.TIGHT)
    for chain in _find_chains(tight, tight.changes(), progress):
        change = combine(chain)
        found, estimate = trial.judge_on(trial.job.changed(change.settings))
        return (advise(change, found, estimate, trial.verdict),)
    return engine_of(trial.job.pipeline).advise(_question(trial, progress))


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
