"""Measured requests beside a tape's as JSON; the fields are in ``output.schema.json``."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.compare.events import Difference, EventComparison, HistoryReplay, PlaceEvents
from vramplan.report.serial import Json

#: sizes that are listed of one kind, those with the most bytes; `bytes` sums up all of them
_MOST_SIZES = 100


def events_object(events: EventComparison | None) -> dict[str, Json] | None:
    """Return a comparison of events, or None where none was asked for."""
    if events is None:
        return None
    return {
        "measured": events.measured,
        "planned": events.planned,
        "matched": events.matched,
        "places": [_place(place) for place in events.places],
        "allocator": None if events.allocator is None else _allocator(events.allocator),
        "note": events.note,
    }


def _place(place: PlaceEvents) -> dict[str, Json]:
    return {
        "phase": place.phase,
        "component": place.component,
        "measured": place.measured,
        "planned": place.planned,
        "matched": place.matched,
        "in_order": place.is_in_order,
        "measured_only": _sizes(place.extra),
        "tape_only": _sizes(place.missing),
        "planned_workspace": _sizes(place.scratch),
        "first_differences": [
            {
                "event": one.number,
                "only": "measured" if one.is_measured else "tape",
                "size_bytes": one.size_bytes,
            }
            for one in place.partings
        ],
    }


def _sizes(found: Sequence[Difference]) -> dict[str, Json]:
    return {
        "count": sum(one.count for one in found),
        "bytes": sum(one.bytes for one in found),
        "sizes": [
            {"size_bytes": one.size_bytes, "count": one.count} for one in found[:_MOST_SIZES]
        ],
    }


def _allocator(replayed: HistoryReplay) -> dict[str, Json]:
    return {
        "segments": len(replayed.segments_bytes),
        "measured_segments": len(replayed.measured_segments_bytes),
        "same_segments": replayed.is_same,
        "reserved_peak_bytes": replayed.reserved_peak_bytes,
        "measured_reserved_peak_bytes": replayed.measured_reserved_peak_bytes,
        "first_difference": replayed.first_difference,
    }
