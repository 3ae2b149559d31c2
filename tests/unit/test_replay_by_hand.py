"""The interpreter on tapes small enough to work out by hand. 1 MiB and less is the small pool."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from vramplan.engines.torch.tape.format import Tape, parse_tape, read_tape, write_tape
from vramplan.engines.torch.tape.plans import ComparedModel
from vramplan.engines.torch.tape.rehearsal import rehearse_in_python
from vramplan.engines.torch.tape.rehearse import rehearse
from vramplan.engines.torch.tape.rehearsed import Refused
from vramplan.engines.torch.tape.replay import Conditions, ReplayOutOfMemory, replay
from vramplan.engines.torch.tape.requests import requests_of
from vramplan.errors import TapeError
from vramplan.units import MIB

WEIGHTS = 32 * MIB


def _variant(
    code: list[object], sizes: list[str], outputs: list[int], **more: Any
) -> dict[str, Any]:
    plain = {"when": {}, "if": None, "indices": [], "derived": {}}
    return {**plain, "sizes": sizes, "outputs": outputs, "code": code, **more}


def _raw(main: dict[str, Any], **routines: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "pipeline": "by-hand",
        "recorded_with": {"torch": "2.13.0"},
        "dims": {"n": "batch", "steps": "steps"},
        "least": {},
        "dtype_facts": {},
        "entry": "main",
        "components": {
            "unet": {"parameters": 16 * MIB, "modules": [[16 * MIB]], "parts": {}},
            "vae": {"parameters": 16 * MIB, "modules": [[16 * MIB]], "parts": {}},
        },
        "routines": {"main": [main], **{name: [v] for name, v in routines.items()}},
    }


def _tape(main: dict[str, Any], **routines: dict[str, Any]) -> Tape:
    return parse_tape(write_tape(_raw(main, **routines)), "by-hand.json")


def _conditions(**more: Any) -> Conditions:
    plain = Conditions(
        numbers={"batch": 2, "steps": 5},
        facts={},
        element_bytes=2,
        workspace_bytes=lambda _, operands: sum(operands),
        cublas_bytes=8 * MIB,
    )
    return replace(plain, **more)


M16 = f"n*{8 * MIB}"  # 16 MiB at batch 2


def test_the_peak_is_what_lives_at_once_not_the_sum() -> None:
    tape = _tape(_variant([["p", "denoise"], 0, 0, -1, 0, -2, -3], [M16], []))
    trace = replay(tape, _conditions())
    assert trace.allocated_peak_bytes == 2 * WEIGHTS + 2 * 16 * MIB
    assert trace.reserved_peak_bytes == 2 * WEIGHTS + 2 * 16 * MIB


def test_a_loop_frees_what_the_iteration_before_made() -> None:
    body = [0, ["f", 1, [[0, ["back", 1]]], 0]]
    main = _variant(
        [["p", "denoise"], ["l", "step", "steps", [[0]], body, []], ["f", 0, [[0, -1]], 0]],
        [M16],
        [],
        indices=["step"],
    )
    trace = replay(_tape(main), _conditions())
    assert trace.allocated_peak_bytes == 2 * WEIGHTS + 2 * 16 * MIB


def test_what_a_loop_keeps_grows_with_it() -> None:
    main = _variant(
        [["p", "decode_image"], ["l", "tile", "steps", [], [0], []], ["f", 0, [[0, "all"]], 0]],
        [M16],
        [],
        indices=["tile"],
    )
    trace = replay(_tape(main), _conditions())
    assert trace.allocated_peak_bytes == 2 * WEIGHTS + 5 * 16 * MIB


def test_the_last_iterations_of_a_loop_are_numbered_on() -> None:
    code = [["p", "denoise"], ["l", "step", "steps", [[0, -1]], [0, -1], [[0, -1]]]]
    main = _variant(code, [f"step*{8 * MIB}"], [], indices=["step"])
    trace = replay(_tape(main), _conditions())
    assert trace.allocated_peak_bytes == 2 * WEIGHTS + 4 * 8 * MIB


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 0), (0, 2), (2, 1)])
def test_a_loop_has_its_first_and_last_iterations_and_those_between(before, after) -> None:
    loop: list[object] = ["l", "step", "steps", [[0]] * before, [0], [[0]] * after]
    main = _variant([["p", "denoise"], loop, ["f", 0, [[0, "all"]], 0]], [M16], [])
    trace = replay(_tape(main), _conditions(numbers={"batch": 2, "steps": 7}))
    assert trace.allocated_peak_bytes == 2 * WEIGHTS + 7 * 16 * MIB


@pytest.mark.parametrize("steps", [5, 40])
def test_a_loop_that_takes_more_each_time_is_not_cut_short(steps: int) -> None:
    code: list[object] = [["p", "denoise"], ["l", "step", "steps", [], [0], []]]
    main = _variant([*code, ["f", 0, [[0, "all"]], 0]], [M16], [])
    trace = replay(_tape(main), _conditions(numbers={"batch": 2, "steps": steps}))
    assert trace.allocated_peak_bytes == 2 * WEIGHTS + steps * 16 * MIB


def test_a_loop_that_takes_the_same_each_time_is_cut_short(calls: Any) -> None:
    code: list[object] = [["p", "denoise"], ["l", "step", "steps", [], [0, -1], []]]
    tape = _tape(_variant(code, [M16], []))
    made = []
    for steps in (20, 2000):
        with calls:
            replay(tape, _conditions(numbers={"batch": 2, "steps": steps}))
        made.append(calls.made)
    assert made[1] < 2 * made[0]


def test_a_call_has_dimensions_of_its_own_and_hands_its_outputs_on() -> None:
    main = _variant([["p", "denoise"], ["c", "unet", {"n": 0}, 1], -1], ["3*n"], [])
    unet = _variant([0, 1, -1], [f"n*{4 * MIB}", f"n*{2 * MIB}"], [1])
    trace = replay(_tape(main, unet=unet), _conditions())
    assert trace.allocated_peak_bytes == 2 * WEIGHTS + 24 * MIB + 12 * MIB
    peaks = {mark.component for mark in trace.marks}
    assert "unet" in peaks


def test_scratch_is_given_back() -> None:
    main = _variant([["p", "decode_image"], 0, ["w", "conv", 0, 0], -1], [M16], [])
    tape = _tape(main)
    assert replay(tape, _conditions()).allocated_peak_bytes == 2 * WEIGHTS + 48 * MIB
    by_kind = {"conv": 1 * MIB, "attention": 2 * MIB}
    other = _conditions(workspace_bytes=lambda kind, _: by_kind[kind])
    assert replay(tape, other).allocated_peak_bytes == 2 * WEIGHTS + 17 * MIB
    limit = 2 * WEIGHTS + 16 * MIB
    with pytest.raises(ReplayOutOfMemory) as failure:
        replay(tape, _conditions(), limit_bytes=limit)
    assert failure.value.phase == "decode_image"


class Plans(ComparedModel):
    """Three plans of a library for everything: 40 MiB, 12 MiB, none."""

    def __call__(self, _kind: str, _operands: tuple[int, ...]) -> int:
        return 40 * MIB

    def plans(self, _kind: str, _operands: tuple[int, ...]) -> tuple[int, ...]:
        return (40 * MIB, 12 * MIB, 0)


def _attempts(limit_mib: int, *, sides: int = 1) -> list[bool]:
    """Return whether a run of four convolutions beside 16 MiB completes, by what refusal does."""
    step = ["w", "conv", 0]
    code: list[object] = [["p", "decode_image"], 0, step, step, ["w", "conv", sides], step, -1]
    tape = _tape(_variant(code, [M16, f"n*{MIB}"], []))
    conditions = _conditions(workspace_bytes=Plans())
    both = rehearse(tape, conditions), rehearse_in_python(tape, conditions)
    found = [
        [run.failure(limit_mib * MIB, refused=refused) is None for refused in Refused]
        for run in both
    ]
    assert found[0] == found[1]
    return found[0]


def test_where_scratch_is_refused_the_next_plan_is_taken_and_kept_to() -> None:
    weights = 64  # in two segments of 32 MiB
    assert _attempts(weights + 16 + 40) == [True, True, True]
    assert _attempts(weights + 16 + 39) == [False, True, True]
    assert _attempts(weights + 16 + 12) == [False, True, True]
    assert _attempts(weights + 16) == [False, True, True]  # the last plan needs none
    assert _attempts(weights + 15) == [False, False, False]


class OnePlan(Plans):
    def plans(self, _kind: str, _operands: tuple[int, ...]) -> tuple[int, ...]:
        return (40 * MIB,)


def test_after_the_last_plan_that_is_known_a_run_may_be_taken_to_do_without() -> None:
    tape = _tape(_variant([["p", "decode_image"], 0, ["w", "conv", 0], -1], [M16], []))
    run = rehearse(tape, _conditions(workspace_bytes=OnePlan()))
    limit = 2 * WEIGHTS + 16 * MIB
    found = [run.failure(limit, refused=refused) is None for refused in Refused]
    assert found == [False, False, True]


def test_model_offload_holds_one_component_at_a_time() -> None:
    code: list[object] = [["p", "denoise"], ["c", "unet", {}, 0], ["c", "vae", {}, 0]]
    tape = _tape(_variant(code, [M16], []), unet=_variant([], [], []), vae=_variant([], [], []))
    assert replay(tape, _conditions()).allocated_peak_bytes == 2 * WEIGHTS
    assert replay(tape, _conditions(offload="model")).allocated_peak_bytes == WEIGHTS


def test_sequential_offload_holds_a_module_while_it_runs() -> None:
    code: list[object] = [["p", "denoise"], ["e", "unet", 0], 0, ["x", "unet", 0], -1]
    tape = _tape(_variant(code, [M16], []))
    trace = replay(tape, _conditions(offload="sequential"))
    assert trace.allocated_peak_bytes == WEIGHTS + 16 * MIB


def test_cublas_takes_its_workspace_once() -> None:
    tape = _tape(_variant([["p", "denoise"], ["g"], ["g"]], [M16], []))
    assert replay(tape, _conditions()).allocated_peak_bytes == 2 * WEIGHTS + 8 * MIB


def test_a_backward_pass_has_a_cublas_workspace_of_its_own() -> None:
    code: list[object] = [["p", "denoise"], ["g"], ["g", "autograd"], ["g"], ["g", "autograd"]]
    trace = replay(_tape(_variant(code, [M16], [])), _conditions())
    assert trace.allocated_peak_bytes == 2 * WEIGHTS + 16 * MIB


def test_torchs_own_convolution_multiplies_while_its_scratch_is_held() -> None:
    code: list[object] = [["w", "conv", 0], ["w", "dgrad", 0], ["w", "wgrad", 0], ["w", "sum", 0]]
    tape = _tape(_variant([["p", "train_step"], *code], [M16], []))
    assert replay(tape, _conditions()).allocated_peak_bytes == 2 * WEIGHTS + 16 * MIB
    for make in (rehearse, rehearse_in_python):
        run = make(tape, _conditions(has_own_convolutions=True))
        # the second workspace is autograd's, and the first is there still
        assert run.trace.allocated_peak_bytes == 2 * WEIGHTS + (8 + 16 + 8) * MIB
        assert run.trace.marks[-1].allocated_bytes == 2 * WEIGHTS + 16 * MIB
        # scratch, the workspace in a segment of 20 MiB; then the scratch again, and so on
        assert run.trace.reserved_peak_bytes == 2 * WEIGHTS + (16 + 20) * MIB


def _text(**changes: object) -> str:
    raw = _raw(_variant([["p", "denoise"], 0, -1], [M16], []))
    return json.dumps({**raw, **changes})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (_text(schema=99), "schema 99"),
        (_text()[:-40], "cut short"),
        ("[]", "not a tape"),
        (_text(entry="nowhere"), "entry"),
        (_text(dims={"n": "__import__('os')"}), "expression"),
        (_text(dims={"n": "9**9**9"}), "expression"),
        (_text(routines={"main": [_variant([7], [M16], [])]}), ""),
        (_text(routines={"main": [_variant([["c", "main", {}, 0]], [M16], [])]}), ""),
        (_text(components={"unet": {"parameters": "many", "modules": []}}), ""),
    ],
)
def test_a_damaged_tape_is_one_line(text: str, says: str) -> None:
    with pytest.raises(TapeError, match=r"x\.json") as failure:
        parse_tape(text, "x.json")
    assert says in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_missing_tape_says_how_to_record_it(tmp_path: Any) -> None:
    with pytest.raises(TapeError) as failure:
        read_tape(tmp_path / "none.json")
    assert failure.value.hint is not None
    assert "vramplan record" in failure.value.hint


@pytest.mark.parametrize("bound", [{"_MOST_STEPS": 5}, {"_MOST_SECONDS": -1.0}])
def test_a_run_of_too_many_steps_or_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch, bound: dict[str, float]
) -> None:
    body = [0, ["f", 1, [[0, ["back", 1]]], 0]]
    main = _variant([["l", "step", "steps", [[0]], body, []]], [M16], [], indices=["step"])
    for name, most in bound.items():
        monkeypatch.setattr(f"vramplan.engines.torch.tape.replay.{name}", most)
    with pytest.raises(TapeError, match="too long to be replayed"):
        replay(_tape(main), _conditions(numbers={"batch": 2, "steps": 2_000_000}))


def test_one_size_below_nothing_is_refused_among_others() -> None:
    main = _variant([["p", "denoise"], 0, 1, -1, -2], [M16, "n - 100"], [])
    with pytest.raises(TapeError, match="a size is negative at these settings"):
        replay(_tape(main), _conditions())


def test_the_requests_of_a_loop_are_those_of_every_iteration() -> None:
    code: list[object] = [["p", "denoise"], ["l", "step", "steps", [], [0, -1], []]]
    tape = _tape(_variant(code, [M16], []))
    found = requests_of(tape, _conditions(numbers={"batch": 2, "steps": 40}))
    assert found.tensors["denoise", "pipeline"] == [16 * MIB] * 40
