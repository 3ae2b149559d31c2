"""The part of docs/accuracy.md that is about runs vramplan itself measured.

Read from profiles/measured; `generate_accuracy.py` puts it into the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tools.docs import measured_events
from tools.docs.page import ROOT, escape

if TYPE_CHECKING:
    from vramplan.compare.accuracy import Case

TITLE = "## Measured by vramplan itself"

NOTHING = """\
Nothing yet: no GPU has been at hand, so `profiles/measured` is empty. On a machine with one,

```console
$ python -m tools.campaign       # under ten minutes; goes on where it stopped
$ python -m tools.learn          # contexts and workspaces from what was measured
$ python -m tools.docs.accuracy  # this table
```

writes a table here: for every case the estimate, the measurement and the residual of what torch
allocated and reserved and of what NVML saw, then the median and the worst error, how often the
estimate was too low, and how often `vramplan check` said *fits* where the run failed under an
emulated card, or *oom* where it did not."""


def render(profiles: Path = ROOT / "profiles") -> str:
    """Return the section."""
    from vramplan.compare.accuracy import sum_up

    found = sum_up(list(_cases(profiles)))
    if not found.cases:
        return f"{TITLE}\n\n{NOTHING}"
    head = (
        "| case | on | allocated | measured | residual | reserved | measured | residual "
        "| NVML process | residual | under an emulated card |"
    )
    lines = [head, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|"]
    for case in found.cases:
        gpu = case.run.gpu
        cells = [f"`{case.name}`", escape(gpu.name if gpu else "")]
        for pair in (case.allocated, case.reserved):
            cells += [_mib(pair.estimate_bytes), _mib(pair.measured_bytes)]
            cells.append(_percent(pair.residual_percent))
        cells += [_mib(case.process.measured_bytes), _percent(case.process.residual_percent)]
        cells.append(_played(case))
        lines.append(f"| {' | '.join(cells)} |")
    sums = ["| | cases | median error | worst error | worst case | estimates too low |",
            "|---|--:|--:|--:|---|--:|"]  # fmt: skip
    for name in ("allocated", "reserved", "process"):
        error = getattr(found, name)
        if error is not None:
            sums.append(
                f"| {name} | {error.cases} | {error.median_percent:.2f} % | "
                f"{error.worst_percent:.2f} % | `{error.worst_case}` | {error.under} |"
            )
    false = (
        f"Under emulated cards: {found.played} runs, {len(found.false_fits)} false *fits*, "
        f"{len(found.false_ooms)} false *oom*."
    )
    parts = [TITLE, "\n".join(sums), false, "\n".join(lines), measured_events.render(profiles)]
    return "\n\n".join(part for part in parts if part is not None)


def _cases(profiles: Path) -> Iterator[Case]:
    """Yield every run of a pipeline of the catalogue beside its estimate and its verdict."""
    from vramplan.ask.compare import card_that_ran
    from vramplan.ask.judge import judge
    from vramplan.ask.targets import open_pipelines
    from vramplan.catalog import load_catalog
    from vramplan.compare.accuracy import make_case
    from vramplan.engines.door import engine_of
    from vramplan.errors import VramplanError
    from vramplan.measurement.files import runs_in
    from vramplan.model import Job

    catalog = load_catalog(())
    for path, run in runs_in(profiles):
        if run.pipeline not in catalog.pipelines:
            continue  # an experiment: contexts, convolutions
        (pipeline,) = open_pipelines([catalog.pipeline(run.pipeline)], catalog)
        job = Job(pipeline=pipeline, settings=run.settings)
        verdict = None
        if run.emulation is not None:
            try:
                choice = catalog.card(run.emulation.card)
                verdict = judge(job, choice)[0].kind
            except VramplanError:
                verdict = None
        planned = engine_of(pipeline).estimate(job, card_that_ran(run))
        yield make_case(path.stem, run, planned, verdict)


def _played(case: Case) -> str:
    verdict, completed = case.verdict, case.completed
    if completed is None:
        return ""
    end = "ran to its end" if completed else "out of memory"
    return f"check: {verdict.value if verdict else 'no verdict'}; {end}"


def _mib(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / (1 << 20):,.1f}"


def _percent(percent: float | None) -> str:
    return "" if percent is None else f"{percent:+.2f} %".replace("-", "\N{MINUS SIGN}")
