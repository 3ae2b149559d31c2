"""Layouts on `meta` are those that torch's real operators give, and decide what is copied."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from vramplan.engines.torch.record.device import Device, scratch_events
from vramplan.engines.torch.record.layouts import META, has_filter_copy, is_by_channels
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
