"""The part of docs/accuracy.md that holds measured allocator events against the tapes.

Read from the histories beside the runs of profiles/measured, as `vramplan compare --events` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.compare.events import EventComparison

TITLE = "### Event by event"

_INTRODUCTION = """\
Every request that torch's allocator served in a warm run, beside the tape's. Workspaces are in no
tape: they are *measured only*. *Tape only* must be nothing. The allocator model, fed with the
measured requests, must take the segments that torch took; its reserved peak is held to 0.5 %."""


def render(profiles: Path) -> str | None:
    """Return the section, or None where no run has events."""
    rows = [_row(name, events) for name, events in _compared(profiles)]
    if not rows:
        return None
    head = (
        "| case | measured | tape | on both | measured only, MiB | tape only, MiB "
        "| segments of torch | of the model | the same | reserved peak |"
    )
    return "\n\n".join(
        [TITLE, _INTRODUCTION, "\n".join([head, "|---|" + "--:|" * 7 + "---|--:|", *rows])]
    )


def _compared(profiles: Path) -> Iterator[tuple[str, EventComparison]]:
    from vramplan.ask.compare import compare
    from vramplan.catalog import load_catalog
    from vramplan.measurement.files import runs_in

    catalog = load_catalog(())
    for path, run in runs_in(profiles):
        if run.history is not None and run.pipeline in catalog.pipelines:
            events = compare(str(path), catalog, {}, wants_events=True).comparison.events
            if events is not None:
                yield path.stem, events


def _row(name: str, events: EventComparison) -> str:
    extra = sum(one.bytes for place in events.places for one in place.extra)
    missing = sum(one.bytes for place in events.places for one in place.missing)
    cells = [
        f"`{name}`",
        *(f"{count:,}" for count in (events.measured, events.planned, events.matched)),
        *(f"{size / (1 << 20):,.1f}" for size in (extra, missing)),
    ]
    model = events.allocator
    if model is None:
        return f"| {' | '.join([*cells, '', '', events.note or '', ''])} |"
    real = model.measured_reserved_peak_bytes
    off = 100 * (model.reserved_peak_bytes - real) / real if real else 0.0
    cells += [
        f"{len(model.measured_segments_bytes):,}",
        f"{len(model.segments_bytes):,}",
        "yes" if model.is_same else "no",
        f"{off:+.2f} %".replace("-", "\N{MINUS SIGN}"),
    ]
    return f"| {' | '.join(cells)} |"
