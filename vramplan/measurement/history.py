"""The caching allocator's own events while a program ran, and every segment as it stood before.

Addresses are relative to the lowest one seen: best fit breaks ties by address, so their order must
survive. A file of a history is JSON compressed with gzip; it never holds a pickle.
"""

from __future__ import annotations

import gzip
import json
from enum import StrEnum
from pathlib import Path
from typing import Any

from vramplan.codec import JsonError, Limits, read_json, rows, whole
from vramplan.errors import MeasurementError
from vramplan.quick_dataclass import dataclass

SUFFIX = ".history.json.gz"

#: llava with 256 new tokens makes some 600,000 events
_LIMITS = Limits(text_bytes=48 << 20, parsed_bytes=224 << 20)
_MOST_EVENTS = 1_000_000
_MOST_BLOCKS = 1_000_000
_SCHEMA = 1


class Action(StrEnum):
    """What an event is, in torch's own words (torch.cuda.memory._snapshot, device_traces)."""

    ALLOC = "alloc"
    FREE_REQUESTED = "free_requested"
    FREE_COMPLETED = "free_completed"
    SEGMENT_ALLOC = "segment_alloc"
    SEGMENT_FREE = "segment_free"
    SEGMENT_MAP = "segment_map"
    SEGMENT_UNMAP = "segment_unmap"
    OOM = "oom"


_CODES = list(Action)
_NUMBERS = {action: number for number, action in enumerate(_CODES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryBlock:
    """A range of a segment, used or free."""

    address: int
    size_bytes: int
    is_used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySegment:
    """A segment as it stood before the first event."""

    address: int
    size_bytes: int
    is_small: bool
    is_expandable: bool
    blocks: tuple[HistoryBlock, ...]


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One event; an allocation's size is what was asked for, a segment's what it has."""

    action: Action
    size_bytes: int
    address: int


@dataclass(frozen=True, slots=True)
class HistoryMark:
    """From event number `at` on, `component` works in `phase`."""

    at: int
    phase: str
    component: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the allocator did."""

    segments: tuple[HistorySegment, ...]
    events: tuple[HistoryEvent, ...]
    marks: tuple[HistoryMark, ...] = ()

    @property
    def reserved_bytes(self) -> int:
        """What was reserved before the first event."""
        return sum(segment.size_bytes for segment in self.segments)


def part_of(path: Path) -> Path:
    """Return where a history is written before it is whole and takes its place at `path`."""
    return path.with_name(f".{path.name}.part")


def encode_history(history: History) -> bytes:
    """Return a history as the bytes of its file, the same for the same history."""
    data = {
        "schema_version": _SCHEMA,
        "actions": [action.value for action in _CODES],
        "segments": [
            [
                one.address,
                one.size_bytes,
                int(one.is_small),
                int(one.is_expandable),
                [[block.address, block.size_bytes, int(block.is_used)] for block in one.blocks],
            ]
            for one in history.segments
        ],
        "events": [[_NUMBERS[one.action], one.size_bytes, one.address] for one in history.events],
        "marks": [[one.at, one.phase, one.component] for one in history.marks],
    }
    text = json.dumps(data, separators=(",", ":"))
    return gzip.compress(text.encode(), mtime=0)


def read_history(path: Path) -> History:
    """Return the history in a file; raises MeasurementError where it is not one."""
    try:
        return _decode(read_json(path, _LIMITS))
    except JsonError as problem:
        raise MeasurementError(str(problem)) from None
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        raise MeasurementError(f"{path}: not an allocator's history ({problem})") from None


def _decode(data: Any) -> History:
    actions = [Action(word) for word in rows(data["actions"], 100)]
    return History(
        segments=tuple(_segment(row) for row in rows(data["segments"], _MOST_BLOCKS)),
        events=tuple(
            HistoryEvent(actions[whole(row[0])], whole(row[1]), whole(row[2]))
            for row in rows(data["events"], _MOST_EVENTS)
        ),
        marks=tuple(
            HistoryMark(whole(row[0]), str(row[1])[:80], str(row[2])[:80])
            for row in rows(data.get("marks", []), _MOST_EVENTS)
        ),
    )


def _segment(row: Any) -> HistorySegment:
    return HistorySegment(
        address=whole(row[0]),
        size_bytes=whole(row[1]),
        is_small=bool(row[2]),
        is_expandable=bool(row[3]),
        blocks=tuple(
            HistoryBlock(address=whole(one[0]), size_bytes=whole(one[1]), is_used=bool(one[2]))
            for one in rows(row[4], _MOST_BLOCKS)
        ),
    )
