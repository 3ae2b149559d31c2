"""Verdicts over pipelines and cards, one by one or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vramplan.catalog import CardChoice
from vramplan.commands.targets import Job
from vramplan.model import Estimate, Verdict

#: the verdicts, and the estimates they rest on
Answer = tuple[list[Verdict], list[Estimate]]


def judge_each(
    jobs: Sequence[Job],
    choices: Sequence[CardChoice],
    folders: Sequence[Path],
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> Answer:
    """Return a verdict for each job on each card, every job alone on its card."""
    from vramplan.verdict import judge

    verdicts: list[Verdict] = []
    estimates: list[Estimate] = []
    for job in jobs:
        for choice in choices:
            verdict, estimate = judge(
                job.pipeline,
                job.settings,
                choice,
                folders=folders,
                margin_bytes=margin_bytes,
                other_bytes=other_bytes,
            )
            verdicts.append(verdict)
            estimates.append(estimate)
    return verdicts, estimates


def judge_together(
    jobs: Sequence[Job],
    choices: Sequence[CardChoice],
    folders: Sequence[Path],
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> Answer:
    """Return one verdict for each card, on which all jobs are loaded side by side."""
    from vramplan import verdict as decisions

    items = [(job.pipeline, job.settings) for job in jobs]
    verdicts: list[Verdict] = []
    estimates: list[Estimate] = []
    for choice in choices:
        verdict, found = decisions.judge_together(
            items,
            choice,
            folders=folders,
            margin_bytes=margin_bytes,
            other_bytes=other_bytes,
        )
        verdicts.append(verdict)
        estimates += found
    return verdicts, estimates
