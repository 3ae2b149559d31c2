"""One budget, line by line and phase by phase, in every format."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.model import Card, Estimate
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.compare.witness import Witness
    from vramplan.report.look import Look


def render(
    estimate: Estimate, cards: Sequence[Card], look: Look, *, witness: Witness | None = None
) -> str:
    """Return the budget as it is to look; `cards` are drawn across it."""

    def as_table() -> str:
        from vramplan.report.tables import render_estimate

        drawn = render_estimate(estimate, colour=look.colour, width=look.width, cards=cards)
        if witness is None:
            return drawn
        from vramplan.report.engine_witness import draw_witness

        return drawn + draw_witness(witness, look.colour, look.width)

    def as_json() -> str:
        from vramplan.report.serial import estimate_result, to_json

        result = estimate_result(estimate)
        if witness is not None:
            from vramplan.report.engine_witness import witness_object

            result["engine"] = witness_object(witness)
        return to_json(look.command, result)

    def as_markdown() -> str:
        from vramplan.report.markdown import render_estimate

        marked = render_estimate(estimate, cards=cards)
        if witness is None:
            return marked
        from vramplan.report.engine_witness import mark_witness

        return f"{marked}\n{mark_witness(witness)}"

    def as_html() -> str:
        from vramplan.report.html import render_report

        return render_report([estimate], [], cards)

    return look.draw({"table": as_table, "json": as_json, "markdown": as_markdown, "html": as_html})
