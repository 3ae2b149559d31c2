"""The plans of a project: for each verdict of ./vramplan.yaml that fails, what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vramplan.ask.check import Question, read_project
from vramplan.ask.judge import judge, judge_together
from vramplan.ask.plan import PlanQuestion, find_plan
from vramplan.ask.plan_together import TogetherQuestion, find_joint_plan
from vramplan.ask.targets import open_catalog, silent
from vramplan.budget.plan import Plan
from vramplan.catalog import Catalog
from vramplan.engines.door import Remark
from vramplan.model import SettingValue, Verdict, VerdictKind
from vramplan.quick_dataclass import dataclass

_ORDER = list(VerdictKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPlans:
    """What a project is asked, and a plan for each verdict that fails; `judged` are all of them."""

    judged: int
    plans: tuple[Plan, ...]


def read_project_plans(
    cards: Sequence[str],
    settings: Mapping[str, SettingValue],
    remark: Remark,
    *,
    catalog: Sequence[str | Path] = (),
    is_together: bool = False,
    margin_bytes: int | None = None,
    other_bytes: int | None = None,
    fail_on: VerdictKind | None = None,
) -> tuple[Question, Catalog]:
    """Return what ./vramplan.yaml asks, and the catalogue that cards are looked for in.

    Raises as `read_project` does.
    """
    question = read_project(
        cards,
        settings,
        remark,
        catalog=catalog,
        is_together=is_together,
        margin_bytes=margin_bytes,
        other_bytes=other_bytes,
        fail_on=fail_on,
    )
    return question, open_catalog(catalog)


def find_project_plans(
    question: Question,
    catalog: Catalog,
    worst: VerdictKind = VerdictKind.FITS,
    progress: Callable[[str], None] = silent,
) -> ProjectPlans:
    """Return a plan for each verdict that fails, in the order of `check`.

    `worst` is the worst verdict that a plan is content with. Raises as `find_plan` does.
    """
    return ProjectPlans(
        judged=question.total, plans=tuple(_plans(question, catalog, worst, progress))
    )


def _plans(
    question: Question, catalog: Catalog, worst: VerdictKind, progress: Callable[[str], None]
) -> Iterator[Plan]:
    margin, other = question.margin_bytes, question.other_bytes
    for job in question.jobs:
        for choice in question.choices:
            progress(f"{job.asked.label} on {choice.label}")
            verdict, _ = judge(job, choice, margin_bytes=margin, other_bytes=other)
            if _fails(verdict, question):
                alone = PlanQuestion(
                    job=job,
                    choice=choice,
                    catalog=catalog,
                    margin_bytes=margin,
                    other_bytes=other,
                    worst=worst,
                )
                yield find_plan(alone, progress)
    for group in question.groups:
        for choice in question.choices:
            progress(f"{len(group)} side by side on {choice.label}")
            verdict, _ = judge_together(group, choice, margin_bytes=margin, other_bytes=other)
            if _fails(verdict, question):
                together = TogetherQuestion(
                    jobs=group,
                    choice=choice,
                    catalog=catalog,
                    margin_bytes=margin,
                    other_bytes=other,
                    worst=worst,
                )
                yield find_joint_plan(together, progress)


def _fails(verdict: Verdict, question: Question) -> bool:
    return _ORDER.index(verdict.kind) >= _ORDER.index(question.fail_on)
