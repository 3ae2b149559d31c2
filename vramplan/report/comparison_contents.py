"""What every format of a comparison shows: its tables, their headings, and the notes."""

from __future__ import annotations

from vramplan.compare.comparison import Comparison, Explanation
from vramplan.compare.waterfall import Waterfall
from vramplan.report import comparison_rows, event_rows, phrases
from vramplan.report.rows import Table
from vramplan.report.text import clean


def shown_heading(waterfall: Waterfall) -> str:
    """Return a waterfall's heading."""
    is_planned = any(step.estimate_bytes is not None for step in waterfall.steps)
    begin = "from the weights to" if is_planned else "whose it is:"
    return f"{begin} what {waterfall.shown_by} shows"


def seen_heading(explained: Explanation) -> str:
    """Return what an explanation is about: a pipeline, or the card alone."""
    if explained.estimate is None:
        return f"What {explained.waterfall.shown_by} shows"
    return phrases.headline(explained.estimate)


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
