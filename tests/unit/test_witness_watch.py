"""What is made of what a program's processes tell: places, peaks, outcomes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vramplan.engines.torch.witness import code_places, pretended_run, program_record
from vramplan.engines.torch.witness.card_state import PretendedCard, write_state
from vramplan.measurement.tried import TrialOutcome
from vramplan.report.trials import remarks, sentence

MIB = 1 << 20
LIBRARY = "/usr/lib/python3/site-packages/torch/nn/modules/conv.py"
ANOTHER = "/usr/lib/python3/site-packages/diffusers/models/unet.py"


# -------------------------------------------------------------------------------------- places
def test_own_code_is_what_nobody_installed() -> None:
    assert code_places.is_own("/home/me/script.py")
    assert code_places.is_own("<stdin>")
    assert not code_places.is_own(LIBRARY)
    assert not code_places.is_own(pytest.__file__)
    assert not code_places.is_own(sys.modules["os"].__file__)
    assert not code_places.is_own("<frozen importlib._bootstrap>")
    assert not code_places.is_own(code_places.__file__)


def test_place_is_the_innermost_of_the_users_then_the_innermost_outside_of_torch() -> None:
    own = ("/home/me/a.py", 3, "main")
    outer = ("/home/me/b.py", 9, "<module>")
    assert code_places.own_place([(LIBRARY, 1, "f"), own, outer]) == own
    assert code_places.own_place([(LIBRARY, 1, "f"), (ANOTHER, 2, "g")]) == (ANOTHER, 2, "g")
    assert code_places.own_place([(LIBRARY, 1, "f")]) is None


def test_modules_are_named_from_the_outside_in() -> None:
    places = [
        (LIBRARY, 1, "Conv2d._conv_forward"),
        (LIBRARY, 2, "Conv2d.forward"),
        (LIBRARY, 3, "Module._call_impl"),
        (ANOTHER, 4, "ResnetBlock2D.forward"),
        (ANOTHER, 5, "UNet2DConditionModel.forward"),
        ("/home/me/a.py", 6, "main"),
    ]
    found = code_places.modules_inside(places)
    assert found == ["UNet2DConditionModel", "ResnetBlock2D", "Conv2d"]


# --------------------------------------------------------------------------------------- peaks
def block(address: int, size: int, line: int) -> dict:
    return {
        "address": address, "size": size, "state": "active_allocated", "frames": frames(line),
    }  # fmt: skip


def frames(line: int) -> list[dict]:
    return [
        {"filename": LIBRARY, "line": 1, "name": "f"},
        {"filename": "/home/me/a.py", "line": line, "name": "main"},
    ]


def event(action: str, address: int, size: int, line: int = 0) -> dict:
    found = {"action": action, "addr": address, "size": size}
    return found | ({"frames": frames(line)} if action == "alloc" else {})


def snapshot(blocks: list[dict], trace: list[dict]) -> dict:
    free = {"address": 900, "size": 512, "state": "inactive"}
    segments = [{"device": 0, "blocks": [*blocks, free]}, {"device": 1, "blocks": [block(1, 2, 3)]}]
    return {"segments": segments, "device_traces": [trace, []]}


def test_peak_is_found_behind_the_end_of_a_trace() -> None:
    held_memory = pytest.importorskip("vramplan.engines.torch.witness.held_memory")
    trace = [
        event("free_requested", 5, 512),  # of before the trace began
        event("alloc", 1, 1024, 10),
        event("alloc", 2, 2000, 11),  # torch rounds it up to 2,048
        event("free_completed", 9, 77),
        event("free_requested", 2, 2000),
        event("alloc", 2, 512, 12),
    ]
    found = snapshot([block(1, 1024, 10), block(2, 512, 12)], trace)
    most, blocks = held_memory.blocks_at_peak(found, 0)
    assert most == 1024 + 2048
    assert {key: size for key, (size, _) in blocks.items()} == {1: 1024, 2: 2048}
    lines = held_memory.holders(blocks)["lines"]
    assert [(one["line"], one["bytes"]) for one in lines] == [(11, 2048), (10, 1024)]


def test_block_whose_beginning_was_not_kept_says_so() -> None:
    held_memory = pytest.importorskip("vramplan.engines.torch.witness.held_memory")
    trace = [event("free_requested", 7, 4 * MIB), event("alloc", 1, 512, 10)]
    most, blocks = held_memory.blocks_at_peak(snapshot([block(1, 512, 10)], trace), 0)
    assert most == 4 * MIB
    (row,) = held_memory.holders(blocks)["lines"]
    assert (row["file"], row["function"], row["bytes"]) == (None, "not kept", 4 * MIB)


def test_what_is_held_now_is_the_peak_where_nothing_was_more() -> None:
    held_memory = pytest.importorskip("vramplan.engines.torch.witness.held_memory")
    most, blocks = held_memory.blocks_at_peak(snapshot([block(1, 512, 10)], []), 0)
    assert (most, list(blocks)) == (512, [1])


# ------------------------------------------------------------------------------------ outcomes
def failure(asked: int, *, is_raised: bool = True) -> dict:
    return {
        "device": 0, "asked_bytes": asked, "allocated_bytes": 5 * MIB, "reserved_bytes": 6 * MIB,
        "free_bytes": 0, "where": {"file": "a.py", "line": 3, "function": "main"},
        "inside": ["UNet", "Conv2d"], "is_raised": is_raised, "modules": [], "lines": [],
    }  # fmt: skip


def told(**more: object) -> dict:
    peaks = [{"device": 0, "allocated": 5 * MIB, "reserved": 6 * MIB, "retries": 2}]
    reads = {"count": 0, "places": [], "not_computed": {}}
    return {
        "torch": "2.14.1", "cudnn": 92400, "peaks": peaks, "held": [], "failures": [], "errors": 0,
        "uncaught": None, "value_reads": reads, "notes": [], **more,
    }  # fmt: skip


@pytest.fixture
def make(tmp_path: Path):
    from vramplan.catalog import load_catalog

    card = load_catalog().cards["rtx-3060-12gb"]

    def trial(status: int, *records: dict):
        state = tmp_path / "cards"
        pretended = PretendedCard(
            name="x", compute_capability=(8, 6), multiprocessors=28, total_bytes=1 << 30
        )
        write_state(state, [pretended])
        return pretended_run._trial(card, status, state, list(records))

    return trial


def test_program_that_an_error_ends_is_out_of_memory(make) -> None:
    ended = told(errors=1, uncaught="OutOfMemoryError", failures=[failure(7 * MIB)])
    one = make(1, ended)
    assert one.outcome is TrialOutcome.OUT_OF_MEMORY
    assert sentence(one) == (
        "out of memory in a.py:3 (main), asking for 7 MiB with 5 MiB allocated and "
        "0 MiB free (inside UNet > Conv2d)"
    )
    assert (one.retries, one.allocated_peak_bytes) == (2, 5 * MIB)
    assert dict(one.versions) == {"torch": "2.14.1", "cudnn": "92400"}


def test_program_that_fails_says_where_and_with_which_words(make) -> None:
    where = {"file": "a.py", "line": 3, "function": "main"}
    one = make(1, told(uncaught="KeyError", end={"where": where, "saying": "'unet'"}))
    assert sentence(one) == "it failed by itself: status 1, KeyError in a.py:3 (main): 'unet'"
    assert sentence(make(-6)) == "it failed by itself: killed by SIGABRT"
    assert sentence(make(-99)) == "it failed by itself: killed by signal 99"


def test_program_that_goes_on_completes_after_so_many_errors(make) -> None:
    from dataclasses import replace

    one = make(0, told(errors=2, failures=[failure(1), failure(2)]))
    assert one.outcome is TrialOutcome.COMPLETES
    assert sentence(replace(one, device_peak_bytes=MIB)) == (
        "completes, after 2 out-of-memory errors"
    )


def test_plan_that_cudnn_replaced_by_its_next_is_no_error(make) -> None:
    one = make(0, told(failures=[failure(1, is_raised=False)]))
    assert (one.errors, one.failed) == (0, None)


@pytest.mark.parametrize(
    ("status", "records", "outcome"),
    [
        (1, [told()], TrialOutcome.FAILED),
        (1, [told(errors=1, failures=[failure(1)])], TrialOutcome.OUT_OF_MEMORY),  # said and left
        (1, [told(errors=1, uncaught="KeyError")], TrialOutcome.FAILED),
        (1, [told(uncaught="KeyError"), told(uncaught="OutOfMemoryError")],
         TrialOutcome.OUT_OF_MEMORY),
        (0, [told(uncaught="OutOfMemoryError")], TrialOutcome.COMPLETES),  # a child's, handled
        (-9, [], TrialOutcome.FAILED),
    ],
)  # fmt: skip
def test_how_a_program_ended(status: int, records: list, outcome: TrialOutcome, make) -> None:
    assert make(status, *records).outcome is outcome


def test_last_error_is_that_of_the_process_that_ended_by_it(make) -> None:
    main = told(errors=1, uncaught="OutOfMemoryError", failures=[failure(7)])
    other = told(errors=1, failures=[failure(9)])
    assert make(1, main, other).failed.asked_bytes == 7


def test_reads_of_what_nobody_computed_are_told(make) -> None:
    places = [{"file": "a.py", "line": 3, "function": "main", "count": 4}]
    one = make(0, told(value_reads={"count": 4, "places": places, "not_computed": {}}))
    (said,) = remarks(one)
    assert "4 times (a.py:3 (main))" in said


def test_broken_records_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "process-1.json").write_text('{"torch"')
    (tmp_path / "process-2.json").write_text("[]")
    (tmp_path / "process-3.json").write_text('{"torch": "2"}')
    (tmp_path / "other.json").write_text("{}")
    assert program_record.read_records(tmp_path) == [{"torch": "2"}]


def test_card_that_fits_only_with_a_small_context_is_tight(make) -> None:
    from dataclasses import replace

    one = make(0, told())
    _, taken, high = one.context_bytes
    assert high > taken
    full = replace(one, device_peak_bytes=one.total_bytes - (high - taken) + 1)
    assert full.is_tight
    assert "but only just" in sentence(full)
    assert not replace(one, device_peak_bytes=one.total_bytes - (high - taken)).is_tight
