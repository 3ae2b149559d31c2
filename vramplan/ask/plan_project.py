"""The plans of a project: for each verdict of ./vramplan.yaml that fails, what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vramplan.ask.check import Answer, Question
from vramplan.ask.judge import judge, judge_together
from vramplan.ask.plan import PlanQuestion, find_plan
from vramplan.ask.plan_together import TogetherQuestion, find_joint_plan
from vramplan.ask.targets import silent
from vramplan.budget.plan import Plan
from vramplan.catalog import Catalog, load_catalog
from vramplan.model import VerdictKind
from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPlans:
    """What a project is asked, and a plan for each verdict that fails; `judged` are all of them."""

    judged: int
    plans: tuple[Plan, ...]


def find_project_plans(
    question: Question,
    worst: VerdictKind = VerdictKind.FITS,
    progress: Callable[[str], None] = silent,
) -> ProjectPlans:
    """Return a plan for each verdict that fails, in the order of `check`.

    `worst` is the worst verdict that a plan is content with. Raises as `find_plan` does.
    """
    catalog = question.catalog or load_catalog()
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
            if Answer.fails(verdict, question.fail_on):
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
            if Answer.fails(verdict, question.fail_on):
                together = TogetherQuestion(
                    jobs=group,
                    choice=choice,
                    catalog=catalog,
                    margin_bytes=margin,
                    other_bytes=other,
                    worst=worst,
                )
                yield find_joint_plan(together, progress)
