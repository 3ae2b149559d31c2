"""An estimate beside a measured run, as one self-contained page."""

from __future__ import annotations

from vramplan import __version__
from vramplan.compare.comparison import Comparison
from vramplan.report import comparison_rows, phrases
from vramplan.report.comparison import heading_of, notes_of, tables_of
from vramplan.report.html import drawn, open_templates
from vramplan.report.text import clean
from vramplan.report.waterfall_svg import draw_waterfall


def render_comparison(comparison: Comparison) -> str:
    """Return the page."""
    run, waterfall = comparison.run, comparison.waterfall
    tone, ended = comparison_rows.outcome(run)
    picture = "" if waterfall is None else drawn(draw_waterfall("waterfall", waterfall))
    return (
        open_templates()
        .get_template("comparison.html.j2")
        .render(
            version=clean(__version__, 40),
            title=f"{phrases.name(run.pipeline)}: measured beside its estimate",
            created=clean(run.created, 80),
            command=clean(run.command, 400),
            name=phrases.name(run.pipeline),
            long_name=clean(run.title, 120),
            about=comparison_rows.about(run),
            tone=tone.value,
            ended=ended,
            picture=picture,
            picture_title=heading_of(comparison) if waterfall is not None else "",
            steps=None if waterfall is None else comparison_rows.waterfall_table(waterfall),
            tables=tables_of(comparison),
            notes=notes_of(comparison),
        )
    )
