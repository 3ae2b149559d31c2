"""An estimate beside a measurement, as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan import __version__
from vramplan.compare.comparison import Comparison, Explanation
from vramplan.compare.waterfall import Waterfall
from vramplan.measurement.run import Run
from vramplan.report import comparison_rows, phrases
from vramplan.report.closing import close_comparison, close_explanation
from vramplan.report.comparison_contents import notes_of, seen_heading, shown_heading, tables_of
from vramplan.report.html import drawn, open_templates, without_margins
from vramplan.report.rows import Table
from vramplan.report.text import clean
from vramplan.report.waterfall_svg import draw_waterfall


def render_comparison(comparison: Comparison) -> str:
    """Return the page of a run beside its estimate."""
    run = comparison.run
    tone, ended = comparison_rows.outcome(run)
    by = " · ".join(part for part in (clean(run.created, 80), clean(run.command, 400)) if part)
    return _page(
        name=phrases.name(run.pipeline),
        long_name=clean(run.title, 120),
        by=by,
        about=comparison_rows.about(run),
        tone=tone.value,
        ended=ended,
        closing=close_comparison(comparison),
        waterfall=comparison.waterfall,
        tables=tables_of(comparison),
        notes=notes_of(comparison),
    )


def render_explanation(explained: Explanation) -> str:
    """Return the page of a figure that was seen, explained."""
    estimate = explained.estimate
    return _page(
        name=seen_heading(explained) if estimate is None else phrases.name(estimate.pipeline),
        long_name="" if estimate is None else clean(estimate.title, 120),
        by="",
        about=[clean(sentence, 400) for sentence in explained.sentences],
        tone="",
        ended="",
        closing=close_explanation(explained),
        waterfall=explained.waterfall,
        tables=[],
        notes=[],
    )


def render_run(run: Run, tables: Sequence[tuple[str, Table]], notes: Sequence[str]) -> str:
    """Return the page of a run without an estimate."""
    tone, ended = comparison_rows.outcome(run)
    return _page(
        name=phrases.name(run.pipeline),
        long_name=clean(run.title, 120),
        by=clean(run.created, 80),
        about=comparison_rows.about(run),
        tone=tone.value,
        ended=ended,
        closing="",
        waterfall=None,
        tables=tables,
        notes=notes,
    )


def _page(*, name: str, waterfall: Waterfall | None, **more: object) -> str:
    picture = "" if waterfall is None else drawn(draw_waterfall("waterfall", waterfall))
    return without_margins(
        open_templates()
        .get_template("comparison.html.j2")
        .render(
            version=clean(__version__, 40),
            title=f"{name}: measured beside its estimate",
            name=name,
            picture=picture,
            picture_title="" if waterfall is None else shown_heading(waterfall),
            steps=None if waterfall is None else comparison_rows.waterfall_table(waterfall),
            **more,
        )
    )
