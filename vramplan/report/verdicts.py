"""Verdicts with their reasons and advice, in every format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vramplan.model import Card, Estimate, Verdict

if TYPE_CHECKING:
    from vramplan.compare.witness import Witness
    from vramplan.report.look import Look


def render(
    verdicts: Sequence[Verdict],
    estimates: Sequence[Estimate],
    cards: Sequence[Card],
    look: Look,
    *,
    witnesses: Sequence[Witness] = (),
    following: Sequence[str] = (),
) -> str:
    """Return the verdicts as they are to look; `cards` are drawn across a page's budgets.

    `following` are commands that come next, shown in a terminal.
    """

    def as_table() -> str:
        from vramplan.report.tables import draw_next, render_check

        drawn = render_check(verdicts, estimates, colour=look.colour, width=look.width)
        if witnesses:
            from vramplan.report.engine_witness import draw_witness

            drawn += "".join(draw_witness(one, look.colour, look.width) for one in witnesses)
        return drawn + draw_next(following, look.colour)

    def as_json() -> str:
        from vramplan.report.serial import check_result, to_json

        result = check_result(verdicts)
        if witnesses:
            from vramplan.report.engine_witness import witness_object

            result["engines"] = [witness_object(one) for one in witnesses]
        return to_json(look.command, result)

    def as_markdown() -> str:
        from vramplan.report.markdown import render_check

        marked = render_check(verdicts, estimates)
        if not witnesses:
            return marked
        from vramplan.report.engine_witness import mark_witness

        return "\n".join([marked, *(mark_witness(one) for one in witnesses)])

    def as_html() -> str:
        from vramplan.report.html import render_report

        return render_report(estimates, verdicts, cards)

    return look.draw({"table": as_table, "json": as_json, "markdown": as_markdown, "html": as_html})
