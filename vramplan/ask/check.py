"""Verdicts over pipelines and cards, one by one or side by side, each with its advice."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.ask.targets import Job
from vramplan.catalog import CardChoice
from vramplan.model import Estimate, Verdict, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Callable

#: the verdicts, and the estimates they rest on
Answer = tuple[list[Verdict], list[Estimate]]

#: work that takes longer than this is shown on a terminal
_PATIENCE_S = 1.0


def judge_each(
    jobs: Sequence[Job],
    choices: Sequence[CardChoice],
    folders: Sequence[Path],
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> Answer:
    """Return a verdict for each job on each card, every job alone on its card."""
    from vramplan.ask.judge import judge

    verdicts: list[Verdict] = []
    estimates: list[Estimate] = []
    with _progress() as show:
        for job in jobs:
            for choice in choices:
                show(f"{job.pipeline.name} on {choice.label}")
                verdict, estimate = judge(
                    job.pipeline,
                    job.settings,
                    choice,
                    folders=folders,
                    margin_bytes=margin_bytes,
                    other_bytes=other_bytes,
                )
                if verdict.kind is not VerdictKind.FITS:
                    verdict = _advise(
                        verdict, job, choice, folders, margin_bytes, other_bytes, show
                    )
                verdicts.append(verdict)
                estimates.append(estimate)
    return verdicts, estimates


def _advise(
    verdict: Verdict,
    job: Job,
    choice: CardChoice,
    folders: Sequence[Path],
    margin_bytes: int,
    other_bytes: int | None,
    show: Callable[[str], None],
) -> Verdict:
    """Return `verdict` with the first advice there is."""
    from vramplan.ask.plan import first_advice

    where = f"{job.pipeline.name} on {choice.label}"
    advice = first_advice(
        job.pipeline,
        job.settings,
        verdict,
        choice,
        folders=folders,
        margin_bytes=margin_bytes,
        other_bytes=other_bytes,
        progress=lambda change: show(f"{where}, with {change}"),
    )
    return replace(verdict, advice=advice)


def judge_together(
    jobs: Sequence[Job],
    choices: Sequence[CardChoice],
    folders: Sequence[Path],
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> Answer:
    """Return one verdict for each card, on which all jobs are loaded side by side."""
    from vramplan.ask import judge as decisions

    items = [(job.pipeline, job.settings) for job in jobs]
    verdicts: list[Verdict] = []
    estimates: list[Estimate] = []
    with _progress() as show:
        for choice in choices:
            show(f"all on {choice.label}")
            verdict, found = decisions.judge_together(
                items,
                choice,
                folders=folders,
                margin_bytes=margin_bytes,
                other_bytes=other_bytes,
            )
            if verdict.kind is not VerdictKind.FITS:
                from vramplan.ask.plan import together_advice

                verdict = replace(verdict, advice=together_advice(verdict, found))
            verdicts.append(verdict)
            estimates += found
    return verdicts, estimates


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Give what shows the step at hand: on a terminal, from the second second on, on one line."""
    begun = time.monotonic()
    is_shown = False

    def show(step: str) -> None:
        nonlocal is_shown
        if sys.stderr.isatty() and time.monotonic() - begun > _PATIENCE_S:
            from vramplan.report.text import clean, for_encoding

            line = for_encoding(clean(f"trying {step}", 79), sys.stderr.encoding)
            sys.stderr.write(f"\r\x1b[2K{line}")
            sys.stderr.flush()
            is_shown = True

    try:
        yield show
    finally:
        if is_shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
