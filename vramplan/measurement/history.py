"""The caching allocator's own events while a program ran, and every segment as it stood before.

Addresses are relative to the lowest one seen: best fit breaks ties by address, so their order must
survive. A file of a history is JSON compressed with gzip; it never holds a pickle.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from vramplan.errors import MeasurementError
from vramplan.files import open_file

SUFFIX = ".history.json.gz"

#: llava with 256 new tokens makes some 600,000 events
_MOST_EVENTS = 4_000_000
_MOST_BLOCKS = 1_000_000
_LARGEST_BYTES = 256 << 20
_LARGEST = 1 << 62
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
        with open_file(path) as raw, gzip.GzipFile(fileobj=raw) as file:
            text = file.read(_LARGEST_BYTES + 1)
        if len(text) > _LARGEST_BYTES:
            raise MeasurementError(f"{path}: larger than {_LARGEST_BYTES >> 20} MiB")
        data = json.loads(text)
    except OSError as problem:
        raise MeasurementError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except (EOFError, zlib.error):
        raise MeasurementError(f"{path}: its compressed data is damaged") from None
    except (ValueError, RecursionError) as problem:
        raise MeasurementError(f"{path}: not JSON: {problem}") from None
    try:
        return _decode(data)
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        raise MeasurementError(f"{path}: not an allocator's history ({problem})") from None


def _decode(data: Any) -> History:
    actions = [Action(word) for word in _rows(data["actions"], 100)]
    return History(
        segments=tuple(_segment(row) for row in _rows(data["segments"], _MOST_BLOCKS)),
        events=tuple(
            HistoryEvent(actions[_whole(row[0])], _whole(row[1]), _whole(row[2]))
            for row in _rows(data["events"], _MOST_EVENTS)
        ),
        marks=tuple(
            HistoryMark(_whole(row[0]), str(row[1])[:80], str(row[2])[:80])
            for row in _rows(data.get("marks", []), _MOST_EVENTS)
        ),
    )


def _segment(row: Any) -> HistorySegment:
    return HistorySegment(
        address=_whole(row[0]),
        size_bytes=_whole(row[1]),
        is_small=bool(row[2]),
        is_expandable=bool(row[3]),
        blocks=tuple(
            HistoryBlock(address=_whole(one[0]), size_bytes=_whole(one[1]), is_used=bool(one[2]))
            for one in _rows(row[4], _MOST_BLOCKS)
        ),
    )


def _rows(found: Any, most: int) -> Sequence[Any]:
    if not isinstance(found, list) or len(found) > most:
        raise ValueError(f"not a list of at most {most:,}")
    return cast("Sequence[Any]", found)


def _whole(found: Any) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < _LARGEST:
        raise ValueError(f"not a size or an address: {found!r}"[:80])
    return found
