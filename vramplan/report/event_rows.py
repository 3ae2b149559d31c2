"""Measured requests beside a tape's as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vramplan.compare.events import Difference, EventComparison, HistoryReplay, PlaceEvents
from vramplan.report import phrases
from vramplan.report.colour import Tone
from vramplan.report.rows import Cell, Table, cell, table, without_empty

#: differences shown one by one; JSON has more of them
_SHOWN = 12


def tables(events: EventComparison) -> Iterator[tuple[str, Table]]:
    """Yield the tables that have rows, with their headings."""
    if events.places:
        yield "requests to the allocator: measured beside the tape's", place_table(events)
    if events.partings:
        more = sum(len(place.partings) for place in events.places) > _SHOWN
        heading = f"the first {_SHOWN} differences" if more else "the differences"
        yield heading, parting_table(events)


def place_table(events: EventComparison) -> Table:
    """Return a row for each component in each phase; sizes are sums, with how many beside them."""
    headers = (
        "phase!, component!, measured#, tape#, on both#, order, measured only#, tape only#, "
        "workspace planned#"
    )
    rows = (tuple(_place_row(place)) for place in events.places)
    return without_empty(table(headers, rows), "measured only", "tape only", "workspace planned")


def _place_row(place: PlaceEvents) -> Iterator[Cell]:
    is_same = place.matched == place.measured == place.planned and place.is_in_order
    yield cell(phrases.name(place.phase))
    yield cell(phrases.name(place.component))
    yield cell(f"{place.measured:,}")
    yield cell(f"{place.planned:,}")
    yield cell(f"{place.matched:,}", tone=Tone.FITS if is_same else Tone.PLAIN)
    yield cell("the same" if place.is_in_order else "another")
    yield _sum(place.extra)
    yield _sum(place.missing)
    yield _sum(place.scratch)


def _sum(found: Sequence[Difference]) -> Cell:
    if not found:
        return cell(phrases.NOTHING)
    count = sum(one.count for one in found)
    return cell(phrases.nearest(sum(one.bytes for one in found)), f"in {count:,}", joint="{}")


def parting_table(events: EventComparison) -> Table:
    """Return the first requests that one side makes alone."""
    rows = (
        (
            cell(f"{one.number:,}"),
            cell(phrases.name(one.phase)),
            cell(phrases.name(one.component)),
            cell("measured" if one.is_measured else "tape"),
            cell(f"{one.size_bytes:,}"),
        )
        for one in events.partings[:_SHOWN]
    )
    return table("event#, phase!, component!, only, bytes#", rows)


def sentences(events: EventComparison) -> Iterator[str]:
    """Yield what the lists come to, and how the allocator model takes the measured one."""
    yield (
        f"{events.matched:,} of {events.measured:,} measured requests are among the tape's "
        f"{events.planned:,}, in sizes rounded to 512 bytes; libraries' workspaces are in no tape"
    )
    if events.note is not None:
        yield f"the allocator model was not fed with the events: {events.note}"
    if events.allocator is not None:
        yield from _model(events.allocator)


def _model(replayed: HistoryReplay) -> Iterator[str]:
    theirs = len(replayed.measured_segments_bytes)
    if replayed.is_same and not theirs:
        yield "fed with the events, the allocator model takes no segment anew, as torch took none"
    elif replayed.is_same:
        yield f"fed with the events, the allocator model takes torch's very segments, {theirs:,}"
    else:
        yield (
            f"fed with the events, the allocator model takes {len(replayed.segments_bytes):,} "
            f"segments where torch took {theirs:,}"
        )
    if replayed.first_difference is not None:
        yield f"the allocator model first parts from torch at {replayed.first_difference}"
    model, real = replayed.reserved_peak_bytes, replayed.measured_reserved_peak_bytes
    off = 100 * (model - real) / real if real else 0.0
    yield (
        f"its reserved peak is {phrases.nearest(model)}, torch's {phrases.nearest(real)} "
        f"({off:+.2f} %)"
    )
