"""What runs on a card, ranked by how it fits, in every format."""

from __future__ import annotations

from vramplan.budget.ranked import FileFit, Ranked, Ranking
from vramplan.model import VerdictKind
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.report.colour import Tone

if TYPE_CHECKING:
    from vramplan.budget.pace import Pace
    from vramplan.report.look import Look
    from vramplan.report.rows import Cell
    from vramplan.report.serial import Json
    from vramplan.report.sheet import Sheet

NOTES = (
    "at most: by bandwidth alone, an estimate; what is computed takes longer than what is moved",
    (
        "best file: the usual quantisation with most bits that stays whole on the GPU, estimated "
        "by bits a weight; * is the best of several files of one model that are here"
    ),
)


def render(ranking: Ranking, look: Look) -> str:
    """Return the rows under the card that they are ranked for."""
    if look.format == "json":
        from vramplan.report.serial import to_json

        return to_json(look.command, ranking_result(ranking))
    from vramplan.report import phrases
    from vramplan.report.rows import table
    from vramplan.report.sheet import Sheet, render_sheet

    headers = "model!, verdict, need#, to spare#, at most#, best file"
    rows = ranking.rows
    whole = sum(row.is_whole for row in rows)
    rows = ranking.rows
    drawn = table(headers, [_cells(row) for row in rows])
    lines = [
        f"{whole} of {len(rows)} fit {phrases.name(ranking.card)} as they are, the largest first"
    ]
    sheet = Sheet(lines=lines if rows else ["no models"], tables=[("", drawn)] if rows else [])
    text = render_sheet(sheet, look)
    if not rows:
        return text
    if ranking.pairs is not None:
        text += "\n" + render_sheet(_pair_sheet(ranking), look)
    notes = Sheet(lines=[f"- {note}" for note in NOTES])
    return text + "\n" + render_sheet(notes, look)


def _pair_sheet(ranking: Ranking) -> Sheet:
    """Return a row for each model that fits beside another: which, and which are tight."""
    from vramplan.report import phrases
    from vramplan.report.rows import cell, table
    from vramplan.report.sheet import Sheet

    beside: dict[int, dict[VerdictKind, list[int]]] = {}
    for pair in ranking.pairs or ():
        for mine, other in (pair.places, pair.places[::-1]):
            beside.setdefault(mine, {}).setdefault(pair.kind, []).append(other)
    rows = []
    for place, kinds in sorted(beside.items()):
        fits, tight = (
            ", ".join(_called(ranking.rows[other]) for other in kinds.get(kind, []))
            for kind in (VerdictKind.FITS, VerdictKind.TIGHT)
        )
        if fits or tight:
            named = cell(_called(ranking.rows[place]), tone=Tone.STRONG)
            rows.append((named, cell(fits or phrases.NOTHING), cell(tight or phrases.NOTHING)))
    pairs = ranking.pairs or ()
    whole = sum(pair.kind is VerdictKind.FITS for pair in pairs)
    line = f"{whole} of {len(pairs)} pairs fit {phrases.name(ranking.card)} side by side"
    drawn = table("model!, fits beside, tight beside", rows)
    return Sheet(lines=[line], tables=[("", drawn)] if rows else [])


def _called(row: Ranked) -> str:
    from vramplan.report import phrases

    chosen = "" if row.verdict is None else phrases.differing(row.name, row.verdict.asked)
    return f"{phrases.name(row.name)} ({chosen})" if chosen else phrases.name(row.name)


def _cells(row: Ranked) -> tuple[Cell, ...]:
    from vramplan.report import phrases
    from vramplan.report.colour import verdict_tone
    from vramplan.report.rows import cell
    from vramplan.report.text import clean

    verdict = row.verdict
    chosen = "" if verdict is None else phrases.differing(row.name, verdict.asked)
    beside = ", ".join(part for part in (chosen, clean(row.place, 60)) if part)
    name = cell(phrases.name(row.name), beside, Tone.STRONG)
    if verdict is None:
        problem = cell("not read", clean(row.problem or "", 160), Tone.DIM)
        return (name, problem, cell(""), cell(""), cell(""), cell(""))
    layers = verdict.layers
    split = "" if layers is None or layers.is_whole else layers.in_words()
    return (
        name,
        cell(phrases.verdict(verdict.kind), split, verdict_tone(verdict.kind)),
        cell(phrases.need(verdict.need.expected_bytes)),
        cell(phrases.available(verdict.headroom_bytes)),
        cell(rate(row.pace)),
        cell(*_best(row.file, is_best=row.is_best)),
    )


def rate(pace: Pace | None) -> str:
    """Return how many results a second at most, or seconds for one that takes longer."""
    from vramplan.report import phrases

    if pace is None or not pace.seconds:
        return phrases.NOTHING
    per_second = 1 / pace.seconds
    if per_second >= 1e6:
        return f"{per_second / 1e6:.3g} M {pace.result}s/s"
    if per_second >= 10:
        shown = float(f"{per_second:.3g}")  # an estimate has no more digits
        return f"{shown:,.0f} {pace.result}s/s"
    if per_second >= 1:
        return f"{per_second:.1f} {pace.result}s/s"
    return f"1 {pace.result} in {pace.seconds:.1f} s"


def _best(file: FileFit | None, *, is_best: bool) -> tuple[str, str]:
    from vramplan.report import phrases

    if file is None:
        return "", ""
    own = f"has {phrases.name(file.quantisation)}"
    best = file.best or "none"
    return (f"* {best}" if is_best else best), own


def ranking_result(ranking: Ranking) -> dict[str, Json]:
    """Return the result of `fit`."""
    return {
        "card": ranking.card,
        "card_title": ranking.card_title,
        "models": [_object(row) for row in ranking.rows],
        "pairs": None
        if ranking.pairs is None
        else [
            {
                "targets": [ranking.rows[place].target for place in pair.places],
                "verdict": pair.kind.value,
                "need_bytes": pair.need.expected_bytes,
                "need_high_bytes": pair.need.high_bytes,
                "budget_bytes": pair.budget_bytes,
                "headroom_bytes": pair.budget_bytes - pair.need.expected_bytes,
            }
            for pair in ranking.pairs
        ],
    }


def _object(row: Ranked) -> dict[str, Json]:
    verdict, pace, file = row.verdict, row.pace, row.file
    return {
        "name": row.name,
        "target": row.target,
        "place": row.place,
        "runtime": row.runtime or None,
        "verdict": None if verdict is None else verdict.kind.value,
        "need_bytes": None if verdict is None else verdict.need.expected_bytes,
        "need_high_bytes": None if verdict is None else verdict.need.high_bytes,
        "budget_bytes": None if verdict is None else verdict.budget_bytes,
        "headroom_bytes": None if verdict is None else verdict.headroom_bytes,
        "layers": None
        if verdict is None or verdict.layers is None
        else {"total": verdict.layers.total, "on_gpu": verdict.layers.on_gpu},
        "pace": None
        if pace is None or not pace.seconds
        else {"result": pace.result, "seconds": pace.seconds, "per_second": 1 / pace.seconds},
        "family": None if file is None else file.family,
        "quantisation": None if file is None else file.quantisation,
        "bits": None if file is None else round(file.bits, 4),
        "is_best_of_family": row.is_best,
        "best_quantisation": None if file is None else file.best,
        "problem": row.problem,
    }
