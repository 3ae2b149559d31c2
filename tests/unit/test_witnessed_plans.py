"""cuDNN's plans without cuDNN: the rules give what it answered, and a file that is none is said."""

from __future__ import annotations

import json

import pytest

from tools.cudnn_plans import rules
from tools.docs.page import ROOT
from vramplan.catalog.shipped import profiles_dir
from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.convolution_workspace import (
    MostScratch,
    OthersAt,
    WitnessedScratch,
    _own_kernel_bytes,
    scratch_key,
    witnessed_scratch,
)
from vramplan.engines.torch.reduction_workspace import OUTER
from vramplan.engines.torch.tape.convolution import read_kind
from vramplan.engines.torch.witnessed_files import (
    ASKED_FILE,
    CAPABILITIES,
    FOLDER,
    NEAREST,
    file_name,
    versions_of,
)
from vramplan.engines.torch.witnessed_plans import Shape, read_asked, read_plans, work_out
from vramplan.errors import CatalogError


def answers() -> dict[str, list]:
    """Return some of cuDNN's answers that rules were made from, by architecture."""
    text = (ROOT / "tests/data/cudnn_answers.json").read_text(encoding="utf-8")
    return json.loads(text)["answers"]


def shape_of(kind: str, batch: int, sides: list[int], dtype: str) -> Shape:
    layer = read_kind(kind)
    assert layer is not None
    return Shape(layer=layer, batch=batch, sides=tuple(sides), element_bytes=ELEMENT_BYTES[dtype])


def operands_of(shape: Shape) -> tuple[int, ...]:
    sizes = tuple(shape.measure(letter) for letter in "xyf")
    return (*sizes, shape.batch, *shape.sides)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_rules_give_cudnns_own_answers(capability: str) -> None:
    plans = read_plans(profiles_dir(), capability)
    rows = answers()[capability]
    assert len(rows) >= 60
    for kind, batch, sides, dtype, answer in rows:
        shape = shape_of(kind, batch, sides, dtype)
        said = plans.sizes(dtype, kind, operands_of(shape))
        assert said is not None
        rounded = tuple(-(-size // 512) * 512 for size in said)
        assert rounded == rules.tried_plans(answer), (kind, batch, sides, dtype)


def test_a_layer_is_known_at_the_sizes_that_cudnn_was_asked_about_and_at_no_other() -> None:
    scratch = witnessed_scratch("8.9", 2, "fp16")
    assert scratch is not None
    kind = "conv 128>128 3x3 p1"
    asked, other = (operands_of(shape_of(kind, 1, [512, n], "fp16")) for n in (512, 520))
    assert scratch.is_known(kind, asked)
    assert not scratch.is_known(kind, other)
    assert not scratch.is_known("conv 5>7 11x11", (1000, 2000, 300, 1, 512, 512))
    assert scratch.is_known(OUTER, (64, 8, 4))  # torch's own, by its own rule
    for is_most in (False, True):
        others = OthersAt(witnessed=scratch, is_most=is_most)
        assert others.plans(kind, asked) == scratch.plans(kind, asked)
        most = MostScratch(witnessed=scratch).plans(kind, other)
        assert others.plans(kind, other) == (most if is_most else (0,))


def test_every_architecture_has_an_answer_to_what_was_asked() -> None:
    """But for what cuDNN has no plan for."""
    asked = read_asked(profiles_dir()).sizes
    assert sum(len(one.split()) for one in asked.values()) > 3000
    for capability in CAPABILITIES:
        layers = read_plans(profiles_dir(), capability).layers
        without = {kind for kind in asked if kind not in layers["fp16"]}
        assert all(kind.endswith(" t") for kind in without), (capability, without)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_rule_can_be_worked_out(capability: str) -> None:
    plans = read_plans(profiles_dir(), capability)
    assert versions_of(profiles_dir(), capability).keys() == {"torch", "cudnn"}
    assert set(plans.layers) == {"fp16", "bf16", "fp32"}
    for dtype, layers in plans.layers.items():
        for kind, known in layers.items():
            layer = read_kind(kind)
            assert layer is not None
            for batch, side in ((1, 128), (2, 33)):
                shape = shape_of(kind, batch, [side] * len(layer.kernel), dtype)
                sizes = known.sizes_at(shape)
                assert min(sizes) >= 0
            for ranges in filter(None, (known.ranges, known.several)):
                assert ranges.lists[-1][0] == 0  # the last holds for all that is larger


def test_a_sum_is_worked_out_in_bytes() -> None:
    shape = shape_of("conv 3>8 3x3 s2 p1", 2, [10, 20], "fp16")
    x, y, f = 2 * 200 * 3 * 2, 2 * 50 * 8 * 2, 3 * 8 * 9 * 2
    assert work_out("x+y+f+16", shape) == x + y + f + 16
    assert work_out("x8+2y+f4+6p", shape) == x // 3 * 8 + 2 * y + f // 3 * 4 + 6 * 50
    with pytest.raises(ValueError, match="not a plan"):
        work_out("x+z", shape)


def test_a_layer_that_cudnn_was_not_asked_about_takes_a_share_of_its_operands() -> None:
    scratch = witnessed_scratch("8.6", 2, "fp16")
    assert isinstance(scratch, WitnessedScratch)
    operands = (1000, 2000, 300, 1, 5, 5)
    assert scratch.plans("conv 5>7 11x11", operands) == (3300, 0)
    assert MostScratch(witnessed=scratch).plans("conv 5>7 11x11", operands) == (4125,)


def test_channels_that_are_innermost_are_copied_where_kernels_want_them_otherwise() -> None:
    operands = (1000, 2000, 300, 2, 15, 15)

    def taken(capability: str, dtype: str, kind: str) -> tuple[int, ...]:
        scratch = witnessed_scratch(capability, ELEMENT_BYTES[dtype], dtype)
        assert scratch is not None
        return scratch.plans(kind, operands)

    assert taken("8.6", "fp16", "conv 5>7 11x11 nhwc") == (0,)
    assert taken("7.5", "fp32", "conv 5>7 11x11 nhwc") == (3300, 0)
    # torch's own kernel: the columns of one image, and its input copied
    columns = 5 * 11 * 11 * (5 * 5) * 2
    assert taken("7.5", "bf16", "conv 5>7 11x11") == (columns,)
    assert taken("7.5", "bf16", "conv 5>7 11x11 nhwc") == (1000 + columns,)
    assert taken("7.5", "bf16", "conv 5>7 1x1 nhwc") == (1000,)


def test_torchs_own_kernel_takes_what_was_witnessed_of_it() -> None:
    scratch = witnessed_scratch("7.5", 2, "bf16")
    assert scratch is not None
    for kind in ("conv 512>512 3x3 p1", "conv 3>128 3x3 p1", "conv 512>256 1x1"):
        layer = read_kind(kind)
        assert layer is not None
        operands = operands_of(shape_of(kind, 2, [64, 48], "bf16"))
        assert scratch.known.sizes("bf16", kind, operands) == (_own_kernel_bytes(layer, operands),)


def test_the_most_is_a_quarter_more_than_copies_where_the_first_plan_takes_less() -> None:
    scratch = witnessed_scratch("8.9", 4, "fp32")
    assert scratch is not None
    kind = "conv 128>128 3x3 p1"
    operands = operands_of(shape_of(kind, 1, [512, 512], "fp32"))
    first, *others = scratch.plans(kind, operands)
    most = MostScratch(witnessed=scratch)(kind, operands)
    assert first < most == sum(operands[:3]) * 125 // 100
    assert others[-1] == 0


def test_older_cards_and_those_between_have_an_answer_too() -> None:
    assert witnessed_scratch("6.1", 2, "fp16") is None
    assert "/" in scratch_key("6.1", 2, "fp16")
    for between, nearest in NEAREST.items():
        assert scratch_key(between, 2, "bf16") == scratch_key(nearest, 2, "bf16")
    # what a pipeline in fp16 casts is in fp32, and what one in fp32 casts in fp16
    assert scratch_key("8.6", 4, "fp16") == scratch_key("8.6", 4, "fp32")
    assert scratch_key("8.6", 2, "bf16") != scratch_key("8.6", 2, "fp32")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema_version": 2}',
        '{"schema_version": 1, "versions": {}, "layers": []}',
        '{"schema_version": 1, "versions": {}, "layers": {"fp16": []}}',
        '{"schema_version": 1, "versions": {}, "layers": {"fp16": {"conv": {"up to": []}}}}',
        '{"schema_version": 1, "versions": {}, "layers": {"fp16": {"conv": 1}}}',
    ],
)
def test_a_file_that_is_none_is_said(tmp_path, text: str) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / file_name("8.6")).write_text(text)
    with pytest.raises(CatalogError, match=r"cudnn-8\.6\.json: not what tools/cudnn_plans writes"):
        read_plans(tmp_path, "8.6").sizes("fp16", "conv", ())
    with pytest.raises(CatalogError, match=r"cudnn-8\.9\.json: cannot be read"):
        read_plans(tmp_path, "8.9")


@pytest.mark.parametrize("text", ["", '{"schema_version": 1}', '{"schema_version": 1, "sizes": 1}',
                                  '{"schema_version": 1, "sizes": {"conv": ["1x2"]}}'])  # fmt: skip
def test_sizes_that_are_none_are_said(tmp_path, text: str) -> None:
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(CatalogError, match=r"asked\.json: cannot be read"):
        read_asked(tmp_path)
    (tmp_path / FOLDER / ASKED_FILE).write_text(text)
    with pytest.raises(CatalogError, match=r"asked\.json: not what tools/cudnn_plans writes"):
        read_asked(tmp_path)
