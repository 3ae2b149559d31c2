"""``vramplan compare --events``: a run's requests to the allocator beside its tape's.

No GPU made these events: they are the tape's own, run through the allocator model, and then bent.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vramplan.ask.library import open_target
from vramplan.compare.comparison import compare_run
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.measurement.history import Action, History, HistorySegment, encode_history
from vramplan.report.comparison_serial import comparison_result
from vramplan.report.serial import to_json

_PATH = Path(__file__).parents[1] / "synthetic_runs.py"
_SPEC = importlib.util.spec_from_file_location("synthetic_runs", _PATH)
synthetic = sys.modules.setdefault("synthetic_runs", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(synthetic)

MIB = 1 << 20
SCRATCH = 7 * MIB + 512

Bend = Callable[[History], History]


@pytest.fixture
def a_file(tmp_path):
    """Write a run of sd15 and, beside it, the events of a run whose workspaces are 7 MiB each."""

    def write(
        bend: Bend = lambda history: history, *, is_cold: bool = False, **changes: object
    ) -> Path:
        planned = synthetic.an_estimate(steps=2)
        pipeline = of_torch(open_target("sd15").pipeline)
        tape = open_tape(find_tape(pipeline))
        conditions = conditions_at(pipeline, planned.settings, "8.6", tape)
        theirs = replace(conditions, workspace_bytes=lambda *_: SCRATCH)
        name = "run.history.json.gz"
        events = synthetic.a_history(tape, theirs, is_cold=is_cold)
        (tmp_path / name).write_bytes(encode_history(bend(events)))
        run = replace(synthetic.a_run(planned), **{"history": name, **changes})
        path = tmp_path / "run.json"
        result = comparison_result(compare_run(planned, run), None)
        path.write_text(to_json("profile", result), encoding="utf-8")
        return path

    return write


def test_requests_are_the_tapes_and_workspaces_are_not(run, a_file, validate) -> None:
    result = run("compare", a_file(), "--events", "--json")
    assert (result.code, result.err) == (0, "")
    validate(result.json)
    events = result.json["result"]["events"]
    places = {(one["phase"], one["component"]): one for one in events["places"]}
    unet = places["denoise", "unet"]
    assert unet["matched"] == unet["planned"] > 2000
    assert unet["tape_only"]["count"] == 0
    assert unet["in_order"]
    extra = unet["measured_only"]
    assert extra["sizes"] == [{"size_bytes": SCRATCH, "count": extra["count"]}]
    assert extra["count"] == unet["measured"] - unet["matched"]
    assert {one["only"] for one in unet["first_differences"]} == {"measured"}
    assert unet["planned_workspace"]["count"] == extra["count"], "one for each convolution"
    text = places["encode_prompt", "text_encoder"]
    assert text["measured"] == text["planned"] == text["matched"] > 500
    assert text["first_differences"] == []
    allocator = events["allocator"]
    assert allocator["same_segments"]
    assert allocator["reserved_peak_bytes"] == allocator["measured_reserved_peak_bytes"] > 0
    assert allocator["first_difference"] is None


def test_the_table_names_sums_and_the_first_differences(run, a_file, tmp_path) -> None:
    path = a_file()
    shown = run("compare", path, "--events")
    assert "requests to the allocator: measured beside the tape's" in shown.out
    assert "the first 12 differences" in shown.out
    assert f"{SCRATCH:,}" in shown.out
    assert "takes no segment anew, as torch took none" in shown.out
    for name in ("run.md", "run.html"):
        assert run("compare", path, "--events", "-o", name).code == 0
        assert f"{SCRATCH:,}" in (tmp_path / name).read_text(encoding="utf-8")
    without = run("compare", path, "--json").json["result"]
    assert without["events"] is None


def test_the_model_is_fed_with_the_events_of_a_run_that_takes_segments(run, a_file) -> None:
    path = a_file(is_cold=True)
    allocator = run("compare", path, "--events", "--json").json["result"]["events"]["allocator"]
    assert allocator["same_segments"]
    assert allocator["segments"] > 10
    shown = run("compare", path, "--events").out
    assert f"takes torch's very segments, {allocator['segments']}" in shown


def test_where_the_model_parts_from_torch_is_told(run, a_file) -> None:
    """torch is made to take one segment of twice the size that the model takes."""

    def bend(history: History) -> History:
        events = list(history.events)
        at = next(n for n, one in enumerate(events) if one.action is Action.SEGMENT_ALLOC)
        events[at] = replace(events[at], size_bytes=2 * events[at].size_bytes)
        return replace(history, events=tuple(events))

    path = a_file(bend, is_cold=True)
    allocator = run("compare", path, "--events", "--json").json["result"]["events"]["allocator"]
    assert not allocator["same_segments"]
    assert "torch last took" in allocator["first_difference"]
    shown = run("compare", path, "--events").out
    assert "segments where torch took" in shown
    assert "first parts from torch at event" in shown


def test_a_request_that_torch_does_not_make_is_the_tapes_alone(run, a_file) -> None:
    """The first tensor of the UNet's first step is left out of what was measured."""
    left_out = []

    def bend(history: History) -> History:
        start = next(m.at for m in history.marks if (m.phase, m.component) == ("denoise", "unet"))
        numbered = list(enumerate(history.events))
        at, gone = next(one for one in numbered[start:] if one[1].action is Action.ALLOC)
        freed = next(
            n for n, e in numbered[at:]
            if e.action is Action.FREE_COMPLETED and e.address == gone.address
        )  # fmt: skip
        left_out.append((at, gone.size_bytes))
        # its events stay, as some that no one counts, so that numbers and marks stay what they are
        noise = replace(gone, action=Action.FREE_REQUESTED)
        events = list(history.events)
        events[at] = events[freed] = noise
        return replace(history, events=tuple(events))

    result = run("compare", a_file(bend), "--events", "--json")
    places = result.json["result"]["events"]["places"]
    unet = next(one for one in places if (one["phase"], one["component"]) == ("denoise", "unet"))
    ((at, size),) = left_out
    rounded = -(-size // 512) * 512
    assert unet["tape_only"] == {
        "count": 1,
        "bytes": rounded,
        "sizes": [{"size_bytes": rounded, "count": 1}],
    }
    first = unet["first_differences"][0]
    assert (first["only"], first["size_bytes"]) == ("tape", rounded)
    assert first["event"] > at, "before the event that came instead"


def test_a_run_without_events_says_how_to_get_some(run, a_file) -> None:
    result = run("compare", a_file(history=None), "--events")
    assert (result.code, result.out) == (3, "")
    assert "has no allocator events" in result.error
    assert "--events" in result.hint


@pytest.mark.parametrize(
    "name", ["../run.history.json.gz", "/etc/passwd", "other.json", "..", "sub/x.history.json.gz"]
)
def test_the_events_are_nowhere_but_beside_the_run(run, a_file, name) -> None:
    result = run("compare", a_file(history=name), "--events")
    assert result.code == 2
    assert "is no file beside it" in result.error


def test_events_that_are_damaged_or_gone_are_one_line(run, a_file, tmp_path) -> None:
    path = a_file()
    beside = tmp_path / "run.history.json.gz"
    beside.write_bytes(beside.read_bytes()[:-100])
    assert "damaged" in run("compare", path, "--events").error
    beside.unlink()
    gone = run("compare", path, "--events")
    assert "run.history.json.gz: cannot be read" in gone.error


def test_events_that_the_model_cannot_take_are_compared_all_the_same(run, a_file, validate) -> None:
    def bend(history: History) -> History:
        first: HistorySegment = history.segments[0]
        return replace(history, segments=(replace(first, is_expandable=True),))

    result = run("compare", a_file(bend), "--events", "--json")
    validate(result.json)
    events = result.json["result"]["events"]
    assert events["allocator"] is None
    assert "expandable" in events["note"]
    assert events["matched"] > 0


def test_a_card_seen_from_outside_has_no_events(run) -> None:
    result = run("compare", "sd15", "--pid", "5", "--events")
    assert result.code == 2
    assert "--events needs a run" in result.error


def test_a_run_that_others_find_by_its_target_brings_its_events(run, a_file, tmp_path) -> None:
    measured = tmp_path / "mine" / "measured" / "gpu"
    measured.mkdir(parents=True)
    path = a_file()
    for one in (path, path.with_name("run.history.json.gz")):
        one.rename(measured / one.name)
    result = run(
        "compare", "sd15", "--steps", "2", "--events", "--json", "--catalog", tmp_path / "mine"
    )
    assert result.code == 0, result.err
    assert json.loads(result.out)["result"]["events"]["matched"] > 0
