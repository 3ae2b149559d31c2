"""An estimate beside a measured run, or beside what a card showed, in every format."""

from __future__ import annotations

from vramplan.compare.comparison import Comparison, Explanation
from vramplan.report.look import Look


def render(comparison: Comparison, look: Look, *, tolerance_percent: float | None = None) -> str:
    """Return a run beside its estimate; the tolerance it was held to stands in the JSON."""
    if look.format == "json":
        from vramplan.report.comparison_serial import comparison_result
        from vramplan.report.serial import to_json

        return to_json(look.command, comparison_result(comparison, tolerance_percent))
    if look.format == "html":
        from vramplan.report import comparison_html

        return comparison_html.render_comparison(comparison)
    if look.format == "markdown":
        from vramplan.report import comparison_markdown

        return comparison_markdown.render_comparison(comparison)
    from vramplan.report.comparison_table import render_comparison

    return render_comparison(comparison, colour=look.colour, width=look.width)


def render_explanation(
    explained: Explanation, look: Look, *, tolerance_percent: float | None = None
) -> str:
    """Return how a figure comes about that a card showed."""
    if look.format == "json":
        from vramplan.report.comparison_serial import explanation_result
        from vramplan.report.serial import to_json

        return to_json(look.command, explanation_result(explained, tolerance_percent))
    if look.format == "html":
        from vramplan.report import comparison_html

        return comparison_html.render_explanation(explained)
    if look.format == "markdown":
        from vramplan.report import comparison_markdown

        return comparison_markdown.render_explanation(explained)
    from vramplan.report import comparison_table

    return comparison_table.render_explanation(explained, colour=look.colour, width=look.width)
