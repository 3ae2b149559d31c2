"""Layouts on `meta` are those that torch's real operators give, and decide what is copied."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from vramplan.engines.torch.record.device import Device, scratch_events
from vramplan.engines.torch.record.layouts import META, has_filter_copy, is_by_channels, laid_out
from vramplan.engines.torch.record.stream import Alloc, Free, Stream, Workspace
from vramplan.engines.torch.reduction_workspace import INNER, OUTER


def behind_attention(batch: int) -> torch.Tensor:
    """Return an image as diffusers' attention hands it on: rows of channels, turned."""
    rows = torch.empty(batch, 6 * 5, 8, device=META)
    return rows.transpose(-1, -2).reshape(batch, 8, 6, 5)


def upsampled(batch: int) -> torch.Tensor:
    with Device(Stream("main", {}), set()), torch.no_grad():
        image = behind_attention(batch) + torch.empty(batch, 8, 6, 5, device=META)
        return torch.nn.functional.interpolate(image, scale_factor=2.0, mode="nearest")


def test_several_images_keep_their_channels_innermost_and_one_does_not() -> None:
    assert is_by_channels(upsampled(2))
    assert not is_by_channels(upsampled(1))  # the stride of a batch of one tells nothing
    real = behind_attention(1).new_empty(0, device="cpu")
    assert not is_by_channels(real)


LAYOUTS = {
    "a row of a longer batch": ((1, 4, 6, 5), (240, 30, 5, 1)),
    "by rows": ((1, 4, 6, 5), (120, 30, 5, 1)),
    "by channels": ((1, 4, 6, 5), (120, 1, 20, 4)),
    "by channels, a batch of one": ((1, 4, 6, 5), (4, 1, 20, 4)),
    "columns first": ((1, 4, 6, 5), (120, 30, 1, 6)),
    "one channel by channels": ((2, 1, 6, 5), (30, 1, 5, 1)),
    "one channel by rows": ((2, 1, 6, 5), (30, 30, 5, 1)),
    "no sides": ((2, 8, 1, 1), (8, 1, 8, 8)),
    "one frame by channels": ((1, 4, 1, 6, 5), (120, 1, 120, 20, 4)),
    "tokens, turned": ((1, 6, 4), (24, 1, 6)),
}
POINTWISE = {
    **{
        name: lambda op, x, _: (op, x) for name in ("silu", "gelu", "sigmoid", "clone", "hardswish")
    },
    **{name: lambda op, x, y: (op.Tensor, x, y) for name in ("add", "mul", "div", "eq")},
    "maximum": lambda op, x, y: (op, x, y),
    "addcmul": lambda op, x, y: (op, x, y, x),
    "mul by a number": lambda op, x, _: (op.Tensor, x, 2.0),
    "mul by a tensor of one": lambda op, x, _: (op.Tensor, x, x.new_ones(())),
    "eq to a number": lambda op, x, _: (op.Scalar, x, 2.0),
    "pow of a number": lambda op, x, _: (op.Scalar, 2.0, x),
    "pow by a number": lambda op, x, _: (op.Tensor_Scalar, x, 2),
    "where": lambda op, x, y: (op.self, x > y, x, y),
    "lerp": lambda op, x, y: (op.Scalar, x, y, 0.5),
    "masked_fill": lambda op, x, y: (op.Scalar, x, y > 0, 0.0),
}


@pytest.mark.parametrize("said", POINTWISE)
def test_a_pointwise_result_is_laid_out_as_torch_does(said: str) -> None:
    operator = getattr(torch.ops.aten, said.split(maxsplit=1)[0])
    compared = 0
    for shape, first in LAYOUTS.values():
        for other, second in LAYOUTS.values():
            if other != shape:
                continue
            strides = []
            for device in ("cpu", "meta"):
                sources = (torch.empty_strided(shape, s, device=device) for s in (first, second))
                func, *args = POINTWISE[said](operator, *sources)
                func = getattr(func, "default", func)
                out = func(*args)
                strides.append((laid_out(func, out, args) if device == "meta" else out).stride())
            assert strides[1] == strides[0], (said, shape, first, second)
            compared += 1
    assert compared == 32


@pytest.mark.parametrize("batch", [1, 2])
def test_a_convolutions_filter_is_copied_to_its_inputs_layout(batch: int) -> None:
    source, weight = upsampled(batch), torch.empty(4, 8, 3, 3, device=META)
    assert has_filter_copy(source, weight) is (batch > 1)
    assert not has_filter_copy(source, torch.empty(4, 8, 1, 1, device=META))
    given = (source, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    out = torch.empty(batch, 4, 12, 10, device=META)
    events = list(scratch_events(Stream("main", {}), "aten.convolution.default", given, out))
    kinds = [type(event) for event in events]
    (step,) = (event for event in events if isinstance(event, Workspace))
    if batch == 1:
        assert kinds == [Workspace]
        assert step.kind == "conv 8>4 3x3 p1"
    else:
        assert kinds == [Alloc, Workspace, Free]
        assert step.kind == "conv 8>4 3x3 p1 nhwc"
        assert events[0].size_bytes == 4 * 8 * 9 * 4


def steps_of(source: torch.Tensor, dims: list[int]) -> list[Workspace]:
    given, stream = (source, dims), Stream("main", {})
    events = scratch_events(stream, "aten.sum.dim_IntList", given, source.sum(dims))
    return [event for event in events if isinstance(event, Workspace)]


def test_a_sum_is_told_by_which_of_its_dimensions_lie_side_by_side() -> None:
    gradient = torch.empty(6, 5, 8, device=META)
    assert steps_of(gradient, [0, 1]) == [Workspace(OUTER, (8, 30, 8))]
    assert steps_of(gradient, [2]) == [Workspace(INNER, (30, 8, 1))]
    assert steps_of(gradient.transpose(1, 2), [0, 2]) == [Workspace(OUTER, (8, 30, 8))]
    assert steps_of(torch.empty(1, 8, device=META), [0]) == [Workspace(OUTER, (8, 1, 8))]
    assert steps_of(torch.empty(6, 5, dtype=torch.int64, device=META), [0]) == []


def test_autograd_adds_to_a_gradient_that_nobody_else_holds() -> None:
    stream = Stream("main", {})
    weight = torch.nn.Parameter(torch.empty(64, 64, device=META))
    device = Device(stream, {weight.untyped_storage()._cdata})
    with device:
        source = torch.empty(300, 64, device=META, requires_grad=True)
        (source @ weight + source @ weight + source @ weight).sum().backward()
    sums = [e for e in stream.events if isinstance(e, Alloc) and e.operator == "aten.add.Tensor"]
    assert len(sums) == 2  # of the forward pass; the gradients' three are added where the first is
    born = [event for event in stream.events if isinstance(event, Alloc)]
    assert [event.birth.slot for event in born] == list(range(len(born)))
