"""The catalogue's pipelines and cards as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vramplan.catalog.pipelines import Entry
from vramplan.model import Card, Pipeline
from vramplan.report import phrases
from vramplan.report.colour import Tone
from vramplan.report.rows import Table, cell, table
from vramplan.report.text import clean

#: with more rows than these a summary of each would bury the names
_MOST_SUMMARIES = 24
#: what has no family is listed last
_OTHERS = "others"


def pipeline_tables(pipelines: Sequence[Pipeline]) -> list[tuple[str, Table]]:
    """Return a table of each family, by its name: what a pipeline is called, has, and is."""
    families: dict[str, list[Pipeline]] = {}
    for pipeline in pipelines:
        families.setdefault(_family(pipeline), []).append(pipeline)
    is_short = len(pipelines) <= _MOST_SUMMARIES
    return [
        (name, _pipeline_table(families[name], has_summaries=is_short))
        for name in sorted(families, key=lambda one: (one == _OTHERS, one.lower()))
    ]


def _family(pipeline: Pipeline) -> str:
    return (isinstance(pipeline, Entry) and pipeline.family) or _OTHERS


def _pipeline_table(pipelines: Iterable[Pipeline], *, has_summaries: bool) -> Table:
    rows = (
        (
            cell(phrases.name(pipeline.name), _also(pipeline.aliases), Tone.STRONG),
            cell(phrases.name(pipeline.runtime)),
            cell(_parameters(pipeline)),
            cell(clean(pipeline.title, 120), clean(pipeline.summary, 240) if has_summaries else ""),
        )
        for pipeline in pipelines
    )
    return table("pipeline!, runtime!, parameters#, what it is", rows)


def _parameters(pipeline: Pipeline) -> str:
    """Return how many parameters a pipeline has, short: ``16.9 B``."""
    count = pipeline.parameters if isinstance(pipeline, Entry) else None
    if count is None:
        return phrases.NOTHING
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"  # from a billion on


def card_table(cards: Sequence[Card]) -> Table:
    """Return one row per card: capacity as NVML reports it, what is usable, and what it is."""
    rows = (
        (
            cell(phrases.name(card.name), _also(card.aliases), Tone.STRONG),
            cell(clean(card.title, 80)),
            cell(phrases.name(card.kind)),
            cell(f"{card.class_gib} GB"),
            cell(phrases.available(card.total_bytes)),
            cell(phrases.available(card.total_bytes - card.reserved_bytes)),
            cell(phrases.name(card.compute_capability)),
            cell("" if card.multiprocessors is None else str(card.multiprocessors)),
            cell(f"{card.bandwidth_bytes_per_s / 1e9:,.0f} GB/s"),
        )
        for card in cards
    )
    return table("card!, title, kind, class#, capacity#, usable#, cc#, SMs#, bandwidth#", rows)


def _also(aliases: Sequence[str]) -> str:
    return ", ".join(phrases.name(alias) for alias in aliases[:8])
