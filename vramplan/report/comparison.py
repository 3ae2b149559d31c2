"""An estimate beside a measured run, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vramplan.compare.comparison import Comparison
from vramplan.compare.waterfall import Waterfall
from vramplan.model import Estimate
from vramplan.report import comparison_rows, event_rows, phrases
from vramplan.report.colour import Tone, paint
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
    drawn = [paint(phrases.headline(comparison.estimate), Tone.STRONG, colour)]
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


def render_waterfall(
    estimate: Estimate,
    waterfall: Waterfall,
    sentences: Sequence[str],
    *,
    colour: bool,
    width: int,
) -> str:
    """Return the way from the weights to a figure that was seen, without a run's own counters."""
    inner = width - len(_INDENT)
    drawn = [paint(phrases.headline(estimate), Tone.STRONG, colour)]
    for sentence in (phrases.settings(estimate.settings), *sentences):
        drawn += [paint(line, Tone.DIM, colour) for line in wrap(clean(sentence, 400), width)]
    drawn += ["", paint(shown_heading(waterfall), Tone.STRONG, colour)]
    drawn += _indented(draw_waterfall(waterfall, width=inner, colour=colour))
    steps = comparison_rows.waterfall_table(waterfall)
    drawn += ["", *_indented(draw_table(steps, width=inner, colour=colour, stacked=True))]
    return "\n".join(drawn) + "\n"


def shown_heading(waterfall: Waterfall) -> str:
    """Return a waterfall's heading."""
    return f"from the weights to what {waterfall.shown_by} shows"


def tables_of(comparison: Comparison) -> list[tuple[str, Table]]:
    """Return the tables that have rows, with their headings."""
    found: list[tuple[str, Table]] = []
    if comparison.components:
        found.append(("components", comparison_rows.component_table(comparison)))
    if comparison.buffers:
        found.append(("the engine's buffers", comparison_rows.buffer_table(comparison)))
    if comparison.phases:
        found.append(
            (
                "phases: the estimate, then what was measured",
                comparison_rows.phase_table(comparison),
            )
        )
    if comparison.peak_allocated.measured_bytes is not None:
        found.append(("peaks", comparison_rows.peak_table(comparison)))
    if comparison.events is not None:
        found += event_rows.tables(comparison.events)
    return found


def notes_of(comparison: Comparison) -> tuple[str, ...]:
    """Return what a reader must know beside the figures."""
    run = comparison.run
    found = [clean(note, 400) for note in run.notes]
    if run.period_s is not None:
        found.append(f"NVML was sampled every {run.period_s * 1000:.1f} ms for the peaks")
    if run.phase_ends:
        found.append(
            "nvidia-smi was asked at the end of each phase: what a phase gave back before is not "
            "in its figure"
        )
    if any(one.process_used_bytes is None for one in run.stretches) and run.is_measured:
        found.append(
            "the driver does not tell what single processes hold: the context is how the card's "
            "used memory rose"
        )
    if comparison.events is not None:
        found += [clean(sentence, 400) for sentence in event_rows.sentences(comparison.events)]
    return tuple(found)


def _indented(lines: Iterable[str]) -> list[str]:
    return [(_INDENT + line).rstrip() for line in lines]
