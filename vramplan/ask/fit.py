"""What runs on this card? The catalogue, the stores of this machine and folders, ranked by fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vramplan.ask.cards import LOCAL, choose_cards
from vramplan.ask.check import Progress
from vramplan.ask.judge import judge
from vramplan.ask.targets import open_catalog, open_pipelines, override, silent
from vramplan.budget.ranked import Ranked, Ranking
from vramplan.budget.system_share import system_share
from vramplan.budget.verdict import candidate_budgets, judged_as
from vramplan.catalog import CardChoice
from vramplan.engines import door
from vramplan.engines.door import Remark, engine_of
from vramplan.errors import UsageError, VramplanError
from vramplan.model import Job, Pipeline, SettingValue, VerdictKind
from vramplan.quick_dataclass import dataclass, replace
from vramplan.searching import searching

CATALOGUE = "catalogue"
#: more models than this are not looked at
MOST_MODELS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FitQuestion:
    """What is looked at, and the card that it is to run on.

    `pipelines` are the catalogue's, `files` whose each other model is and what opens it.
    """

    choice: CardChoice
    pipelines: tuple[Pipeline, ...]
    files: tuple[tuple[str, str], ...]
    settings: Mapping[str, SettingValue]
    margin_bytes: int = 0
    other_bytes: int | None = None


def read_fit(
    folders: Sequence[str | Path],
    cards: Sequence[str],
    settings: Mapping[str, SettingValue],
    remark: Remark,
    *,
    catalog: Sequence[str | Path] = (),
    only_folders: bool = False,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> FitQuestion:
    """Return the question about a CARD; without one this machine's GPU is taken.

    `folders` are looked through beside the catalogue and the stores, or instead of them. Raises
    UsageError for what is no folder, for several cards, and what `choose_cards` raises.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise UsageError(f"{folder}: not a folder", hint="a model itself is for vramplan check")
    known = open_catalog(catalog)
    if len(cards) > 1:
        raise UsageError("what fits is asked for one card", hint="name them one after the other")
    choice = choose_cards(cards or [LOCAL], known, remark)[0]
    found = list(door.models_below([Path(folder) for folder in folders]))
    if not only_folders:
        found = [*door.stored_models(), *found]
    if len(found) > MOST_MODELS:
        remark(f"{len(found):,} models are here, the first {MOST_MODELS:,} are looked at")
    entries = [] if only_folders else open_pipelines(list(known.pipelines.values()), known)
    return FitQuestion(
        choice=choice,
        pipelines=tuple(entries),
        files=tuple(dict.fromkeys(found[:MOST_MODELS])),
        settings=settings,
        margin_bytes=margin_bytes,
        other_bytes=other_bytes,
    )


def rank(question: FitQuestion, progress: Progress = silent) -> Ranking:
    """Return what runs on the card, the best fit first; what cannot be opened says why, last."""
    rows: list[Ranked] = []
    total = len(question.pipelines) + len(question.files)
    for pipeline in question.pipelines:
        progress(pipeline.name, len(rows), total)
        rows.append(_row(pipeline, pipeline.name, CATALOGUE, question))
    for place, target in question.files:
        progress(target, len(rows), total)
        try:
            pipeline = door.open_file(target, None, silent)
        except VramplanError as problem:
            name = Path(target).name
            rows.append(
                Ranked(name=name, target=target, place=place, runtime="", problem=str(problem))
            )
        else:
            rows.append(_row(pipeline, target, place, question))
    rows = _with_best(rows)
    choice = question.choice
    return Ranking(
        card=choice.label,
        card_title=choice.title,
        rows=tuple(sorted(rows, key=lambda row: row.rank)),
    )


def _row(pipeline: Pipeline, target: str, place: str, question: FitQuestion) -> Ranked:
    row = Ranked(name=pipeline.name, target=target, place=place, runtime=pipeline.runtime)
    settings = {key: value for key, value in question.settings.items() if key in pipeline.defaults}
    try:
        with searching():
            return _judged(row, pipeline, settings, question)
    except VramplanError as problem:
        return replace(row, problem=str(problem))


def _judged(
    row: Ranked, pipeline: Pipeline, settings: Mapping[str, SettingValue], question: FitQuestion
) -> Ranked:
    taken = question.margin_bytes, question.other_bytes
    job = override(Job(pipeline=pipeline, settings=pipeline.defaults), settings)
    verdict, _ = judge(job, question.choice, margin_bytes=taken[0], other_bytes=taken[1])
    share = system_share(job.settings).expected_bytes
    candidates = list(candidate_budgets(question.choice, *taken, share))
    card, budget = next(
        (pair for pair in candidates if judged_as(pair[0]) == verdict.judged_as), candidates[0]
    )
    engine = engine_of(pipeline)
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
