"""Temporaries inside CUDA's operators, by the formulas of the sources named in record.scratch."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional

from vramplan.engines.torch.record.device import Device, weights_of
from vramplan.engines.torch.record.layouts import META
from vramplan.engines.torch.record.scratch import kept_bytes, temporaries
from vramplan.engines.torch.record.stream import Alloc, Free, Stream

FLASH = "aten._scaled_dot_product_flash_attention_backward.default"
EFFICIENT = "aten._scaled_dot_product_efficient_attention_backward.default"


def meta(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def test_most_operators_take_nothing_beside_their_result():
    assert temporaries("aten.addmm.default", (meta(4), meta(4, 4), meta(4, 4)), meta(4, 4)) == ()


def test_masked_scatter_counts_its_mask_in_int64():
    """masked_scatter_ takes a running count of the mask, which it first spreads to self's shape."""
    self, source = meta(1, 1088, 4096), meta(576, 4096)
    thin, whole = meta(1, 1088, 1, dtype=torch.bool), meta(1, 1088, 4096, dtype=torch.bool)
    elements = 1088 * 4096
    named = "aten.masked_scatter.default"
    assert temporaries(named, (self, thin, source), self) == ((8 * elements, elements),)
    assert temporaries(named, (self, whole, source), self) == ((8 * elements,),)


def test_plain_attentions_softmax_holds_a_mask_of_its_scores():
    scores = meta(2, 8, 64, 64)
    named = "aten._safe_softmax.default"
    assert temporaries(named, (scores, -1), scores) == ((65_536, 1_024),)


def test_a_softmaxs_gradient_is_first_multiplied_with_the_softmax():
    """As torch 2.14.1 allocates for 2 x 16 x 500 x 500 in fp32: the result, and as much beside."""
    scores = meta(2, 16, 500, 500, dtype=torch.float32)
    named = "aten._softmax_backward_data.default"
    assert temporaries(named, (scores, scores, -1, torch.float32), scores) == ((32_000_000,),)
    named = "aten._log_softmax_backward_data.default"
    assert temporaries(named, (scores, scores, -1, torch.float32), scores) == ()


def test_a_group_norm_copies_what_is_not_contiguous_beside_its_results():
    """As torch 2.14.1 allocates for 2 x 64 x 80 x 60 in fp32 whose channels are innermost."""
    image = meta(2, 64, 80, 60, dtype=torch.float32)
    named = "aten.native_group_norm.default"
    rest = (None, None, 2, 64, 4800, 32, 1e-6)
    assert temporaries(named, (image, *rest), image) == ()
    by_channels = image.to(memory_format=torch.channels_last)
    assert temporaries(named, (by_channels, *rest), image) == ((2_457_600,),)


def test_a_reduced_loss_keeps_a_storage_of_its_operands_size():
    pair = (meta(32, 1), meta(32, 10))
    for name in ("aten.mse_loss.default", "aten.smooth_l1_loss.default"):
        assert kept_bytes(name, pair, 2) == 640
        assert kept_bytes(name, (*pair, 0), 640) == 640
    assert kept_bytes("aten.sum.default", pair, 2) == 2


def test_a_reduced_mse_loss_holds_the_squared_differences():
    pair = (meta(32, 10), meta(32, 10))
    assert temporaries("aten.mse_loss.default", pair, meta()) == ((640,),)
    assert temporaries("aten.mse_loss.default", (*pair, 2), meta()) == ((640,),)
    assert temporaries("aten.mse_loss.default", (*pair, 0), meta(32, 10)) == ()


def test_flash_sums_the_querys_gradient_in_fp32_over_rounded_rows():
    operand = meta(2, 12, 50, 64)
    rows = 2 * 12 * 128 * 4  # 50 queries, rounded up to 128
    assert temporaries(FLASH, (operand, operand, operand, operand), ()) == ((rows, rows * 64),)
    narrow = meta(2, 12, 197, 40)  # heads of up to 128 are rounded to a multiple of 32
    rows = 2 * 12 * 256 * 4
    assert temporaries(FLASH, (narrow, narrow, narrow, narrow), ()) == ((rows, rows * 64),)


def test_the_efficient_kernel_sums_the_querys_gradient_in_tiles():
    operand = meta(2, 12, 65, 64)
    delta, tiles = 2 * 12 * 65 * 4, 2 * 12 * 2  # 65 queries are two tiles of 64
    workspace = tiles * (16 + 64 * 64 * 4)
    assert temporaries(EFFICIENT, (operand, operand), ()) == ((delta, workspace),)
    wide = operand.to(torch.float32)
    product = 2 * 12 * 65 * 64 * 4  # fp32 kernels leave the derivative to torch
    assert temporaries(EFFICIENT, (wide, wide), ()) == ((product, delta), (delta, workspace))


def test_the_device_takes_them_after_the_result_and_gives_them_back():
    stream = Stream("", {})
    pair = [torch.zeros(100, 100, device=META) for _ in range(2)]
    with Device(stream, weights_of([])):
        first, second = (tensor * 1 for tensor in pair)
        loss = torch.nn.functional.mse_loss(first, second)
    events = stream.events
    assert [e.size_bytes for e in events if isinstance(e, Alloc)] == [40_000] * 4
    assert isinstance(events[-1], Free)
    assert events[-1].birth is events[-2].birth
    del loss


def _by_rows() -> torch.Tensor:
    return torch.empty(2, 128, 64, 64, dtype=torch.bfloat16, device=META)


def _transposed() -> torch.Tensor:
    return torch.empty(2, 64, 128, 64, dtype=torch.bfloat16, device=META).permute(0, 2, 1, 3)


def _sliced() -> torch.Tensor:
    wide = torch.empty(2, 128, 64, 70, dtype=torch.bfloat16, device=META)
    return wide.to(memory_format=torch.channels_last)[..., :64]


def _by_channels() -> torch.Tensor:
    return _by_rows().to(memory_format=torch.channels_last)


def _video(by_channels: bool) -> torch.Tensor:
    video = torch.empty(1, 128, 8, 32, 32, dtype=torch.bfloat16, device=META)
    return video.to(memory_format=torch.channels_last_3d) if by_channels else video


def _sound() -> torch.Tensor:
    return torch.empty(2, 4096, 128, dtype=torch.bfloat16, device=META).mT


_MIB2 = 2 << 20
_FILTER = {"weight": torch.empty(128, 128, 3, 3, dtype=torch.bfloat16, device=META), "padding": 1}
_SHORT_FILTER = {
    "weight": torch.empty(128, 128, 3, dtype=torch.bfloat16, device=META), "padding": 1
}  # fmt: skip


@pytest.mark.parametrize(
    ("work", "source", "options", "allocated"),
    [
        (functional.conv2d, _by_rows, _FILTER, [_MIB2]),
        (functional.conv2d, _transposed, _FILTER, [_MIB2, _MIB2]),
        (functional.conv2d, _sliced, _FILTER, [_MIB2, _MIB2, 294_912]),
        (functional.conv1d, _sound, _SHORT_FILTER, [_MIB2, _MIB2]),
        (functional.avg_pool2d, _by_rows, {"kernel_size": 2}, [_MIB2 // 4]),
        (functional.avg_pool2d, _transposed, {"kernel_size": 2}, [_MIB2 // 4, _MIB2]),
        (functional.avg_pool2d, _sliced, {"kernel_size": 2}, [_MIB2 // 4, _MIB2]),
        (functional.avg_pool2d, _by_channels, {"kernel_size": 2}, [_MIB2 // 4]),
        (functional.avg_pool1d, _sound, {"kernel_size": 2}, [_MIB2 // 2]),
        (functional.max_pool2d, _transposed, {"kernel_size": 2}, [_MIB2 // 4, _MIB2, _MIB2]),
        (functional.adaptive_avg_pool2d, _transposed, {"output_size": 8}, [_MIB2, 32_768]),
        (functional.adaptive_avg_pool2d, _sliced, {"output_size": 8}, [32_768]),
        (functional.interpolate, _by_rows, {"scale_factor": 2.0}, [4 * _MIB2]),
        (functional.interpolate, _transposed, {"scale_factor": 2.0}, [4 * _MIB2, _MIB2]),
        (functional.interpolate, _sliced, {"scale_factor": 2.0}, [4 * _MIB2, _MIB2]),
        (functional.interpolate, _by_channels, {"scale_factor": 2.0}, [4 * _MIB2]),
        (functional.interpolate, _sound, {"scale_factor": 2.0}, [2 * _MIB2, _MIB2]),
        (
            functional.interpolate,
            lambda: _video(True),
            {"scale_factor": 2.0},
            [8 * _MIB2, 8 * _MIB2, _MIB2],
        ),
        (
            functional.interpolate,
            _sliced,
            {"scale_factor": 2.0, "mode": "bilinear"},
            [4 * _MIB2, _MIB2],
        ),
        (
            functional.interpolate,
            _transposed,
            {"scale_factor": 2.0, "mode": "bilinear"},
            [4 * _MIB2],
        ),
        (functional.avg_pool3d, lambda: _video(True), {"kernel_size": 2}, [_MIB2 // 8, _MIB2]),
        (functional.avg_pool3d, lambda: _video(False), {"kernel_size": 2}, [_MIB2 // 8]),
        (
            functional.pad,
            _by_channels,
            {"pad": (1, 1, 1, 1), "mode": "reflect"},
            [2_230_272, _MIB2],
        ),
        (functional.pad, _by_rows, {"pad": (1, 1, 1, 1), "mode": "reflect"}, [2_230_272]),
    ],
)
def test_what_a_kernel_wants_laid_out_otherwise_is_copied(work, source, options, allocated):
    """As torch 2.14.1 allocated on a B200 and an RTX 4090 that were not there."""
    stream = Stream("", {})
    with torch.no_grad(), Device(stream, weights_of([])):
        given = source()
        made = len(stream.events)
        work(given, **options)
    found = [event.size_bytes for event in stream.events[made:] if isinstance(event, Alloc)]
    assert found == allocated
