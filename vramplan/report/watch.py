"""What was seen of the cards in the end, in every format."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.measurement.watched import Plan, Watched
from vramplan.report import phrases
from vramplan.report.colour import Tone
from vramplan.report.look import Look
from vramplan.report.rows import Cell, Table, cell, table
from vramplan.report.serial import Json, to_json
from vramplan.report.sheet import Sheet, draw_sheet, mark_sheet
from vramplan.report.text import clean
from vramplan.report.watch_view import size_of


def render(watched: Sequence[Watched], look: Look) -> str:
    """Return the peaks of each card, and of each process on it, as they are to look."""
    return look.draw(
        {
            "table": lambda: draw_sheet(_sheet(watched), look.colour, look.width),
            "markdown": lambda: mark_sheet(_sheet(watched)),
            "json": lambda: to_json(look.command, watch_result(watched)),
        }
    )


def _sheet(watched: Sequence[Watched]) -> Sheet:
    plans = _plans(watched)
    lines = []
    for plan in plans:
        holders = [one.label for one in watched if one.plan == plan]
        where = f" on {', '.join(clean(label, 60) for label in holders)}" if len(plans) > 1 else ""
        lines.append(f"planned{where}: {plan.label}, {phrases.need(plan.size_bytes)}")
    return Sheet(lines=lines, tables=[("", summary_table(watched))])


def summary_table(watched: Sequence[Watched]) -> Table:
    """Return the peaks of each card and of each process on it."""
    rows: list[tuple[Cell, ...]] = []
    for one in watched:
        peaks = one.peaks
        if peaks.last is None:
            continue
        after = f"after {peaks.used_at_s - peaks.began_s:.1f} s"
        rows.append(
            (
                cell(clean(one.label, 60), tone=Tone.STRONG),
                cell("the whole card"),
                cell(phrases.nearest(peaks.used_bytes)),
                cell(after),
            )
        )
        rows += [
            (cell(""), cell(f"{clean(p.name, 60)} ({p.pid})"), cell(size_of(p)), cell(""))
            for p in peaks.ranked()
        ]
    return table("card, who, peak#, when", rows)


def watch_result(watched: Sequence[Watched]) -> dict[str, Json]:
    """Return the summary for scripts; the plan above the cards is the first one's."""
    plan = next(iter(_plans(watched)), None)
    return {
        "plan": None if plan is None else {"name": plan.label, "bytes": plan.size_bytes},
        "cards": [_card_object(one) for one in watched if one.peaks.last is not None],
    }


def _plans(watched: Sequence[Watched]) -> list[Plan]:
    """Return the plans that differ, in the order of their cards."""
    return list(dict.fromkeys(one.plan for one in watched if one.plan is not None))


def _card_object(one: Watched) -> dict[str, Json]:
    peaks, plan = one.peaks, one.plan
    assert peaks.last is not None
    return {
        "card": one.label,
        "total_bytes": peaks.last.total_bytes,
        "peak_bytes": peaks.used_bytes,
        "peak_at_s": round(peaks.used_at_s - peaks.began_s, 3),
        "looks": peaks.looks,
        "seconds": round(peaks.ended_s - peaks.began_s, 3),
        "plan_bytes": None if plan is None else plan.size_bytes,
        "within_plan": None if plan is None else peaks.used_bytes <= plan.size_bytes,
        "processes": [
            {"pid": p.pid, "name": p.name, "kind": p.kind, "peak_bytes": p.used_bytes}
            for p in peaks.ranked()
        ],
    }
