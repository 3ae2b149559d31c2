"""The fit report: verdicts and budgets of many pipelines, in every format."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.model import Card, Estimate, Verdict
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.report.look import Look


def render(
    verdicts: Sequence[Verdict],
    estimates: Sequence[Estimate],
    cards: Sequence[Card],
    look: Look,
    *,
    words: Sequence[str] = (),
) -> str:
    """Return the report as it is to look; `words` are the command line a page is signed with."""

    def as_html() -> str:
        import datetime as dt
        import shlex

        from vramplan.report.html import ReportMeta, render_report

        today = dt.datetime.now(dt.UTC).date()
        meta = ReportMeta(command=shlex.join(["vramplan", *words]), created=today.isoformat())
        return render_report(estimates, verdicts, cards, meta)

    def as_json() -> str:
        from vramplan.report.serial import check_result, estimate_result, to_json

        result = check_result(verdicts)
        result["estimates"] = [estimate_result(estimate) for estimate in estimates]
        return to_json(look.command, result)

    def as_markdown() -> str:
        from vramplan.report import markdown

        return markdown.render_report(verdicts, estimates, cards)

    def as_table() -> str:
        from vramplan.report import tables

        return tables.render_report(
            verdicts, estimates, cards, colour=look.colour, width=look.width
        )

    return look.draw({"table": as_table, "json": as_json, "markdown": as_markdown, "html": as_html})
