"""A convolution's kind says what its layer is, and is read back."""

from __future__ import annotations

import pytest

from vramplan.engines.torch.tape.code_check import is_name
from vramplan.engines.torch.tape.convolution import Convolution, read_kind


@pytest.mark.parametrize(
    "kind",
    [
        "conv 128>256 3x3",
        "conv 3>768 16x16 s16",
        "dgrad 64>128 3x3 s2 p1",
        "wgrad 8>8 3x1x5 s1x2x1 p1x0x2 d2 g8",
        "conv 4>8 4 s2 p1 t",
        "conv 4>8 3x3 p1 nhwc",
    ],
)
def test_a_kind_is_read_as_it_is_written(kind: str) -> None:
    layer = read_kind(kind)
    assert layer is not None
    assert layer.kind == kind
    assert is_name(kind)


def test_what_is_not_said_is_as_usual() -> None:
    assert read_kind("conv 4>8 3x3 p1") == Convolution(
        product="conv",
        in_channels=4,
        out_channels=8,
        kernel=(3, 3),
        stride=(1, 1),
        padding=(1, 1),
        dilation=(1, 1),
    )


@pytest.mark.parametrize(
    "kind",
    ["conv", "conv 4>8", "conv 4>8 3x", "conv 4>8 3x3 s1x2x3", "conv 4>8 1x1x1x1", "w 1>1 1"],
)
def test_what_names_no_layer_is_none(kind: str) -> None:
    assert read_kind(kind) is None


def test_the_output_of_a_layer_has_the_sides_that_torch_gives_it() -> None:
    layer = read_kind("conv 4>8 3x3 s2 p1 d2")
    assert layer is not None
    assert layer.output_sides((65, 17)) == (32, 8)
