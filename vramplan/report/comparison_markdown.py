"""An estimate beside a measured run as GitHub-flavoured Markdown."""

from __future__ import annotations

from vramplan.compare.comparison import Comparison, Explanation
from vramplan.report import comparison_rows, phrases
from vramplan.report.closing import close_comparison, close_explanation
from vramplan.report.comparison_contents import notes_of, seen_heading, shown_heading, tables_of
from vramplan.report.markdown import escape, render_table
from vramplan.report.text import clean


def render_comparison(comparison: Comparison) -> str:
    """Return the tables of `comparison`, with their headings."""
    run = comparison.run
    parts = [f"## {escape(phrases.headline(comparison.estimate))}"]
    parts += [escape(sentence) for sentence in comparison_rows.about(run)]
    parts.append(f"**{escape(comparison_rows.outcome(run)[1])}**")
    for heading, table in tables_of(comparison):
        parts += [f"### {escape(heading)}", render_table(table)]
    if comparison.waterfall is not None:
        parts.append(f"### {escape(shown_heading(comparison.waterfall))}")
        parts.append(render_table(comparison_rows.waterfall_table(comparison.waterfall)))
    notes = notes_of(comparison)
    if notes:
        parts += ["### Notes", "\n".join(f"- {escape(note)}" for note in notes)]
    parts.append(f"**{escape(close_comparison(comparison))}**")
    return "\n\n".join(parts) + "\n"


def render_explanation(explained: Explanation) -> str:
    """Return the way from the weights to a figure that was seen."""
    waterfall = explained.waterfall
    parts = [f"## {escape(seen_heading(explained))}"]
    parts += [escape(clean(sentence, 400)) for sentence in explained.sentences]
    parts.append(f"### {escape(shown_heading(waterfall))}")
    parts.append(render_table(comparison_rows.waterfall_table(waterfall)))
    parts.append(f"**{escape(close_explanation(explained))}**")
    return "\n\n".join(parts) + "\n"
