"""Takes the caching allocator's own events down while a program runs.

Source of the format: torch/cuda/memory.py (`_snapshot`, `_record_memory_history`); an event of
``alloc`` has the size that was asked for, ``segment_alloc`` the segment's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vramplan.measurement.history import (
    Action,
    History,
    HistoryBlock,
    HistoryEvent,
    HistoryMark,
    HistorySegment,
    encode_history,
    part_of,
)

_MOST_EVENTS = 2_000_000

#: when a component began to work in a phase: microseconds since the epoch, as torch's events
Moment = tuple[int, str, str]


class Historian:
    """Runs work with the allocator's recorder on, and writes what it recorded to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._moments: list[Moment] = []

    def begin(self, phase: str, component: str) -> None:
        """Hear that a component begins to work in a phase."""
        self._moments.append((time.time_ns() // 1000, phase, component))

    def record(self, work: Callable[[], None]) -> None:
        """Run `work`, and write its history beside first, then to its place."""
        import torch

        memory: Any = torch.cuda.memory
        torch.cuda.synchronize()
        before = memory._snapshot()["segments"]
        memory._record_memory_history(
            enabled="all", context=None, stacks="python", max_entries=_MOST_EVENTS
        )
        try:
            work()
            torch.cuda.synchronize()
            trace = memory._snapshot()["device_traces"][torch.cuda.current_device()]
        finally:
            memory._record_memory_history(enabled=None)
        beside = part_of(self._path)
        beside.write_bytes(encode_history(make_history(before, trace, self._moments)))
        beside.replace(self._path)


def make_history(
    segments: Sequence[Mapping[str, Any]],
    trace: Sequence[Mapping[str, Any]],
    moments: Iterable[Moment] = (),
) -> History:
    """Return torch's snapshot and trace as a history, addresses relative to the lowest."""
    known = {action.value for action in Action}
    events = [one for one in trace if one["action"] in known]
    addresses = [int(one["address"]) for one in segments]
    addresses += [int(one["addr"]) for one in events if one.get("addr")]
    low = min(addresses, default=0)
    return History(
        segments=tuple(_segment(one, low) for one in segments),
        events=tuple(
            HistoryEvent(
                Action(one["action"]),
                int(one.get("size", 0)),
                int(one["addr"]) - low if one.get("addr") else 0,
            )
            for one in events
        ),
        marks=tuple(_marks(events, sorted(moments))),
    )


def _segment(one: Mapping[str, Any], low: int) -> HistorySegment:
    address = int(one["address"]) - low
    blocks, at = [], address
    for block in one["blocks"]:
        size = int(block["size"])
        is_used = str(block["state"]).startswith("active")  # awaiting a free, it is held as well
        blocks.append(HistoryBlock(address=at, size_bytes=size, is_used=is_used))
        at += size
    return HistorySegment(
        address=address,
        size_bytes=int(one["total_size"]),
        is_small=one.get("segment_type") == "small",
        is_expandable=bool(one.get("is_expandable", False)),
        blocks=tuple(blocks),
    )


def _marks(events: Sequence[Mapping[str, Any]], moments: Sequence[Moment]) -> Iterable[HistoryMark]:
    """Yield where each moment falls among the events; without times there are no marks."""
    times = [int(one.get("time_us", 0)) for one in events]
    at = 0
    for moment, phase, component in moments:
        while at < len(times) and times[at] < moment:
            at += 1
        yield HistoryMark(at, phase, component)
