"""Temporaries inside CUDA's operators, by the formulas of the sources named in record.scratch."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

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
