"""An estimate beside a measured run, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from vramplan.compare.comparison import Comparison, Explanation
from vramplan.report import comparison_rows, phrases
from vramplan.report.closing import close_comparison, close_explanation
from vramplan.report.colour import Tone, paint
from vramplan.report.comparison_contents import notes_of, seen_heading, shown_heading, tables_of
from vramplan.report.grid import draw_table, natural_width
from vramplan.report.rows import Table, without
from vramplan.report.text import clean, wrap
from vramplan.report.waterfall_chart import draw_waterfall

_INDENT = "  "


def render_comparison(comparison: Comparison, *, colour: bool, width: int) -> str:
    """Return components, phases, peaks and the waterfall, each with its residuals."""
    run = comparison.run
    inner = width - len(_INDENT)
    tone, ended = comparison_rows.outcome(run)
    head = wrap(phrases.headline(comparison.estimate), width)
    drawn = [paint(line, Tone.STRONG, colour) for line in head]
    for sentence in comparison_rows.about(run):
        drawn += [paint(line, Tone.DIM, colour) for line in wrap(sentence, width)]
    drawn += [paint(line, tone, colour) for line in wrap(ended, width)]
    for title, table in tables_of(comparison):
        drawn += ["", paint(title, Tone.STRONG, colour)]
        fitting = _fitting(table, inner)
        drawn += _indented(draw_table(fitting, width=inner, colour=colour, stacked=True))
    if comparison.waterfall is not None:
        drawn += ["", paint(shown_heading(comparison.waterfall), Tone.STRONG, colour)]
        drawn += _indented(draw_waterfall(comparison.waterfall, width=inner, colour=colour))
        steps = comparison_rows.waterfall_table(comparison.waterfall)
        drawn += ["", *_indented(draw_table(steps, width=inner, colour=colour, stacked=True))]
    notes = notes_of(comparison)
    if notes:
        drawn += ["", paint("notes", Tone.STRONG, colour)]
        for note in notes:
            first, *rest = wrap(note, inner - 2)
            drawn += _indented([f"- {first}", *(f"  {line}" for line in rest)])
    drawn += ["", *wrap(close_comparison(comparison), width)]
    return "\n".join(drawn) + "\n"


#: what a narrow terminal goes without, the least missed first
_DISPENSABLE = (
    "warm reserved",
    "NVML device",
    "nvidia-smi",
    "NVML process",
    "what it is",
    "workspace planned",
    "order",
)


def _fitting(table: Table, width: int) -> Table:
    """Return as much of a table as `width` has room for."""
    for count in range(len(_DISPENSABLE) + 1):
        smaller = without(table, *_DISPENSABLE[:count])
        if natural_width(smaller, stacked=True) <= width:
            return smaller
    return smaller


def render_explanation(explained: Explanation, *, colour: bool, width: int) -> str:
    """Return the way from the weights to a figure that was seen, without a run's own counters."""
    estimate, waterfall = explained.estimate, explained.waterfall
    inner = width - len(_INDENT)
    head = wrap(seen_heading(explained), width)
    drawn = [paint(line, Tone.STRONG, colour) for line in head]
    settings = () if estimate is None else (phrases.settings(estimate.settings),)
    for sentence in (*settings, *explained.sentences):
        drawn += [paint(line, Tone.DIM, colour) for line in wrap(clean(sentence, 400), width)]
    drawn += ["", paint(shown_heading(waterfall), Tone.STRONG, colour)]
    drawn += _indented(draw_waterfall(waterfall, width=inner, colour=colour))
    steps = comparison_rows.waterfall_table(waterfall)
    drawn += ["", *_indented(draw_table(steps, width=inner, colour=colour, stacked=True))]
    drawn += ["", *wrap(close_explanation(explained), width)]
    return "\n".join(drawn) + "\n"


def _indented(lines: Iterable[str]) -> list[str]:
    return [(_INDENT + line).rstrip() for line in lines]
