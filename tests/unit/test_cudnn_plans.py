"""From answers to rules: exact for every answer, whatever it is."""

from __future__ import annotations

import json
import random

from tools.cudnn_plans import rules
from tools.cudnn_plans.cases import cases_of, drawn_cases
from vramplan.engines.torch.tape.convolution import read_kind
from vramplan.engines.torch.witnessed_files import ASKED_FILE
from vramplan.engines.torch.witnessed_plans import Plans, Shape, read_asked, read_plans

KIND = "conv 8>16 3x3 p1"
VERSIONS = {"torch": "2.14.1", "cudnn": 92400}


def answer(side: int, batch: int, *plans: int):
    return ((KIND, batch, (side, side)), "fp16"), list(plans)


def written(tmp_path, answers) -> tuple[dict, str]:
    text, words = rules.plans_text(answers, VERSIONS, "8.6")
    (tmp_path / "witnessed").mkdir(exist_ok=True)
    (tmp_path / "witnessed/cudnn-8.6.json").write_text(text)
    read_plans.cache_clear()
    plans = read_plans(tmp_path, "8.6")
    assert rules.score(plans, answers).startswith(
        f"{len(answers)} drawn: first plan exact in {len(answers)}, all plans in {len(answers)}"
    )
    return json.loads(text), words


def test_what_was_asked_is_what_every_dtype_has_the_answer_of(tmp_path) -> None:
    answers = [answer(s, n, copies(s, n), 0) for s in (64, 256) for n in (1, 3)]
    written(tmp_path, answers)
    plans = read_plans(tmp_path, "8.6")
    asked = rules.asked_cases(plans, answers)
    assert asked == {case for (case, _), _ in answers}
    # what the rules do not say is as if it was not asked
    assert not rules.asked_cases(plans, [answer(100, 2, copies(100, 2) + 512, 0)])
    two = Plans(layers={**plans.layers, "fp32": {}})
    assert not rules.asked_cases(two, answers)
    (tmp_path / "witnessed" / ASKED_FILE).write_text(rules.asked_text(asked))
    read_asked.cache_clear()
    known = read_asked(tmp_path)
    assert known.sizes == {KIND: "1x64x64 1x256x256 3x64x64 3x256x256"}
    assert known.has(KIND, (0, 0, 0, 3, 64, 64))
    assert not known.has(KIND, (0, 0, 0, 3, 64, 6))
    assert not known.has("conv 8>16", (0, 0, 0, 3, 64, 64))


def copies(side: int, batch: int) -> int:
    layer = read_kind(KIND)
    assert layer is not None
    shape = Shape(layer=layer, batch=batch, sides=(side, side), element_bytes=2)
    return -(-(sum(map(shape.measure, "xyf")) + 16) // 512) * 512


def test_one_sum_for_all_sizes_where_there_is_one(tmp_path) -> None:
    answers = [answer(s, n, copies(s, n), 0) for s in (64, 100, 256) for n in (1, 3)]
    raw, words = written(tmp_path, answers)
    assert raw["layers"] == {"fp16": {KIND: "x+y+f+16 > 0"}}
    assert raw["versions"] == {"torch": "2.14.1", "cudnn": "9.24.0"}
    assert words == "6 answers, 1 rules, 0 exceptions"


def test_sizes_share_ranges_and_one_that_differs_stands_by_itself(tmp_path) -> None:
    answers = [
        *(answer(s, 1, 0) for s in (8, 16, 32)),
        *(answer(s, 1, copies(s, 1), 0) for s in (64, 128, 256)),
        answer(100, 1, 123_392, 0),
    ]
    raw, _ = written(tmp_path, answers)
    layer = raw["layers"]["fp16"][KIND]
    assert [text for _, text in layer["up to"]] == ["0", "x+y+f+16 > 0"]
    assert layer["up to"][0][0] in range(32 * 32, 64 * 64)
    assert list(layer["but"]) == ["1x100x100"]


def test_what_goes_by_the_image_is_written_so(tmp_path) -> None:
    """Two of each size, in one image and in four: the whole output's positions tell nothing."""
    answers = [
        answer(s, n, *((0,) if s < 64 else (copies(s, n), 0)))
        for s in (40, 48, 56, 64, 80, 96)
        for n in (1, 4)
    ]
    raw, _ = written(tmp_path, answers)
    layer = raw["layers"]["fp16"][KIND]
    assert [text for _, text in layer["image up to"]] == ["0", "x+y+f+16 > 0"]


def test_what_one_image_has_to_itself_is_written_so(tmp_path) -> None:
    answers = [
        answer(s, n, *((0,) if n == 1 else (copies(s, n), 0)))
        for s in (40, 48, 56, 64, 80, 96)
        for n in (1, 4)
    ]
    raw, _ = written(tmp_path, answers)
    layer = raw["layers"]["fp16"][KIND]
    assert layer == {
        "one image": {"up to": [[0, "0"]]},
        "several": {"up to": [[0, "x+y+f+16 > 0"]]},
    }


def test_any_answers_are_given_exactly(tmp_path) -> None:
    chance = random.Random(7)  # noqa: S311  # the same answers every time
    answers = [
        answer(
            side, batch, *(512 * chance.randint(1, 1 << 15) for _ in range(chance.randint(1, 4))), 0
        )
        for side in (16, 32, 48, 64)
        for batch in (1, 4)
    ]
    written(tmp_path, answers)


def test_only_plans_that_take_less_than_all_before_them_matter() -> None:
    mib = 1 << 20
    assert rules.tried_plans([9 * mib, 9 * mib, 12 * mib, 4 * mib, 1 * mib, 0]) == (
        9 * mib, 4 * mib, 0,
    )  # fmt: skip
    assert rules.tried_plans([512, 0]) == (512, 0)
    assert rules.tried_plans([9 * mib, 512]) == (9 * mib, 512)
    many = [n * mib for n in range(40, 20, -1)]
    assert rules.tried_plans([*many, 0]) == (*many[:7], 0)


def test_the_cases_are_the_convolutions_of_a_pipelines_tape() -> None:
    found = list(cases_of("denoising-ae", {"image": "64x64", "batch": "2", "mode": "train"}))
    assert ("conv 3>64 3x3 s2 p1", 2, (64, 64)) in found
    assert ("wgrad 64>3 3x3 p1", 2, (64, 64)) in found
    one, other = (drawn_cases(random.Random(3), 1) for _ in range(2))  # noqa: S311  # the same
    assert one == other
