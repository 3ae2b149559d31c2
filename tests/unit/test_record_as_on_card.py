"""What torch does otherwise where Python watches it is taken down as a card does it.

The sizes are those of torch 2.14.1's own allocator history for the same calls, on cards that were
not there (T4, A10G, H100); those of a mebibyte and more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional

from vramplan.engines.torch.record.attention import Attention
from vramplan.engines.torch.record.device import Device, weights_of
from vramplan.engines.torch.record.layouts import META
from vramplan.engines.torch.record.saved.wrapped import (
    Functions,
    OnDevice,
    WrappedDevice,
    cuda_asked_for,
)
from vramplan.engines.torch.record.stream import Alloc, Free, Stream

BF16 = torch.bfloat16
MIB = 1 << 20


class OnMeta:
    """The device of the recipes, on which large tensors are `meta`'s."""

    def __init__(self) -> None:
        self.stream = Stream("", {})
        self.weights: set[int] = set()

    def tensor(self, *shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
        made = torch.empty(shape, dtype=dtype, device=META)
        self.weights.add(made.untyped_storage()._cdata)
        return made

    @contextmanager
    def running(self, best: str) -> Iterator[None]:
        with Device(self.stream, self.weights | weights_of([])), Attention(best):
            yield


class OnWrappers(OnMeta):
    """The device of saved models, on which tensors are wrapped."""

    def tensor(self, *shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
        return OnDevice(super().tensor(*shape, dtype=dtype))

    @contextmanager
    def running(self, best: str) -> Iterator[None]:
        watching = WrappedDevice(self.stream, self.weights), Functions(best)
        with torch.no_grad(), cuda_asked_for(best), watching[0], watching[1]:
            yield


@pytest.fixture(params=[OnMeta, OnWrappers])
def device(request: pytest.FixtureRequest) -> OnMeta:
    made: OnMeta = request.param()
    return made


def taken(device: OnMeta, work: Callable[[], Any], best: str = "flash") -> list[int]:
    """Return the bytes of the large allocations of some work, all of which it gives back."""
    with device.running(best):
        result = work()
    del result
    births = [one.birth for one in device.stream.events if isinstance(one, Alloc)]
    assert {id(one.birth) for one in device.stream.events if isinstance(one, Free)} == set(
        map(id, births)
    )
    sizes = [one.size_bytes for one in device.stream.events if isinstance(one, Alloc)]
    return [size for size in sizes if size >= MIB]


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [(1, [1_024_000]), (3, [3_072_000, 3_072_000])],  # several: a copy first, and the product
)
def test_a_linear_layer_adds_its_bias_in_place(
    device: OnMeta, batch: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "MIB", 1_000_000)
    source = device.tensor(batch, 512, 1000).transpose(1, 2)
    # as `from_pretrained` leaves it
    weight, bias = device.tensor(512, 512).requires_grad_(), device.tensor(512)
    with torch.no_grad():
        assert taken(device, lambda: functional.linear(source, weight, bias)) == sizes


def test_a_layer_norm_copies_what_is_not_contiguous_before_its_result(device: OnMeta) -> None:
    source = device.tensor(3, 512, 1000)
    weight = device.tensor(512)
    size = 3_072_000
    for given, sizes in (
        (source.transpose(1, 2), [size, size]),
        (source.view(3, 1000, 512), [size]),
    ):
        device.stream.events.clear()
        assert taken(device, lambda: functional.layer_norm(given, (512,), weight)) == sizes  # noqa: B023  # called at once
        if len(sizes) == 2:  # the copy lives as long as the operator runs
            copy, result = (one for one in device.stream.events[:2])
            assert isinstance(copy, Alloc)
            assert isinstance(result, Alloc)
            freed = [one.birth for one in device.stream.events if isinstance(one, Free)]
            assert freed[0] is copy.birth


def test_a_softmax_copies_what_is_not_contiguous(device: OnMeta) -> None:
    source = device.tensor(3, 512, 1000)
    size = 3_072_000
    assert taken(device, lambda: source.transpose(1, 2).softmax(-1)) == [size, size]
    device.stream.events.clear()
    assert taken(device, lambda: source.softmax(-1)) == [size]


@pytest.mark.parametrize(
    ("key_heads", "keys"),
    [
        (16, [8_192_000, 8_192_000, 8_192_000]),
        (8, [4_096_000, 4_096_000, 8_192_000, 8_192_000, 8_192_000]),  # repeated in fp32
    ],
)
def test_plain_attention_adds_the_mask_in_place_and_repeats_keys_in_fp32(
    device: OnMeta, key_heads: int, keys: list[int]
) -> None:
    query = device.tensor(2, 16, 1000, 64)
    key, value = (device.tensor(2, key_heads, 1000, 64) for _ in range(2))
    mask = device.tensor(2, 1, 1000, 1000)

    def attend() -> torch.Tensor:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, enable_gqa=key_heads < 16
        )

    scores = [128_000_000, 128_000_000, 32_000_000, 64_000_000]
    found = taken(device, attend, "math")
    assert found[0] == 8_192_000  # the query in fp32
    assert sorted(found[1:-6]) == sorted(keys[:2] + [8_192_000] * (len(keys) - 1))
    assert found[-6:] == [*scores, 8_192_000, 4_096_000]


@pytest.mark.parametrize("best", ["cudnn", "efficient"])
@pytest.mark.parametrize("mask", [None, "added", "boolean"])
def test_fused_attention_takes_its_result_and_a_mask_of_numbers_alone(
    device: OnMeta, best: str, mask: str | None
) -> None:
    """Keys are not repeated, and without a gradient nobody wants the sums."""
    query = device.tensor(2, 16, 1000, 64)
    key, value = (device.tensor(2, 8, 1000, 64) for _ in range(2))
    dtype = torch.bool if mask == "boolean" else BF16
    given = None if mask is None else device.tensor(2, 1, 1000, 1000, dtype=dtype)

    def attend() -> torch.Tensor:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=given, enable_gqa=True
        )

    made = [4_000_000] if mask == "boolean" else []
    assert taken(device, attend, best) == [*made, 4_096_000]


def test_the_efficient_kernel_sums_wide_heads_in_fp32_once(device: OnMeta) -> None:
    query, key, value = (device.tensor(4, 1, 2000, 512) for _ in range(3))

    def attend() -> torch.Tensor:
        return functional.scaled_dot_product_attention(query, key, value)

    assert taken(device, attend) == [8_192_000, 16_384_000]
