"""Allocator histories: torch's format, their files, and the model that is fed with them.

No GPU made these: the events are those of the step-by-step reference allocator.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramplan.ask.library import open_target
from vramplan.compare.alignment import Steps, align
from vramplan.compare.events import Asked, asked_in, compare_events
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.run.allocator_history import make_history
from vramplan.engines.torch.tape.history_replay import replay_history
from vramplan.engines.torch.tape.requests import requests_of
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.errors import MeasurementError
from vramplan.measurement.history import (
    Action,
    History,
    HistoryEvent,
    HistoryMark,
    encode_history,
    read_history,
)
from vramplan.settings import resolve_settings

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


@pytest.mark.parametrize(
    "data", [b"", b"x" * 100, gzip.compress(b"{", mtime=0)[:-4], gzip.compress(b"{", mtime=0)]
)
def test_damaged_files_are_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.history.json.gz"
    path.write_bytes(data)
    with pytest.raises(MeasurementError):
        read_history(path)


# -- beside the tape ----------------------------------------------------------------------------


def at(sizes) -> list[Asked]:
    """Return requests whose events are numbered by tens."""
    return [Asked(10 * number, size) for number, size in enumerate(sizes)]


def test_a_workspace_that_the_tape_does_not_have_is_found() -> None:
    planned = {("decode", "vae"): [512, 1024, 2048, 1024]}
    measured = {("decode", "vae"): at([500, 1024, 9 * MIB, 2048, 1024, 9 * MIB])}
    (row,) = compare_events(measured, planned, {("decode", "vae"): [8 * MIB]})
    assert (row.measured, row.planned, row.matched) == (6, 4, 4)
    assert row.is_in_order
    assert [(one.size_bytes, one.count) for one in row.extra] == [(9 * MIB, 2)]
    assert row.missing == ()
    assert [(one.number, one.is_measured, one.size_bytes) for one in row.partings] == [
        (20, True, 9 * MIB),
        (50, True, 9 * MIB),
    ]
    assert [one.bytes for one in row.scratch] == [8 * MIB]


def test_what_the_tape_alone_has_stands_before_the_event_that_came_instead() -> None:
    (row,) = compare_events({("a", "b"): at([512, 2048, 1024])}, {("a", "b"): [512, 4096, 1024]})
    assert [(one.number, one.is_measured, one.size_bytes) for one in row.partings] == [
        (10, True, 2048),
        (20, False, 4096),
    ]
    assert (row.matched, row.is_in_order) == (2, True)
    (tail,) = compare_events({("a", "b"): at([512])}, {("a", "b"): [512, 4096]})
    assert [(one.number, one.size_bytes) for one in tail.partings] == [(1, 4096)]


def test_the_same_requests_in_another_order_are_told() -> None:
    (row,) = compare_events({("a", "b"): at([512, 1024])}, {("a", "b"): [1024, 512]})
    assert row.matched == 2
    assert not row.is_in_order


def test_places_that_one_side_has_alone_are_rows() -> None:
    rows = compare_events({("a", "b"): at([512])}, {("a", "c"): [512]})
    assert [(row.component, row.measured, row.planned) for row in rows] == [
        ("b", 1, 0),
        ("c", 0, 1),
    ]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 5000)), st.lists(st.integers(1, 5000)))
def test_what_is_on_either_side_is_matched_extra_or_missing(ours, theirs) -> None:
    if not ours and not theirs:
        return
    (row,) = compare_events({("a", "b"): at(ours)}, {("a", "b"): theirs})
    assert row.matched + sum(one.count for one in row.extra) == len(ours)
    assert row.matched + sum(one.count for one in row.missing) == len(theirs)


SIZES = st.lists(st.integers(1, 4))


@settings(max_examples=200)
@given(SIZES, SIZES)
def test_what_is_not_apart_is_the_same_list_on_both_sides(ours, theirs) -> None:
    """Taking out what stands apart leaves one and the same list, whatever the two were."""
    apart = list(align(ours, theirs))
    mine = list(ours)
    for place in sorted((one.at for one in apart if one.is_ours), reverse=True):
        del mine[place]
    yours = Counter(one.size_bytes for one in apart if not one.is_ours)
    assert Counter(theirs) - yours == Counter(mine)
    assert len(theirs) - yours.total() == len(mine)
    both, left = iter(theirs), mine
    assert all(any(size == one for one in both) for size in left), "in their order, too"


@given(SIZES.filter(bool), st.integers(0, 10**6))
def test_one_request_more_is_found_as_one(sizes, place) -> None:
    more = list(sizes)
    more.insert(place % (len(sizes) + 1), 9)
    assert [(one.is_ours, one.size_bytes) for one in align(more, sizes)] == [(True, 9)]
    assert [(one.is_ours, one.size_bytes) for one in align(sizes, more)] == [(False, 9)]


@settings(max_examples=200)
@given(SIZES, SIZES)
def test_no_fewer_can_stand_apart(ours, theirs) -> None:
    """Held against the plain table of the longest common subsequence."""
    longest = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i, mine in enumerate(ours, 1):
        for j, yours in enumerate(theirs, 1):
            longest[i][j] = (
                longest[i - 1][j - 1] + 1
                if mine == yours
                else max(longest[i - 1][j], longest[i][j - 1])
            )
    assert len(list(align(ours, theirs))) == len(ours) + len(theirs) - 2 * longest[-1][-1]


def test_lists_that_differ_everywhere_do_not_take_long(calls) -> None:
    chance = random.Random(1)  # noqa: S311  # lists that can be made again
    ours, theirs = ([chance.randrange(8) for _ in range(20_000)] for _ in range(2))
    steps = Steps(500_000)
    with calls:
        apart = list(align(ours, theirs, steps))
    mine = sum(one.is_ours for one in apart)
    assert len(ours) - mine == len(theirs) - (len(apart) - mine) > 0
    assert -40_000 < steps.left <= 0, "it does not stop far behind its last step"
    assert calls.made < 3_000_000, calls.made


def test_lists_that_are_longer_than_one_search_are_aligned_to_their_ends() -> None:
    theirs = [512 * (n % 7) for n in range(5_000)]
    ours = [size for size in theirs for size in (size, 512)]  # 5,000 places apart
    apart = list(align(ours, theirs))
    assert len(apart) == 5_000
    assert all(one.is_ours for one in apart)


def test_requests_belong_to_the_mark_before_them() -> None:
    events = tuple(HistoryEvent(Action.ALLOC, 512 * (n + 1), 0) for n in range(4))
    marks = (
        HistoryMark(3, "decode", "vae"),  # a stranger's may come in any order
        HistoryMark(1, "denoise", "unet"),
        HistoryMark(1, "denoise", "pipeline"),
    )
    found = asked_in(History(segments=(), events=events, marks=marks))
    assert found == {
        ("denoise", "pipeline"): [Asked(0, 512), Asked(1, 1024), Asked(2, 1536)],
        ("decode", "vae"): [Asked(3, 2048)],
    }
    assert asked_in(History(segments=(), events=events)).keys() == {("", "pipeline")}
    late = (HistoryMark(2, "denoise", "unet"), HistoryMark(3, "decode", "vae"))
    before = asked_in(History(segments=(), events=events, marks=late))
    assert before["denoise", "pipeline"] == [Asked(0, 512), Asked(1, 1024)]


def test_a_tapes_requests_are_by_place() -> None:
    pipeline = of_torch(open_target("denoising-ae").pipeline)
    chosen = resolve_settings(pipeline, dict(pipeline.defaults))
    tape = open_tape(find_tape(pipeline))
    found = requests_of(tape, conditions_at(pipeline, chosen, "8.6", tape))
    assert ("encode_image", "encoder") in found.tensors
    # the first layer's result: 16 images, 64 channels, 128 x 128, fp32
    assert 16 * 64 * 128 * 128 * 4 in found.tensors["encode_image", "encoder"]
    scratch = found.scratch["encode_image", "encoder"]
    assert scratch, "its convolutions are taken to need workspaces"
    assert not set(scratch) & set(found.tensors["encode_image", "encoder"])
