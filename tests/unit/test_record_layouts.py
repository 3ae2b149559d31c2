"""Layouts on `meta` are those that torch's real operators give, and decide what is copied."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from vramplan.engines.torch.record.device import Device, scratch_events
from vramplan.engines.torch.record.layouts import META, has_filter_copy, is_by_channels
from vramplan.engines.torch.record.stream import Alloc, Free, Stream, Workspace


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
