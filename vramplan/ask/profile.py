"""The real thing on a real GPU, measured, beside its estimate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from vramplan.ask.compare import compare_measured
from vramplan.ask.events_file import events_beside, written_beside
from vramplan.ask.gpus import find_gpu
from vramplan.ask.targets import make_jobs
from vramplan.engines.door import ballast_command, engine_of
from vramplan.errors import UsageError, VramplanError
from vramplan.measurement.run import FailureKind, Run
from vramplan.model import Card, SettingValue
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.runner.tools import Hear, Tools, unheard

if TYPE_CHECKING:
    from vramplan.catalog import Catalog
    from vramplan.compare.comparison import Comparison

#: of a class's compute capabilities the one whose kernels most cards of today take
_USUAL = ("8.6", "8.9", "12.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How a TARGET is to be measured; words are those of the command line.

    `weights` is random, pretrained, a folder, ``hf:ORG/NAME`` or a .gguf file; `mmproj` a
    projector's file; `as_card` a smaller card to be played; `pretend` a card that is not there to
    run on; `gpu` an index or a UUID.
    `wants_events` keeps the allocator's own events beside `run_file`, where the run will be.
    """

    weights: str = "random"
    mmproj: str | None = None
    as_card: str | None = None
    pretend: str | None = None
    gpu: str | None = None
    is_dry: bool = False
    wants_events: bool = False
    run_file: Path | None = None
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """A run and its comparison; where there is no estimate, None, and `problem` says why."""

    run: Run
    comparison: Comparison | None
    problem: str | None = None

    @property
    def is_broken(self) -> bool:
        """True where the run failed by anything but its memory, which would be a result."""
        return self.run.failure is not None and self.run.failure.kind is not FailureKind.OOM


def profile(
    target: str,
    catalog: Catalog,
    settings: Mapping[str, SettingValue],
    wishes: Wishes,
    *,
    keep: Callable[[Profiled], None] = lambda _found: None,
    progress: Hear = unheard,
    remark: Hear = unheard,
) -> Profiled:
    """Measure a TARGET at its settings, and compare what came of it.

    `keep` is handed the run as soon as there is one, before anything else can go wrong; `progress`
    hears what is being done, `remark` what a person must know at once. Raises UsageError for what
    cannot be asked, MissingError where there is nothing to measure with.
    """
    is_file = wishes.weights.lower().endswith(".gguf")  # then the projector is that file's
    if wishes.pretend is not None and wishes.gpu is not None:
        raise UsageError("--pretend needs no GPU: leave --gpu out")
    (job,) = make_jobs([target], catalog, settings, None if is_file else wishes.mmproj, remark)
    events = events_beside(wishes.run_file) if wishes.wants_events else None
    tools = Tools(
        find_gpu=partial(find_gpu, wishes.gpu),
        is_dry=wishes.is_dry,
        pretended=None if wishes.pretend is None else played_card(wishes.pretend, catalog),
        card=None if wishes.as_card is None else played_card(wishes.as_card, catalog),
        weights=wishes.weights,
        projector=wishes.mmproj,
        history=events,
        ballast=ballast_command,
        command=wishes.command,
        progress=progress,
        remark=remark,
    )
    with written_beside(events):
        run = engine_of(job.pipeline).measure(job, tools)
        keep(Profiled(run=run, comparison=None))
    try:
        comparison = compare_measured(run, job, tools.pretended)
    except VramplanError as problem:
        said = f"{problem}; {problem.hint}" if problem.hint else str(problem)
        return Profiled(run=run, comparison=None, problem=said)
    return Profiled(run=run, comparison=comparison)


def played_card(text: str, catalog: Catalog) -> Card:
    """Return the card to be played; of a class, one with an architecture of today."""
    choice = catalog.card(text)
    if choice.candidates[0].seats:
        raise UsageError(f"{text}: one card is measured at a time, not several together")
    by_capability = {card.compute_capability: card for card in choice.candidates}
    found = next((by_capability[one] for one in _USUAL if one in by_capability), None)
    card = found or choice.candidates[-1]
    return replace(card, name=choice.label, title=choice.title)
