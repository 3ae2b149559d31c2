"""What became of a program on pretended cards, as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan import __version__
from vramplan.measurement.tried import Trial
from vramplan.report import phrases
from vramplan.report.html import drawn, open_templates
from vramplan.report.rows import Table
from vramplan.report.text import clean
from vramplan.report.trial_svg import draw_both


def render_trials(
    trials: Sequence[Trial],
    *,
    program: str,
    headline: Sequence[str],
    peaks: Table,
    chapters: Sequence[dict[str, object]],
    notes: Sequence[str],
) -> str:
    """Return the page: the sentence of each card, then a chapter for each of `trials`."""
    for number, (one, chapter) in enumerate(zip(trials, chapters, strict=True)):
        chapter["picture"] = drawn(draw_both(f"run{number}", one))
        chapter["anchor"] = f"r{number}"
        chapter["name"] = phrases.name(one.card)
        chapter["title"] = "" if one.card_title == one.card else clean(one.card_title, 120)
    versions = dict(pair for one in trials for pair in one.versions)
    return (
        open_templates()
        .get_template("trials.html.j2")
        .render(
            version=clean(__version__, 40),
            program=program,
            headline=headline,
            peaks=peaks,
            chapters=chapters,
            notes=notes,
            versions=", ".join(f"{name} {clean(told, 60)}" for name, told in versions.items()),
        )
    )
