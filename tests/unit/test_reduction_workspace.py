"""Sums share outputs among blocks as torch's do: its figures on cards that are not there."""

from __future__ import annotations

import pytest

from vramplan.engines.torch.reduction_workspace import INNER, OUTER, reduction_bytes

#: outputs, numbers of each, and what torch 2.14.1 asked for, of ViT-MAE's training at batch 15
WITNESSED = [
    (512, 2955, "8.9", 128, 12_320_768),
    (512, 2955, "7.5", 40, 12_320_768),
    (2048, 2955, "9.0", 132, 49_283_072),
    (2048, 2955, "7.5", 40, 20_971_520),  # fewer threads: fewer blocks share an output
    (768, 2955, "8.9", 128, 18_481_152),
    (512, 2205, "8.9", 128, 9_175_040),
]


@pytest.mark.parametrize(("outputs", "inputs", "capability", "count", "size"), WITNESSED)
def test_a_gradients_sum_over_its_batch_takes_what_torch_asked_for(
    outputs: int, inputs: int, capability: str, count: int, size: int
) -> None:
    operands = (outputs, inputs, outputs)
    assert reduction_bytes(OUTER, operands, capability, count) == size
    assert reduction_bytes(OUTER, operands, capability) == size  # of a card like most


def test_small_sums_take_nothing() -> None:
    assert reduction_bytes(OUTER, (768, 750, 768), "8.6") == 0
    assert reduction_bytes(OUTER, (512, 1, 512), "8.6") == 0
    assert reduction_bytes(INNER, (1, 1, 1), "8.6") == 0


def test_a_sum_of_everything_takes_a_number_of_each_block() -> None:
    size = reduction_bytes(INNER, (1, 10_000_000, 1), "8.6", 28)
    assert 0 < size <= 4 * 28 * 1536 // 128
    assert size % 4 == 0
