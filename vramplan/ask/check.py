"""Does it fit? What is asked, and a verdict per job and card, each with its advice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vramplan.ask.cards import choose_cards, choose_default_cards
from vramplan.ask.targets import (
    at,
    find_target,
    make_jobs,
    make_lenient_jobs,
    open_catalog,
    open_pipelines,
    override,
)
from vramplan.catalog import CardChoice, Catalog, load_catalog, user_folders
from vramplan.catalog.search import PROJECT_FILE
from vramplan.catalog.target_text import Target
from vramplan.engines.door import Remark, engine_of
from vramplan.errors import SourceError, UsageError
from vramplan.hearing import heard_by
from vramplan.model import Estimate, Job, Pipeline, SettingValue, Verdict, VerdictKind
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING, Protocol
from vramplan.setting_values import SIZES

if TYPE_CHECKING:
    from vramplan.budget.difference import Before, Comparison
    from vramplan.budget.plan import Largest
    from vramplan.compare.witness import Witness


class Progress(Protocol):
    """Is told which step of long work is at hand, and how many of how many are done."""

    def __call__(self, step: str, done: int = 0, total: int = 0, /) -> None:
        """Hear it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be judged on what.

    Each of `jobs` is alone on each card; those of one of `groups` are side by side there.
    `margin_bytes` and `other_bytes` are taken off every card; `other_bytes` None takes what NVML
    says others hold. `fail_on` is the mildest verdict that is a failure. `base` is an earlier
    answer to compare with, of the file `base_place`.
    """

    jobs: tuple[Job, ...]
    choices: tuple[CardChoice, ...]
    groups: tuple[tuple[Job, ...], ...] = ()
    margin_bytes: int = 0
    other_bytes: int | None = None
    fail_on: VerdictKind = VerdictKind.OFFLOAD
    is_project: bool = False
    #: what a project's cards and pipelines were looked for in
    catalog: Catalog | None = None
    wants_largest: bool = False
    base: tuple[Before, ...] | None = None
    base_place: str = ""

    @property
    def total(self) -> int:
        """Return how many verdicts there are."""
        return (len(self.jobs) + len(self.groups)) * len(self.choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The verdicts, in the order of jobs and then cards, and the estimates they rest on.

    `witnesses` are what the engines themselves say, one for each verdict, where that was asked;
    `largest` the largest of each size that fits, for each verdict on a job alone; `compared` what
    has changed since an earlier answer.
    """

    verdicts: tuple[Verdict, ...]
    estimates: tuple[Estimate, ...]
    witnesses: tuple[Witness, ...] = ()
    largest: tuple[Mapping[str, Largest | None], ...] = ()
    compared: Comparison | None = None
    remarks: tuple[str, ...] = ()

    def is_failure(self, mildest: VerdictKind = VerdictKind.OFFLOAD) -> bool:
        """Return whether a verdict is as bad as `mildest` or worse."""
        return any(self.fails(one, mildest) for one in self.verdicts)

    def is_worse(self, mildest: VerdictKind = VerdictKind.OFFLOAD) -> bool:
        """Return whether a verdict is worse than it was, or new and as bad as `mildest`."""
        listed = () if self.compared is None else self.compared.differences
        return any(
            one.became is one.became.WORSE
            or (one.became is one.became.NEW and self.fails(verdict, mildest))
            for verdict, one in zip(self.verdicts, listed, strict=False)
        )

    @staticmethod
    def fails(verdict: Verdict, mildest: VerdictKind = VerdictKind.OFFLOAD) -> bool:
        """Return whether one verdict is as bad as `mildest` or worse."""
        return verdict.kind.rank >= mildest.rank


def read_targets(
    targets: Sequence[str],
    cards: Sequence[str],
    settings: Mapping[str, SettingValue],
    remark: Remark,
    *,
    catalog: Sequence[str | Path] = (),
    mmproj: str | None = None,
    is_together: bool = False,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
    fail_on: VerdictKind | None = None,
) -> Question:
    """Return the question about TARGETs on CARDs, by their names; without a card, the usual ones.

    Raises UsageError and SourceError for what nobody knows or cannot be used.
    """
    known = open_catalog(catalog)
    jobs = make_jobs(targets, known, settings, mmproj, remark)
    chosen = choose_cards(cards, known, remark) if cards else choose_default_cards(known, remark)
    return Question(
        jobs=() if is_together else tuple(jobs),
        choices=tuple(chosen),
        groups=(tuple(jobs),) if is_together else (),
        margin_bytes=margin_bytes,
        other_bytes=other_bytes,
        fail_on=fail_on or VerdictKind.OFFLOAD,
    )


def read_catalog(
    cards: Sequence[str],
    settings: Mapping[str, SettingValue],
    remark: Remark,
    *,
    catalog: Sequence[str | Path] = (),
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> Question:
    """Return the question about every pipeline of the catalogue, with the settings that it has."""
    known = open_catalog(catalog)
    pipelines = open_pipelines(list(known.pipelines.values()), known)
    targets = [Target(text=pipeline.name) for pipeline in pipelines]
    return Question(
        jobs=tuple(make_lenient_jobs(pipelines, targets, settings, "the catalogue")),
        choices=tuple(choose_cards(cards, known, remark)),
        margin_bytes=margin_bytes,
        other_bytes=other_bytes,
    )


def has_project() -> bool:
    """Return whether there is a ./vramplan.yaml."""
    return Path(PROJECT_FILE).is_file()


def read_project(
    cards: Sequence[str],
    settings: Mapping[str, SettingValue],
    remark: Remark,
    *,
    catalog: Sequence[str | Path] = (),
    is_together: bool = False,
    margin_bytes: int | None = None,
    other_bytes: int | None = None,
    fail_on: VerdictKind | None = None,
) -> Question:
    """Return what ./vramplan.yaml asks, with what is given here over it.

    A target's own settings go before those given here, as on the command line. Raises UsageError
    where there is no such file, CatalogError for what is wrong in it.
    """
    path = Path(PROJECT_FILE)
    if not has_project():
        hint = "name one, such as: vramplan check sd15 --card 8gb; vramplan init writes the file"
        raise UsageError(f"no TARGET, and no {PROJECT_FILE} here", hint=hint)
    from vramplan.catalog.project import load_project

    project = load_project(path)
    own = [project.catalog] if project.catalog else []
    known = load_catalog(user_folders([*catalog, *own]), inline=project.pipelines)
    found = [_find(one, known, remark) for one in project.targets]
    opened = open_pipelines(found, known)
    lenient = make_lenient_jobs(opened, project.targets, project.settings, PROJECT_FILE)
    jobs = [
        override(job, _less(settings, target))
        for job, target in zip(lenient, project.targets, strict=True)
    ]
    wanted = cards or project.cards
    chosen = choose_cards(wanted, known, remark) if wanted else choose_default_cards(known, remark)
    groups = (tuple(range(len(jobs))),) if is_together else project.groups
    grouped = {place for group in groups for place in group}
    margin = project.margin_bytes if margin_bytes is None else margin_bytes
    return Question(
        jobs=tuple(job for place, job in enumerate(jobs) if place not in grouped),
        choices=tuple(chosen),
        groups=tuple(tuple(jobs[place] for place in group) for group in groups),
        margin_bytes=margin or 0,
        other_bytes=project.other_bytes if other_bytes is None else other_bytes,
        fail_on=fail_on or project.fail_on or VerdictKind.OFFLOAD,
        is_project=True,
        catalog=known,
    )


def _find(target: Target, known: Catalog, remark: Remark) -> Pipeline:
    """Return what a project's target stands for; raises with its place in the file."""
    try:
        return find_target(target.text, known, remark=remark)
    except (UsageError, SourceError) as problem:
        raise type(problem)(at(target, str(problem)), hint=problem.hint) from None


def _less(settings: Mapping[str, SettingValue], target: Target) -> dict[str, SettingValue]:
    return {key: value for key, value in settings.items() if key not in target.settings}


def answer(question: Question, progress: Progress, *, asks_engine: bool = False) -> Answer:
    """Return the verdicts on a question; `progress` is told what is tried.

    With `asks_engine` each job's engine itself is asked too, alone on its card. Raises UsageError
    where a card has no room for a CUDA context, VramplanError where there is no estimate.
    """
    from vramplan.ask.judge import judge

    verdicts: list[Verdict] = []
    estimates: list[Estimate] = []
    witnesses: list[Witness] = []
    largest: list[Mapping[str, Largest | None]] = []
    total = question.total
    for job in question.jobs:
        grader = engine_of(job.pipeline).grader(job) if len(question.choices) > 1 else None
        for choice in question.choices:
            progress(f"{job.pipeline.name} on {choice.label}", len(verdicts), total)
            hear = _counted(progress, len(verdicts), total)
            with heard_by(hear):
                verdict, estimate = judge(
                    job,
                    choice,
                    margin_bytes=question.margin_bytes,
                    other_bytes=question.other_bytes,
                    grader=grader,
                )
                if verdict.kind is not VerdictKind.FITS:
                    verdict = _advise(verdict, estimate, job, choice, question, hear)
                if question.wants_largest:
                    largest.append(_largest(verdict, estimate, job, choice, question, hear))
            verdicts.append(verdict)
            estimates.append(estimate)
    if asks_engine:
        jobs = [job for job in question.jobs for _ in question.choices]
        for job, verdict, estimate in zip(jobs, verdicts, estimates, strict=True):
            witnesses.append(engine_of(job.pipeline).witness(job, (verdict, estimate)))
    for group in question.groups:
        for choice in question.choices:
            progress(f"{len(group)} side by side on {choice.label}", len(verdicts), total)
            verdict, found = _judge_group(group, choice, question)
            verdicts.append(verdict)
            estimates += found
    compared = None
    if question.base is not None:
        from vramplan.ask.against import compare_with

        compared = compare_with(verdicts, question.base, question.base_place)
    return Answer(
        verdicts=tuple(verdicts),
        estimates=tuple(estimates),
        witnesses=tuple(witnesses),
        largest=tuple(largest),
        compared=compared,
    )


def _counted(progress: Progress, done: int, total: int) -> Callable[[str], None]:
    return lambda step: progress(step, done, total)


def _advise(
    verdict: Verdict,
    estimate: Estimate,
    job: Job,
    choice: CardChoice,
    question: Question,
    hear: Callable[[str], None],
) -> Verdict:
    """Return `verdict` with the first advice there is."""
    from vramplan.ask.plan import first_advice

    where = f"{job.pipeline.name} on {choice.label}"
    advice = first_advice(
        job,
        verdict,
        choice,
        margin_bytes=question.margin_bytes,
        other_bytes=question.other_bytes,
        estimate=estimate,
        progress=lambda change: hear(f"{where}, with {change}"),
    )
    return replace(verdict, advice=advice)


def _largest(
    verdict: Verdict,
    estimate: Estimate,
    job: Job,
    choice: CardChoice,
    question: Question,
    hear: Callable[[str], None],
) -> Mapping[str, Largest | None]:
    """Return the largest of each size that the job has and that fits, with all else as it is."""
    from vramplan.ask.largest import find_largest, has_answer
    from vramplan.ask.trial import Trial
    from vramplan.searching import searching

    trial = Trial(
        job,
        choice,
        margin_bytes=question.margin_bytes,
        other_bytes=question.other_bytes,
        judged=(verdict, estimate),
    )
    sizes = [key for key in SIZES if job.settings.get(key) is not None]
    with searching():
        return {key: find_largest(trial, key, hear) for key in sizes if has_answer(trial, key)}


def _judge_group(
    group: Sequence[Job], choice: CardChoice, question: Question
) -> tuple[Verdict, tuple[Estimate, ...]]:
    """Return the verdict on a card on which all jobs of a group are loaded side by side."""
    from vramplan.ask.judge import judge_together

    verdict, found = judge_together(
        group, choice, margin_bytes=question.margin_bytes, other_bytes=question.other_bytes
    )
    if verdict.kind is not VerdictKind.FITS:
        from vramplan.ask.plan import together_advice

        verdict = replace(verdict, advice=together_advice(verdict, found))
    return verdict, found
