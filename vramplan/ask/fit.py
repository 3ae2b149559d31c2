"""What runs on this card? The catalogue, the stores of this machine and folders, ranked by fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vramplan.ask.cards import LOCAL, choose_cards
from vramplan.ask.check import Progress
from vramplan.ask.folders import saved_in
from vramplan.ask.judge import judge
from vramplan.ask.pairs import find_pairs
from vramplan.ask.targets import (
    find_target,
    lenient_job,
    open_catalog,
    open_pipelines,
    override,
    silent,
)
from vramplan.budget.ranked import Pair, Ranked, Ranking
from vramplan.budget.system_share import system_share
from vramplan.budget.verdict import candidate_budgets, judged_as
from vramplan.catalog import CardChoice, Catalog
from vramplan.catalog.target_text import read_target
from vramplan.engines import door
from vramplan.engines.door import Remark, engine_of
from vramplan.errors import UsageError, VramplanError
from vramplan.model import Job, Pipeline, SettingValue, VerdictKind
from vramplan.quick_dataclass import dataclass, replace
from vramplan.searching import searching
from vramplan.sources.saved_model import is_saved_folder

CATALOGUE, NAMED = "catalogue", "named"
#: more models than this are not looked at
MOST_MODELS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FitQuestion:
    """What is looked at, and the card that it is to run on.

    `named` are the TARGETs that were asked for by name, `pipelines` the catalogue's, `files` whose
    each other model is and what opens it. `saved` are those of them that diffusers or transformers
    saved, which are held against the catalogue, `known`.
    """

    choice: CardChoice
    named: tuple[Job, ...]
    pipelines: tuple[Pipeline, ...]
    files: tuple[tuple[str, str], ...]
    saved: frozenset[str]
    known: Catalog
    settings: Mapping[str, SettingValue]
    margin_bytes: int = 0
    other_bytes: int | None = None
    wants_pairs: bool = False


def read_fit(
    models: Sequence[str | Path],
    cards: Sequence[str],
    settings: Mapping[str, SettingValue],
    remark: Remark,
    *,
    catalog: Sequence[str | Path] = (),
    only_named: bool = False,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
    wants_pairs: bool = False,
) -> FitQuestion:
    """Return the question about a CARD; without one this machine's GPU is taken.

    `models` are folders to be looked through, and TARGETs, beside the catalogue and the stores or
    instead of them. Raises UsageError for what is neither, for several cards, and what
    `choose_cards` raises.
    """
    folders = [Path(one) for one in models if _is_folder(one)]
    targets = [str(one) for one in models if not _is_folder(one)]
    known = open_catalog(catalog)
    if len(cards) > 1:
        raise UsageError("what fits is asked for one card", hint="name them one after the other")
    choice = choose_cards(cards or [LOCAL], known, remark)[0]
    found = list(door.models_below(folders))
    if not only_named:
        found = [*door.stored_models(), *found]
    saved = [(str(folder), str(path)) for folder in folders for path in saved_in(folder)]
    found += saved
    if len(found) > MOST_MODELS:
        remark(f"{len(found):,} models are here, the first {MOST_MODELS:,} are looked at")
    entries = [] if only_named else open_pipelines(list(known.pipelines.values()), known)
    return FitQuestion(
        choice=choice,
        named=tuple(_named(targets, known, settings, remark)),
        pipelines=tuple(entries),
        files=tuple(dict.fromkeys(found[:MOST_MODELS])),
        saved=frozenset(target for _, target in saved),
        known=known,
        settings=settings,
        margin_bytes=margin_bytes,
        other_bytes=other_bytes,
        wants_pairs=wants_pairs,
    )


def _is_folder(model: str | Path) -> bool:
    """Return whether a folder is to be looked through, and is no model itself."""
    try:
        path = Path(model)
        return path.is_dir() and not is_saved_folder(path)
    except ValueError:  # a NUL: whoever looks for it says so
        return False


def _named(
    targets: Sequence[str],
    known: Catalog,
    settings: Mapping[str, SettingValue],
    remark: Remark,
) -> list[Job]:
    read = [read_target(text) for text in targets]
    found = open_pipelines([find_target(one.text, known, remark=remark) for one in read], known)
    return [lenient_job(one, target, settings) for one, target in zip(found, read, strict=True)]


def rank(question: FitQuestion, progress: Progress = silent) -> Ranking:
    """Return what runs on the card, the best fit first; what cannot be opened says why, last."""
    rows: list[tuple[Ranked, Job | None]] = []
    total = len(question.named) + len(question.pipelines) + len(question.files)
    for job in question.named:
        progress(job.asked.label, len(rows), total)
        rows.append((_row(job, NAMED, question), job))
    for pipeline in question.pipelines:
        progress(pipeline.name, len(rows), total)
        job = _lenient(pipeline, pipeline.name, question)
        rows.append((_row(job, CATALOGUE, question), job))
    for place, target in question.files:
        progress(target, len(rows), total)
        try:
            pipeline = _open(target, question)
        except VramplanError as problem:
            name = Path(target).name
            unread = Ranked(name=name, target=target, place=place, runtime="", problem=str(problem))
            rows.append((unread, None))
        else:
            job = _lenient(pipeline, target, question)
            rows.append((_row(job, place, question), job))
    rows.sort(key=lambda pair: pair[0].rank)
    choice = question.choice
    return Ranking(
        card=choice.label,
        card_title=choice.title,
        rows=tuple(_with_best([row for row, _ in rows])),
        pairs=_pairs(rows, question, progress) if question.wants_pairs else None,
    )


def _open(target: str, question: FitQuestion) -> Pipeline:
    """Return what was found in a store or a folder; raises VramplanError where it is no model."""
    if target not in question.saved:
        return door.open_file(target, None, silent)
    (pipeline,) = open_pipelines([find_target(target, question.known)], question.known)
    return pipeline


def _pairs(
    rows: Sequence[tuple[Ranked, Job | None]], question: FitQuestion, progress: Progress
) -> tuple[Pair, ...]:
    """Return the verdicts on any two of the rows that have room alone."""
    progress("pairs")
    jobs = {
        place: job
        for place, (row, job) in enumerate(rows)
        if job is not None and row.verdict is not None and row.verdict.headroom_bytes >= 0
    }
    with searching():
        return find_pairs(
            jobs,
            question.choice,
            margin_bytes=question.margin_bytes,
            other_bytes=question.other_bytes,
        )


def _lenient(pipeline: Pipeline, target: str, question: FitQuestion) -> Job:
    job = Job(pipeline=pipeline, settings=pipeline.defaults, target=target)
    return job.changed({k: v for k, v in question.settings.items() if k in pipeline.defaults})


def _row(job: Job, place: str, question: FitQuestion) -> Ranked:
    row = Ranked(
        name=job.pipeline.name,
        target=job.asked.text if place == NAMED else job.target,
        place=place,
        runtime=job.pipeline.runtime,
    )
    try:
        with searching():
            return _judged(row, override(job, {}), question)
    except VramplanError as problem:
        return replace(row, problem=str(problem))


def _judged(row: Ranked, job: Job, question: FitQuestion) -> Ranked:
    taken = question.margin_bytes, question.other_bytes
    verdict, _ = judge(job, question.choice, margin_bytes=taken[0], other_bytes=taken[1])
    share = system_share(job.settings).expected_bytes
    candidates = list(candidate_budgets(question.choice, *taken, share))
    card, budget = next(
        (pair for pair in candidates if judged_as(pair[0]) == verdict.judged_as), candidates[0]
    )
    engine = engine_of(job.pipeline)
    return replace(
        row,
        verdict=verdict,
        pace=None if verdict.kind is VerdictKind.OOM else engine.pace(job, card, budget),
        file=engine.file_fit(job, card, budget),
    )


def _with_best(rows: Sequence[Ranked]) -> list[Ranked]:
    """Return rows with the best file of each family marked, where it has several."""
    families: dict[str, list[Ranked]] = {}
    for row in rows:
        if row.file is not None:
            families.setdefault(row.file.family, []).append(row)
    best = set()
    for members in families.values():
        whole = [row for row in members if row.is_whole]
        if len(members) > 1 and whole:
            best.add(max(whole, key=lambda row: row.file.bits if row.file else 0.0).target)
    return [replace(row, is_best=row.target in best) for row in rows]
