"""The catalogue's pipelines and cards as tables."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.model import Card, Pipeline
from vramplan.report import phrases
from vramplan.report.colour import Tone
from vramplan.report.rows import Table, cell, table
from vramplan.report.text import clean


def pipeline_table(pipelines: Sequence[Pipeline]) -> Table:
    """Return one row per pipeline: name, runtime, what it is."""
    rows = (
        (
            cell(phrases.name(pipeline.name), _also(pipeline.aliases), Tone.STRONG),
            cell(phrases.name(pipeline.runtime)),
            cell(clean(pipeline.title, 120), clean(pipeline.summary, 240)),
        )
        for pipeline in pipelines
    )
    return table("pipeline!, runtime!, what it is", rows)


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
