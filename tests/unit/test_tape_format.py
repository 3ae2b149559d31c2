"""Reading tapes: what is written is read, and what is hostile is one line, in no time."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vramplan.catalog import profiles_dir
from vramplan.engines.torch.tape.code import find_windows, read_slots, without_modules
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.format import SCHEMA, Tape, parse_tape, read_tape, write_tape
from vramplan.engines.torch.tape.replay import ReplayOutOfMemory, replay
from vramplan.errors import TapeError

Raw = dict[str, object]

TAPES = sorted(
    path for path in (profiles_dir() / "tapes").glob("*.json") if path.name != "results.json"
)
#: the smallest of them: a small convolutional autoencoder, for inference and training
REAL = (profiles_dir() / "tapes" / "denoising-ae.json").read_text("utf-8")


def mini() -> Raw:
    """A tape with a step of every kind."""
    return {
        "schema": SCHEMA,
        "pipeline": "mini",
        "recorded_with": {"torch": "2.13.0"},
        "dims": {"n": "batch", "h": "height//8", "steps": "steps"},
        "least": {"steps": 3},
        "dtype_facts": {"fp16": {"width": "16"}},
        "entry": "main",
        "components": {
            "unet": {
                "parameters": 1_050_624,
                "modules": [[1_048_576, "616B"], [2048]],
                "parts": {"down": [0], "up": [1]},
                "part_parameters": {"down": 1_048_576, "up": 2048},
            }
        },
        "routines": {
            "main": [
                {
                    "when": {},
                    "if": None,
                    "indices": ["denoise"],
                    "derived": {"h1": "(h+1)//2"},
                    "sizes": ["1048576*n", "n", "h1", "4096*n*h1*(denoise+1)"],
                    "outputs": [0],
                    "code": [
                        ["p", "denoise"],
                        0,
                        [
                            "l",
                            "denoise",
                            "steps+1",
                            [[["c", "unet", {"n": 1, "h": 2}, 1], 3]],
                            [
                                ["c", "unet", {"n": 1, "h": 2}, 1],
                                3,
                                ["f", 1, [[0, ["back", 1]]], [0, 1]],
                            ],
                            [],
                        ],
                        ["f", 0, [[0, -1]], 0, 1],
                        ["t", "unet", 4],
                        ["t", "unet", 2],
                    ],
                }
            ],
            "unet": [
                {
                    "when": {"width": ["16"]},
                    "if": None,
                    "indices": [],
                    "derived": {},
                    "sizes": ["2097152*n*h", "512"],
                    "outputs": [1],
                    "code": [
                        ["p", "denoise", "unet"],
                        ["e", "unet", 0],
                        0,
                        ["g"],
                        ["w", "conv", 0, 0],
                        ["x", "unet", 0],
                        1,
                        -1,
                    ],
                }
            ],
        },
    }


CONDITIONS = Conditions(
    numbers={"batch": 1, "height": 64, "steps": 5},
    facts={"width": "16"},
    element_bytes=2,
    workspace_bytes=lambda _kind, operands: sum(operands),
    cublas_bytes=8_519_680,
)


def read(raw: object) -> Tape:
    return parse_tape(json.dumps(raw), "mini.json")


# -- what is written is read -------------------------------------------------------------------


def test_a_tape_with_every_step_is_read_and_replayed() -> None:
    tape = read(mini())
    assert tape.components["unet"].tensor_bytes(0, 2) == [2 * 1_048_576, 616]
    assert tape.components["unet"].total_bytes(4) == 4 * 1_050_624 + 616
    assert tape.components["unet"].parts == {"down": (0,), "up": (1,)}
    assert replay(tape, CONDITIONS).allocated_peak_bytes > 0


def test_writing_gives_the_same_bytes_and_reads_back() -> None:
    raw = mini()
    text = write_tape(raw)
    shuffled = {key: raw[key] for key in reversed(raw)}
    assert write_tape(shuffled) == text
    assert json.loads(text) == raw
    assert parse_tape(text, "x") == read(raw)


@pytest.mark.parametrize("path", TAPES, ids=lambda path: path.stem)
def test_the_tapes_that_ship_are_read_and_written_back(path: Path) -> None:
    read_tape(path)
    assert write_tape(json.loads(path.read_text("utf-8"))) == path.read_text("utf-8")


def test_ranges_of_slots() -> None:
    assert list(read_slots([3, [5, 8], 1])) == [3, 5, 6, 7, 8, 1]


def test_plain_code_has_no_module_marks_at_any_depth() -> None:
    code = [["e", "u", 0], 0, ["l", "i", "3", [[["x", "u", 0], 1]], [["e", "u", 0]], []], 2]
    assert without_modules(code) == [0, ["l", "i", "3", [[1]], [], []], 2]


def test_windows_say_how_many_iterations_back_are_still_freed() -> None:
    inner = ["l", "layer", "2", [], [0, ["f", 2, [[0, ["back", 3]], [0, ["same", "x"]]], 0]], []]
    last = ["l", "again", "2", [], [0], []]
    code = [["l", "step", "9", [], [inner, last], []], ["l", "x", "2", [], [0], []]]
    assert find_windows(code) == {(0,): 3, (0, 0): None, (0, 1): 0, (1,): 0}
    assert find_windows([*code, ["f", 0, [[1, "all"]], 0]])[1,] is None
    assert find_windows([*code, ["f", 0, [[1, -1]], 0]])[1,] is None


# -- files -------------------------------------------------------------------------------------


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match="no such tape") as caught:
        read_tape(tmp_path / "x.json")
    assert "vramplan record" in str(caught.value.hint)


def test_a_file_that_is_cut_short_says_where(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(write_tape(mini())[:-40], "utf-8")
    with pytest.raises(TapeError, match=r"x\.json:\d+:\d+: not a whole tape") as caught:
        read_tape(path)
    assert "vramplan record" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "not a whole tape"),
        (b"", "not a whole tape"),
        (b"[]", "not a tape"),
        (b"null", "not a tape"),
        (b'{"schema": 1}', "components is missing"),
        (b'{"schema": 2}', "tape schema 2, this vramplan reads 1"),
        (b'{"schema": true}', "tape schema of another kind"),
        (b'{"schema": "1"}', "tape schema of another kind"),
        (b'{"schema": 1e400}', "not a whole tape"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "not a whole tape"),
        (b"[" * 100_000, "not a whole tape"),
        (b'{"schema": 1, "components": ' + b"[" * 900 + b"]" * 900 + b"}", "not a whole tape"),
    ],
)
def test_files_that_are_no_tapes(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(TapeError, match=said):
        read_tape(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(9 << 20)  # a hole
    with pytest.raises(TapeError, match="larger than 8 MiB"):
        read_tape(path)


def test_a_folder_is_no_tape(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match="cannot be read"):
        read_tape(tmp_path)


# -- hostile parts -----------------------------------------------------------------------------


def _main(raw: Raw) -> dict[str, object]:
    return raw["routines"]["main"][0]  # type: ignore[index,return-value]  # a tape is plain JSON


def _set(*path: object) -> Callable[[Raw], None]:
    """Return what sets the place all but the last of `path` lead to, to the last."""
    *way, key, value = path

    def change(raw: Raw) -> None:
        place: object = raw
        for step in way:
            place = place[step]  # type: ignore[index]  # a tape is plain JSON
        place[key] = value  # type: ignore[index]  # a tape is plain JSON

    return change


def _drop(*path: object) -> Callable[[Raw], None]:
    *way, key = path

    def change(raw: Raw) -> None:
        place: object = raw
        for step in way:
            place = place[step]  # type: ignore[index]  # a tape is plain JSON
        del place[key]  # type: ignore[attr-defined]  # a tape is plain JSON

    return change


def _code(*code: object) -> Callable[[Raw], None]:
    return _set("routines", "main", 0, "code", list(code))


HUGE = 1 << 70
MAIN = ("routines", "main", 0)
WRONG = {
    "no routines": _drop("routines"),
    "routines a list": _set("routines", []),
    "a routine a mapping": _set("routines", "main", {}),
    "a variant a list": _set("routines", "main", 0, []),
    "no entry": _set("entry", "elsewhere"),
    "entry a number": _set("entry", 1),
    "a name too long": _set("pipeline", "x" * 101),
    "a name a list": _set("pipeline", ["x"]),
    "versions a list": _set("recorded_with", ["torch"]),
    "a version a number": _set("recorded_with", {"torch": 2}),
    "dims a number": _set("dims", {"n": 1}),
    "dims hostile": _set("dims", {"n": "n.real"}),
    "least a text": _set("least", {"steps": "3"}),
    "least negative": _set("least", {"steps": -3}),
    "least a truth": _set("least", {"steps": True}),
    "least fractional": _set("least", {"steps": 1.5}),
    "facts flat": _set("dtype_facts", {"fp16": "16"}),
    "components a list": _set("components", []),
    "weights a number": _set("components", "unet", 1),
    "modules a number": _set("components", "unet", "modules", 7),
    "a module a number": _set("components", "unet", "modules", 0, 7),
    "a tensor fractional": _set("components", "unet", "modules", 0, 0, 1.5),
    "a tensor negative": _set("components", "unet", "modules", 0, 0, -1),
    "a tensor huge": _set("components", "unet", "modules", 0, 0, HUGE),
    "a tensor a word": _set("components", "unet", "modules", 0, 0, "B"),
    "a tensor in other units": _set("components", "unet", "modules", 0, 0, "616GB"),
    "a tensor null": _set("components", "unet", "modules", 0, 0, None),
    "more tensors than any": _set("components", "unet", "modules", [[1] * 200_001]),
    "parameters a text": _set("components", "unet", "parameters", "many"),
    "a part's module is not there": _set("components", "unet", "parts", {"down": [2]}),
    "a part's count a text": _set("components", "unet", "part_parameters", {"down": "1"}),
    "when flat": _set(*MAIN, "when", {"width": "16"}),
    "a condition hostile": _set(*MAIN, "if", "open(1,2)"),
    "a condition a number": _set(*MAIN, "if", 1),
    "indices a text": _set(*MAIN, "indices", "denoise"),
    "derived hostile": _set(*MAIN, "derived", {"h1": "h[0]"}),
    "sizes a mapping": _set(*MAIN, "sizes", {}),
    "a size a number": _set(*MAIN, "sizes", [1]),
    "more sizes than any": _set(*MAIN, "sizes", ["1"] * 10_001),
    "outputs a text": _set(*MAIN, "outputs", "0"),
    "an output negative": _set(*MAIN, "outputs", [-1]),
    "an output huge": _set(*MAIN, "outputs", [HUGE]),
    "code a text": _set(*MAIN, "code", "0"),
    "code a mapping": _set(*MAIN, "code", {}),
    "more steps than any": _set(*MAIN, "code", [0] * 200_001),
    "more names than any": _set("routines", {str(i): [] for i in range(1001)}),
    "a size that is not there": _code(4),
    "a slot beyond any": _code(-HUGE),
    "a step a text": _code("0"),
    "a step a truth": _code(True),
    "a step null": _code(None),
    "a step fractional": _code(0.0),
    "an empty step": _code([]),
    "an unknown step": _code(["z", 1]),
    "a step named by a list": _code([["f"], 1]),
    "a free that climbs down": _code(["f", -1, [], 0]),
    "a free of nothing known": _code(["f", 0, [[0, "some"]], 0]),
    "a free back to the future": _code(["f", 0, [[0, ["back", -1]]], 0]),
    "a free of a slot below none": _code(["f", 0, [], -1]),
    "a free of a range turned round": _code(["f", 0, [], [3, 1]]),
    "a free of a range beyond any": _code(["f", 0, [], [0, HUGE]]),
    "a free along a path of texts": _code(["f", 0, ["all"], 0]),
    "scratch of sizes that are not there": _code(["w", "conv", 9, 9]),
    "scratch of nothing": _code(["w", "conv"]),
    "a product of something": _code(["g", 1]),
    "a phase without a name": _code(["p"]),
    "a phase with a long name": _code(["p", "x" * 200]),
    "a call of nobody": _code(["c", "nobody", {}, 0]),
    "a call with other outputs": _code(["c", "unet", {"n": 1, "h": 2}, 2]),
    "a call with sizes that are not there": _code(["c", "unet", {"n": 9}, 1]),
    "a call with a list": _code(["c", "unet", [1], 1]),
    "a call of itself": _code(["c", "main", {}, 1]),
    "a module that is not there": _code(["e", "unet", 2]),
    "a module below none": _code(["x", "unet", -1]),
    "a module of nobody": _code(["e", "vae", 0]),
    "a cast of nobody": _code(["t", "vae", 2]),
    "a cast to nothing": _code(["t", "unet", 0]),
    "a cast to giants": _code(["t", "unet", 17]),
    "a loop without a body": _code(["l", "i", "3"]),
    "a loop of numbers": _code(["l", "i", "3", 0, 0, 0]),
    "a loop counted by a number": _code(["l", "i", 3, [], [0], []]),
    "a loop counted by hostility": _code(["l", "i", "i()", [], [0], []]),
    "a loop with a wrong body": _code(["l", "i", "3", [], [9], []]),
}


@pytest.mark.parametrize("name", WRONG)
def test_hostile_parts_are_one_line(name: str) -> None:
    raw = mini()
    WRONG[name](raw)
    with pytest.raises(TapeError) as caught:
        read(raw)
    assert str(caught.value).startswith("mini.json: ")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_routines_that_call_each_other_in_a_ring() -> None:
    raw = mini()
    unet = raw["routines"]["unet"][0]  # type: ignore[index]  # a tape is plain JSON
    unet["code"].insert(0, ["c", "main", {}, 1])
    with pytest.raises(TapeError, match="calls itself"):
        read(raw)


def test_calls_nested_deeper_than_any() -> None:
    raw = mini()
    plain = {"when": {}, "if": None, "indices": [], "derived": {}, "sizes": [], "outputs": []}
    for depth in range(30):
        call = [["c", f"r{depth + 1}", {}, 0]] if depth < 29 else []
        raw["routines"][f"r{depth}"] = [{**plain, "code": call}]  # type: ignore[index]  # a tape is plain JSON
    with pytest.raises(TapeError, match="nested too deeply"):
        read(raw)


def test_loops_nested_deeper_than_any() -> None:
    raw = mini()
    code: list[object] = [0]
    for _ in range(20):
        code = [["l", "i", "2", [], code, []]]
    _main(raw)["code"] = code
    with pytest.raises(TapeError, match="nested too deeply"):
        read(raw)


# -- mutated tapes -----------------------------------------------------------------------------

ODD_NUMBERS = [0, 1, -1, 7, 10**9, HUGE, -HUGE, 1.5, True, None]
ODD_TEXTS = ["", "x", "all", "n", "-n", "1//0", "n*n*n*n", "99999", "unet"]
ODD_STEPS = [[], {}, [0], {"n": 1}, [0, "all"], ["back", 1], ["f", 1, [], 0], ["e", "unet", 1]]
ODD = st.sampled_from([*ODD_NUMBERS, *ODD_TEXTS, *ODD_STEPS])


def _places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Return the way to every part of a JSON value."""
    found = [path] if path else []
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_mutated_tape_is_read_and_replayed_or_is_one_line(calls, data: st.DataObject) -> None:
    raw = copy.deepcopy(mini())
    for _ in range(data.draw(st.integers(1, 3))):
        places = _places(raw)
        *way, key = data.draw(st.sampled_from(places))
        place: object = raw
        for step in way:
            place = place[step]  # type: ignore[index]  # a tape is plain JSON
        action = data.draw(st.sampled_from(["set", "set", "drop", "double"]))
        if action == "drop":
            del place[key]  # type: ignore[attr-defined]  # a tape is plain JSON
        elif action == "double" and isinstance(place, list):
            place.insert(key, copy.deepcopy(place[key]))  # type: ignore[arg-type]  # a tape is plain JSON
        else:
            place[key] = copy.deepcopy(data.draw(ODD))  # type: ignore[index]  # a tape is plain JSON
    try:
        with calls:
            replay(read(raw), CONDITIONS, limit_bytes=1 << 30)
    except (TapeError, ReplayOutOfMemory) as problem:
        said = str(problem)
    else:
        said = "completed"
    assert "\n" not in said
    assert calls.made < 100_000, calls.made


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_real_tape_with_a_damaged_letter_is_one_line_at_most(data: st.DataObject) -> None:
    text = REAL
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from('0123456789-"[]{},:ntwxeflc'))
    try:
        parse_tape(text[:place] + letter + text[place + 1 :], "damaged.json")
    except TapeError as problem:
        said = str(problem)
    else:
        said = "damaged.json: still a tape"
    assert said.startswith("damaged.json")
    assert "\n" not in said
