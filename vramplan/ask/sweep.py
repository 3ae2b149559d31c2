"""A grid of verdicts: pipelines at many settings on many cards, as a stream of rows.

Rows have an order that the question alone decides: grid by grid, pipeline by pipeline, the last
axis first, and for each combination one card after the other. A row has a number, so that a sweep
that was interrupted goes on where it stopped, and processes share it without a list of the rows.
What a combination needs is found once and graded on every card.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from math import prod
from pathlib import Path

from vramplan import __version__
from vramplan.ask.cards import choose_cards, choose_default_cards
from vramplan.ask.judge import find_worst
from vramplan.ask.targets import find_target, open_catalog, open_pipelines
from vramplan.budget.system_share import system_share
from vramplan.budget.verdict import Grader, candidate_budgets, judged_as
from vramplan.catalog.axes import read_axis_assignment
from vramplan.catalog.sweep_file import HERE, RAY, Grid, is_sweep_file, load_sweep
from vramplan.catalog.target_text import split_target
from vramplan.engines.door import Remark, engine_of, say_if_core_is_stale
from vramplan.errors import UsageError, VramplanError
from vramplan.model import (
    Advice,
    Card,
    Job,
    Pipeline,
    SettingValue,
    SweepRow,
    VerdictKind,
)
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING, TypeVar
from vramplan.searching import searching
from vramplan.settings import check_setting, format_setting

if TYPE_CHECKING:
    from vramplan.catalog import CardChoice, Catalog
    from vramplan.catalog.axes import Axes

#: every card of the catalogue
ALL_CARDS = "all"
#: a sweep of more rows than this is a mistake
MOST_ROWS = 100_000_000
#: rows that are handed to a process at a time, if that takes no more combinations than this; of a
#: small sweep so few that there are this many batches
_BATCH_ROWS, _BATCH_COMBINATIONS, _BATCHES = 512, 16, 64

Out = TypeVar("Out")
#: the first row and the one after the last
Task = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepQuestion:
    """What is swept: grids of targets and settings, all of them on every card of `choices`.

    Everything in it is plain data, so that another process can open it.
    """

    grids: tuple[Grid, ...]
    choices: tuple[CardChoice, ...]
    catalog: tuple[str, ...] = ()
    margin_bytes: int = 0
    other_bytes: int | None = None
    wants_advice: bool = False


def read_sweep(
    targets: Sequence[str],
    cards: Sequence[str],
    axes: Axes,
    remark: Remark,
    *,
    catalog: Sequence[str | Path] = (),
    margin_bytes: int | None = None,
    other_bytes: int | None = None,
    wants_advice: bool = False,
) -> SweepQuestion:
    """Return the question about TARGETs at all combinations of `axes`, or that of one YAML file.

    What is given here goes before what the file says. Raises UsageError and CatalogError.
    """
    files = [text for text in targets if _may_be_sweep(text) and is_sweep_file(Path(text))]
    grids: tuple[Grid, ...] = (Grid(targets=tuple(targets), axes=axes),)
    folders = [str(folder) for folder in catalog]
    if files:
        if len(targets) > 1:
            hint = "it names its targets itself"
            raise UsageError(f"{files[0]}: a sweep's file stands alone", hint=hint)
        said = load_sweep(Path(files[0]))
        grids = tuple(replace(grid, axes={**grid.axes, **axes}) for grid in said.grids)
        cards = cards or said.cards
        margin_bytes = said.margin_bytes if margin_bytes is None else margin_bytes
        other_bytes = said.other_bytes if other_bytes is None else other_bytes
        folders += [str(said.catalog)] if said.catalog else []
    known = open_catalog(folders)
    return SweepQuestion(
        grids=grids,
        choices=tuple(_choose(cards, known, remark)),
        catalog=tuple(folders),
        margin_bytes=margin_bytes or 0,
        other_bytes=other_bytes,
        wants_advice=wants_advice,
    )


def _may_be_sweep(text: str) -> bool:
    return text.lower().endswith((".yaml", ".yml")) and "\0" not in text


def _choose(cards: Sequence[str], known: Catalog, remark: Remark) -> list[CardChoice]:
    if not cards:
        return choose_default_cards(known, remark)
    named = [
        name
        for text in cards
        for name in (known.cards if text.strip().lower() == ALL_CARDS else (text,))
    ]
    return choose_cards(named, known, remark)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """One pipeline of a grid: its settings, and those of them that take several values."""

    job: Job
    axes: tuple[tuple[str, tuple[SettingValue, ...]], ...]

    @property
    def combinations(self) -> int:
        return prod(len(values) for _, values in self.axes)

    def at(self, number: int) -> Job:
        """Return the job of a combination, from 0 on: the last axis changes first."""
        chosen: dict[str, SettingValue] = {}
        for key, values in reversed(self.axes):
            number, place = divmod(number, len(values))
            chosen[key] = values[place]
        return self.job.changed(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A card to be judged on: its candidates with their budgets, or why there are none."""

    choice: CardChoice
    budgets: tuple[tuple[Card, int], ...] = ()
    problem: str | None = None


class Sweep:
    """A sweep that is ready to be computed, from any row on."""

    def __init__(self, question: SweepQuestion, remark: Remark) -> None:
        """Open every target; raises UsageError for a setting or a value that none of them takes."""
        known = open_catalog(question.catalog)
        self._question = question
        self._series = [one for grid in question.grids for one in _open_grid(grid, known, remark)]
        self._places: dict[int, list[_Place]] = {}
        if self.rows > MOST_ROWS:
            hint = "shorten a list, or sweep one part after the other"
            raise UsageError(f"{self.rows:,} verdicts are more than {MOST_ROWS:,}", hint=hint)

    @property
    def combinations(self) -> int:
        """How many settings of pipelines are judged on each card."""
        return sum(series.combinations for series in self._series)

    @property
    def rows(self) -> int:
        """How many verdicts there are."""
        return self.combinations * len(self._question.choices)

    def key(self) -> str:
        """Return what tells this sweep from every other: a digest of all that its rows rest on."""
        told = hashlib.sha256(__version__.encode())
        for series in self._series:
            pipeline, settings = series.job.pipeline, sorted(series.job.settings.items())
            told.update(repr((pipeline.name, _state(pipeline), settings, series.axes)).encode())
        question = self._question
        cards = question.choices
        if question.other_bytes is not None:  # what is free on them now does not matter then
            cards = tuple(map(_without_free, cards))
        sizes = question.margin_bytes, question.other_bytes, question.wants_advice
        told.update(repr((cards, sizes)).encode())
        return told.hexdigest()

    def look_for_recordings(self) -> None:
        """Ask for the need of each pipeline as it is, as a search: what is left out is noted."""
        cards = [choice.candidates[0] for choice in self._question.choices[:1]]
        for series in self._series if cards else ():
            with searching(), suppress(VramplanError):
                engine_of(series.job.pipeline).estimate(series.at(0), cards[0])

    def row_name(self, row: int) -> tuple[str, str]:
        """Return the pipeline and the card of a row, from 0 on."""
        combination, place = divmod(row, len(self._question.choices))
        return self._job(combination).pipeline.name, self._question.choices[place].label

    def _job(self, combination: int) -> Job:
        for series in self._series:
            if combination < series.combinations:
                return series.at(combination)
            combination -= series.combinations
        raise IndexError(combination)

    def tasks(self, start: int) -> Iterator[Task]:
        """Yield the rows from `start` on in batches, each of them of whole combinations."""
        cards = len(self._question.choices)
        most = min(_BATCH_ROWS // cards, _BATCH_COMBINATIONS, self.combinations // _BATCHES)
        size = cards * max(1, most)
        while start < self.rows:
            stop = min((start // size + 1) * size, self.rows)
            yield start, stop
            start = stop

    def compute(self, start: int, stop: int) -> Iterator[SweepRow]:
        """Yield the rows from `start` to the one before `stop`."""
        cards = len(self._question.choices)
        for combination in range(start // cards, -(-stop // cards)):
            job, first = self._job(combination), combination * cards
            places = self._places_beside(system_share(job.settings).expected_bytes)
            with searching():
                grader = engine_of(job.pipeline).grader(job)
                asked = places[max(0, start - first) : stop - first]
                found = [self._judge(job, grader, place) for place in asked]
            yield from found

    def _places_beside(self, kept_bytes: int) -> list[_Place]:
        """Return the cards with what is left on them beside a platform that keeps so much."""
        if kept_bytes not in self._places:
            self._places[kept_bytes] = [
                _place(choice, self._question, kept_bytes) for choice in self._question.choices
            ]
        return self._places[kept_bytes]

    def _judge(self, job: Job, grader: Grader, place: _Place) -> SweepRow:
        name, label = job.pipeline.name, place.choice.label
        problem = place.problem
        try:
            if problem is None:
                return self._verdict(job, grader, place)
        except VramplanError as refused:
            problem = str(refused)
        return SweepRow(pipeline=name, settings=job.settings, card=label, problem=problem)

    def _verdict(self, job: Job, grader: Grader, place: _Place) -> SweepRow:
        """Return the verdict on the worst of a card's candidates, as `judge` does."""
        card, _, weighed, graded = find_worst(job.settings, grader, place.budgets)
        return SweepRow(
            pipeline=job.pipeline.name,
            settings=job.settings,
            card=place.choice.label,
            judged_as=judged_as(card),
            kind=weighed.kind,
            need=weighed.need,
            budget_bytes=weighed.budget_bytes,
            offload_risk=weighed.risk,
            peak_phase=graded.need.phase,
            peak_component=graded.need.component,
            layers=graded.layers,
            context=graded.context,
            advice=self._advice(job, weighed.kind, place.choice),
        )

    def _advice(self, job: Job, kind: VerdictKind, choice: CardChoice) -> tuple[Advice, ...] | None:
        question = self._question
        if not question.wants_advice:
            return None
        if kind is VerdictKind.FITS:
            return ()
        from vramplan.ask.judge import judge
        from vramplan.ask.plan import first_advice

        margin, other = question.margin_bytes, question.other_bytes
        verdict, estimate = judge(job, choice, margin_bytes=margin, other_bytes=other)
        return first_advice(
            job, verdict, choice, margin_bytes=margin, other_bytes=other, estimate=estimate
        )


def _open_grid(grid: Grid, known: Catalog, remark: Remark) -> Iterator[_Series]:
    """Yield a series for each target, with those of the settings that it has.

    A value that some of the targets take is left out for the others, and that is said; one that
    none takes is refused. What stands in a target's own brackets goes before what is meant for all.
    """
    read = [split_target(text, read_axis_assignment) for text in grid.targets]
    pipelines = open_pipelines([find_target(text, known) for text, _ in read], known)
    refused: dict[str, list[str]] = {}
    axes = [_own_axes(one, own) for one, (_, own) in zip(pipelines, read, strict=True)]
    for key, values in grid.axes.items():
        having = [place for place, one in enumerate(pipelines) if key in one.defaults]
        if not having:
            check_setting(pipelines[0], key, values[0])
        having = [place for place in having if key not in axes[place]]
        if not having:  # every target that has it has values of its own
            continue
        taken = {place: _accepted(pipelines[place], key, values) for place in having}
        for value in values:
            if not any(value in found for found in taken.values()):
                check_setting(pipelines[having[0]], key, value)
        for place, found in taken.items():
            name = pipelines[place].name
            left_out = [format_setting(key, value) for value in values if value not in found]
            if left_out:
                refused.setdefault(name, []).append(f"{key} {', '.join(left_out)}")
            if not found:
                check_setting(pipelines[place], key, values[0])
            axes[place][key] = tuple(found)
    for name, left in refused.items():
        remark(f"{name} does not take {'; '.join(left)}: left out")
    for pipeline, (text, _), its in zip(pipelines, read, axes, strict=True):
        job = Job(pipeline=pipeline, settings=pipeline.defaults, target=text)
        yield _Series(job=job, axes=tuple(its.items()))


def _own_axes(pipeline: Pipeline, own: Axes) -> dict[str, tuple[SettingValue, ...]]:
    """Return the axes of one target's brackets; raises UsageError for a value it does not take."""
    for key, values in own.items():
        for value in values:
            check_setting(pipeline, key, value)
    return dict(own)


def _accepted(
    pipeline: Pipeline, key: str, values: Sequence[SettingValue]
) -> dict[SettingValue, None]:
    """Return those of `values` that a pipeline takes, in their order, quick to look up."""
    found: dict[SettingValue, None] = {}
    for value in values:
        with suppress(UsageError):
            check_setting(pipeline, key, value)
            found[value] = None
    return found


def _place(choice: CardChoice, question: SweepQuestion, kept_bytes: int) -> _Place:
    taken = question.margin_bytes, question.other_bytes, kept_bytes
    try:
        budgets = candidate_budgets(choice, *taken)
        return _Place(choice=choice, budgets=tuple(budgets))
    except UsageError as refused:
        return _Place(choice=choice, problem=str(refused))


def _state(pipeline: Pipeline) -> tuple[str, int, int]:
    """Return where a pipeline comes from, and which state of it."""
    try:
        state = Path(pipeline.path).stat()
    except (OSError, ValueError):
        return pipeline.path, 0, 0
    return pipeline.path, state.st_size, state.st_mtime_ns


def _without_free(choice: CardChoice) -> CardChoice:
    return replace(choice, candidates=tuple(map(_card_without_free, choice.candidates)))


def _card_without_free(card: Card) -> Card:
    seats = (replace(seat, card=_card_without_free(seat.card)) for seat in card.seats)
    return replace(card, free_bytes=None, seats=tuple(seats))


# --------------------------------------------------------------------- one process or many
def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_ray() -> None:
    """Raise MissingError where Ray is not installed."""
    from vramplan.runner import cluster

    cluster.require_ray()


Render = Callable[[Iterable[SweepRow]], Out]


def compute_in_order(
    sweep: Sweep,
    question: SweepQuestion,
    render: Render[Out],
    *,
    start: int = 0,
    jobs: int = 1,
    on: str = HERE,
) -> Generator[tuple[int, Out], None, None]:
    """Yield the rows from `start` on, in order: the number of the next one, and `render`'s batch.

    `render` is called where the rows are computed, so it is a function of a module. Memory does not
    grow with the rows. Raises MissingError without Ray, VramplanError where a process ends early.
    """
    tasks = sweep.tasks(start)
    if jobs != 1:
        say_if_core_is_stale()  # nobody hears the other processes
    if on == RAY:
        from vramplan.runner.cluster import map_on_ray

        yield from map_on_ray(partial(open_worker, question, render), tasks, jobs)
        return
    if jobs == 1:
        for task in tasks:
            yield task[1], render(sweep.compute(*task))
        return
    from vramplan.runner.pool import map_in_processes

    yield from map_in_processes(partial(open_worker, question, render), tasks, jobs)


def open_worker(question: SweepQuestion, render: Render[Out]) -> Callable[[Task], tuple[int, Out]]:
    """Return what computes a batch in a process of its own."""
    sweep = Sweep(question, lambda _text: None)
    return lambda task: (task[1], render(sweep.compute(*task)))
