"""Verdicts with their reasons and advice, in every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vramplan.model import Card, Estimate, Verdict
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.budget.difference import Comparison
    from vramplan.budget.plan import Largest
    from vramplan.compare.witness import Witness
    from vramplan.report.look import Look
    from vramplan.report.sheet import Sheet


def render(
    verdicts: Sequence[Verdict],
    estimates: Sequence[Estimate],
    cards: Sequence[Card],
    look: Look,
    *,
    witnesses: Sequence[Witness] = (),
    largest: Sequence[Mapping[str, Largest | None]] = (),
    compared: Comparison | None = None,
    following: Sequence[str] = (),
) -> str:
    """Return the verdicts as they are to look; `cards` are drawn across a page's budgets.

    `largest` are the largest sizes that fit, for each verdict from the first on, and `compared` is
    what has changed since an earlier answer: in Markdown it comes first, for a pull request.
    `following` are commands that come next, shown in a terminal.
    """

    def as_table() -> str:
        from vramplan.report.tables import draw_next, render_check

        drawn = render_check(verdicts, estimates, colour=look.colour, width=look.width)
        if witnesses:
            from vramplan.report.engine_witness import draw_witness

            drawn += "".join(draw_witness(one, look.colour, look.width) for one in witnesses)
        if largest:
            from vramplan.report.sheet import draw_sheet

            sheet = _largest_sheet(verdicts, largest)
            drawn += "\n" + draw_sheet(sheet, look.colour, look.width)
        if compared is not None:
            from vramplan.report.sheet import draw_sheet
            from vramplan.report.since import against_sheet

            sheet = against_sheet(verdicts, compared)
            drawn += "\n" + draw_sheet(sheet, look.colour, look.width)
        return drawn + draw_next(following, look.colour)

    def as_json() -> str:
        from vramplan.report.serial import check_result, to_json

        result = check_result(verdicts, largest, compared)
        if witnesses:
            from vramplan.report.engine_witness import witness_object

            result["engines"] = [witness_object(one) for one in witnesses]
        return to_json(look.command, result)

    def as_markdown() -> str:
        from vramplan.report.markdown import render_check

        marked = []
        if compared is not None:
            from vramplan.report.sheet import mark_sheet
            from vramplan.report.since import against_sheet

            marked.append(mark_sheet(against_sheet(verdicts, compared)))
        marked.append(render_check(verdicts, estimates))
        if witnesses:
            from vramplan.report.engine_witness import mark_witness

            marked += [mark_witness(one) for one in witnesses]
        if largest:
            from vramplan.report.sheet import mark_sheet

            marked.append(mark_sheet(_largest_sheet(verdicts, largest)))
        return "\n".join(marked)

    def as_html() -> str:
        from vramplan.report.html import render_report

        return render_report(estimates, verdicts, cards)

    return look.draw({"table": as_table, "json": as_json, "markdown": as_markdown, "html": as_html})


def _largest_sheet(
    verdicts: Sequence[Verdict], largest: Sequence[Mapping[str, Largest | None]]
) -> Sheet:
    """Return a row for each verdict on one pipeline: the largest of each size that fits."""
    from vramplan.report import phrases
    from vramplan.report.colour import Tone
    from vramplan.report.rows import cell, table
    from vramplan.report.sheet import Sheet
    from vramplan.setting_values import SIZES

    sizes = [size for size in SIZES if any(size in found for found in largest)]
    rows = []
    for verdict, found in zip(verdicts, largest, strict=False):
        ends = (
            cell(
                phrases.called(verdict.pipeline, verdict.asked),
                phrases.differing(verdict.pipeline, verdict.asked),
                Tone.STRONG,
            ),
            cell(phrases.name(verdict.card)),
        )
        rows.append((*ends, *(cell(_size(found, size)) for size in sizes)))
    headers = ", ".join(["pipeline!", "card!", *(f"{size}#" for size in sizes)])
    return Sheet(tables=[("largest that fits, with all else as it is", table(headers, rows))])


def _size(found: Mapping[str, Largest | None], size: str) -> str:
    from vramplan.report import phrases

    if size not in found:
        return phrases.NOTHING
    one = found[size]
    if one is None:
        return "none fits"
    return f"{'at least ' if one.is_last_known else ''}{phrases.value(one.value)}"
