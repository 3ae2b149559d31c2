"""Allocator histories: torch's format, their files, and the model that is fed with them.

No GPU made these: the events are those of the step-by-step reference allocator.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramplan.catalog import load_catalog
from vramplan.compare.events import compare_events
from vramplan.errors import MeasurementError
from vramplan.estimate.replayed import conditions_at
from vramplan.estimate.torch_run import find_tape, open_tape
from vramplan.measurement.history import (
    Action,
    History,
    HistoryEvent,
    HistoryMark,
    encode_history,
    read_history,
)
from vramplan.runner.history import make_history
from vramplan.settings import resolve_settings
from vramplan.tape.history_replay import replay_history
from vramplan.tape.requests import requests_of

_PATH = Path(__file__).parents[1] / "reference_allocator.py"
_SPEC = importlib.util.spec_from_file_location("reference_allocator", _PATH)
reference = sys.modules.setdefault("reference_allocator", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(reference)

MIB = 1 << 20
BASE = 0x7F0000000000


class Witness:
    """The reference allocator, whose doings are written down as torch writes them."""

    def __init__(self) -> None:
        self.allocator = reference.ReferenceAllocator()
        self.trace: list[dict] = []
        self.cells: list = []
        self.time = 0

    def event(self, action: str, address: int, size: int) -> None:
        self.time += 1
        entry = {"action": action, "addr": BASE + address, "size": size, "stream": 0}
        self.trace.append(entry | {"time_us": self.time})

    def malloc(self, size: int) -> None:
        known = list(self.allocator.segments)
        cell = self.allocator.malloc(size)
        for segment in self.allocator.segments:
            if segment not in known:
                total = sum(one.size for one in segment.cells)
                self.event("segment_alloc", segment.cells[0].address, total)
        self.event("alloc", cell.address, size)
        self.cells.append((cell, size))

    def free(self, number: int) -> None:
        if self.cells:
            cell, size = self.cells.pop(number % len(self.cells))
            self.event("free_requested", cell.address, size)
            self.event("free_completed", cell.address, size)
            self.allocator.free(cell)

    def empty_cache(self) -> None:
        known = [(s, s.cells[0].address, sum(c.size for c in s.cells)) for s in
                 self.allocator.segments]  # fmt: skip
        self.allocator.empty_cache()
        for segment, address, size in known:
            if segment not in self.allocator.segments:
                self.event("segment_free", address, size)

    def segments(self) -> list[dict]:
        return [
            {
                "address": BASE + segment.cells[0].address,
                "total_size": sum(cell.size for cell in segment.cells),
                "segment_type": "small" if segment.small else "large",
                "blocks": [
                    {
                        "size": cell.size,
                        "state": "active_allocated" if cell.state == "used" else "inactive",
                    }
                    for cell in segment.cells
                ],
            }
            for segment in sorted(self.allocator.segments, key=lambda one: one.cells[0].address)
        ]


def a_history(seed: int, steps: int = 400, *, warm_up: int = 150) -> History:
    """Return a history that begins in the middle of a run."""
    chance = random.Random(seed)  # noqa: S311  # a run that can be made again
    witness, segments = Witness(), []
    for step in range(warm_up + steps):
        if step == warm_up:
            segments = witness.segments()
            witness.trace.clear()
        kind = chance.random()
        if kind < 0.55:
            size = chance.choice([200, 5000, 700_000, 3 * MIB, 9 * MIB, 12 * MIB, 33 * MIB])
            witness.malloc(size + chance.randrange(1000))
        elif kind < 0.98:
            witness.free(chance.randrange(1000))
        else:
            witness.empty_cache()
    return make_history(segments, witness.trace)


@pytest.mark.parametrize("seed", range(12))
def test_the_model_takes_the_same_segments_at_the_same_moments(seed: int) -> None:
    replayed = replay_history(a_history(seed))
    assert replayed.first_difference is None
    assert replayed.is_same
    assert replayed.segments_bytes, "a history without a new segment shows nothing"
    assert replayed.reserved_peak_bytes == replayed.measured_reserved_peak_bytes


def test_without_the_segments_as_they_stood_the_model_takes_others() -> None:
    """The start matters: this is what the restored segments and addresses are for."""
    whole = a_history(3)
    events, known = [], set()
    for event in whole.events:  # what was allocated before is unknown now
        if event.action in (Action.FREE_COMPLETED, Action.SEGMENT_FREE):
            if event.address not in known:
                continue
            known.discard(event.address)
        if event.action is Action.ALLOC:
            if event.address in known:
                continue
            known.add(event.address)
        events.append(event)
    replayed = replay_history(History(segments=(), events=tuple(events)))
    assert not replayed.is_same
    assert replayed.first_difference is not None


def test_a_history_that_does_not_hold_together_is_refused() -> None:
    freed = HistoryEvent(Action.FREE_COMPLETED, 512, 0)
    with pytest.raises(MeasurementError, match="event 0 frees what was not allocated"):
        replay_history(History(segments=(), events=(freed,)))
    twice = (HistoryEvent(Action.ALLOC, 512, 0),) * 2
    with pytest.raises(MeasurementError, match="event 1 allocates what is in use"):
        replay_history(History(segments=(), events=twice))
    mapped = HistoryEvent(Action.SEGMENT_MAP, 512, 0)
    with pytest.raises(MeasurementError, match="expandable"):
        replay_history(History(segments=(), events=(mapped,)))


# -- files --------------------------------------------------------------------------------------


def test_a_history_is_the_same_after_it_was_a_file(tmp_path: Path) -> None:
    history = a_history(1)
    data = encode_history(history)
    assert data == encode_history(history), "the same history, the same bytes"
    path = tmp_path / "x.history.json.gz"
    path.write_bytes(data)
    assert read_history(path) == history


def test_marks_fall_where_the_events_of_their_time_begin() -> None:
    trace = [
        {"action": "alloc", "addr": BASE + n * 512, "size": 1, "time_us": 10 * n} for n in range(5)
    ]
    history = make_history([], trace, [(15, "denoise", "unet"), (0, "denoise", "pipeline")])
    assert history.marks == (
        HistoryMark(0, "denoise", "pipeline"),
        HistoryMark(2, "denoise", "unet"),
    )
    assert history.events[1].address == 512


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"actions": ["alloc"], "segments": [], "events": [[0, -1, 0]]},
        {"actions": ["alloc"], "segments": [], "events": [[0, True, 0]]},
        {"actions": ["alloc"], "segments": [], "events": [[7, 1, 0]]},
        {"actions": ["burn"], "segments": [], "events": []},
        {"actions": ["alloc"], "segments": [[1]], "events": []},
        {"actions": ["alloc"], "segments": {}, "events": []},
        [],
        "text",
    ],
)
def test_other_data_is_one_line(tmp_path: Path, data: object) -> None:
    path = tmp_path / "x.history.json.gz"
    path.write_bytes(gzip.compress(json.dumps(data).encode()))
    with pytest.raises(MeasurementError, match="not an allocator's history") as raised:
        read_history(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("data", [b"", b"x" * 100, gzip.compress(b"{")[:-4], gzip.compress(b"{")])
def test_damaged_files_are_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.history.json.gz"
    path.write_bytes(data)
    with pytest.raises(MeasurementError):
        read_history(path)


# -- beside the tape ----------------------------------------------------------------------------


def test_a_workspace_that_the_tape_does_not_have_is_found() -> None:
    planned = {("decode", "vae"): [512, 1024, 2048, 1024]}
    measured = {("decode", "vae"): [500, 1024, 9 * MIB, 2048, 1024, 9 * MIB]}
    (row,) = compare_events(measured, planned)
    assert (row.measured, row.planned, row.matched) == (6, 4, 4)
    assert row.is_in_order
    assert [(one.size_bytes, one.count) for one in row.extra] == [(9 * MIB, 2)]
    assert row.missing == ()


def test_the_same_requests_in_another_order_are_told() -> None:
    (row,) = compare_events({("a", "b"): [512, 1024]}, {("a", "b"): [1024, 512]})
    assert row.matched == 2
    assert not row.is_in_order


def test_places_that_one_side_has_alone_are_rows() -> None:
    rows = compare_events({("a", "b"): [512]}, {("a", "c"): [512]})
    assert [(row.component, row.measured, row.planned) for row in rows] == [
        ("b", 1, 0),
        ("c", 0, 1),
    ]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 5000)), st.lists(st.integers(1, 5000)))
def test_what_is_on_either_side_is_matched_extra_or_missing(ours, theirs) -> None:
    (row,) = compare_events({("a", "b"): ours}, {("a", "b"): theirs})
    assert row.matched + sum(one.count for one in row.extra) == len(ours)
    assert row.matched + sum(one.count for one in row.missing) == len(theirs)


def test_a_tapes_requests_are_by_place() -> None:
    catalog = load_catalog([])
    pipeline = catalog.pipeline("denoising-ae")
    chosen = resolve_settings(pipeline, dict(pipeline.defaults))
    tape = open_tape(find_tape(pipeline, catalog.folders))
    found = requests_of(tape, conditions_at(pipeline, chosen, "8.6", tape))
    assert ("encode_image", "encoder") in found
    # the first layer's result: 16 images, 64 channels, 128 x 128, fp32
    assert 16 * 64 * 128 * 128 * 4 in found["encode_image", "encoder"]
