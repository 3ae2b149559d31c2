"""A norm's results on meta are the same ones, whether torch works them out or they are known."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("torch")

import torch

from vramplan.engines.torch.record import norm_results

GROUP, LAYER = torch.ops.aten.native_group_norm.default, torch.ops.aten.native_layer_norm.default


def described(tensors):
    return [
        (one.shape, one.stride(), one.dtype, one.device, one.untyped_storage().nbytes())
        for one in tensors
    ]


def cases():
    for dtype, batch, has_weights in itertools.product(
        (torch.float16, torch.bfloat16, torch.float32), (1, 2), (True, False)
    ):
        weights = torch.empty(64, dtype=dtype, device="meta") if has_weights else None
        image = torch.empty(batch, 64, 8, 6, dtype=dtype, device="meta")
        for one in (image, image.to(memory_format=torch.channels_last)):
            yield GROUP, (one, weights, weights, batch, 64, 48, 32, 1e-6)
        text = torch.empty(batch, 7, 64, dtype=dtype, device="meta")
        yield LAYER, (text, [64], weights, weights, 1e-5)
        yield LAYER, (text[:, ::2], [64], weights, weights, 1e-5)


def test_what_is_known_is_what_torch_works_out(monkeypatch) -> None:
    monkeypatch.setattr(norm_results, "_known", {})
    for func, args in cases():
        worked_out = described(func(*args))
        for _ in range(2):  # worked out and kept, then known
            assert described(norm_results.results_of(func, str(func), args, {})) == worked_out
    assert len(norm_results._known) == len(list(cases()))


def test_results_are_new_ones_each_time() -> None:
    func, args = next(cases())
    first, again = (norm_results.results_of(func, str(func), args, {}) for _ in range(2))
    places = {one.untyped_storage()._cdata for one in (*first, *again)}
    assert len(places) == 6


def test_nothing_is_kept_of_what_is_no_storage_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr(norm_results, "_known", {})

    def half(*_args):
        return (torch.empty(8, device="meta")[:4],)

    for _ in range(2):
        norm_results.results_of(half, "aten.native_layer_norm.default", (), {})
    assert not norm_results._known


@pytest.mark.parametrize(
    ("dtype", "weight", "shape", "is_training", "kept"),
    [
        (torch.bfloat16, torch.bfloat16, (2, 8, 4, 4), False, 8),  # torch's own kernel
        (torch.float16, torch.float32, (2, 8, 4, 4), False, 0),  # cuDNN's
        (torch.float16, torch.float16, (2, 8, 4, 4), False, 8),
        (torch.float32, torch.float32, (2, 8, 4, 4), False, 0),
        (torch.float32, torch.float32, (2, 8), False, 8),
        (torch.float32, torch.float32, (70000, 8, 1), False, 8),
        (torch.float32, None, (2, 8, 4, 4), False, 8),
        (torch.float32, torch.float32, (2, 8, 4, 4), True, 8),
    ],
)
def test_what_a_batch_norm_keeps_is_as_cuda_has_it(
    dtype, weight, shape, is_training, kept: int
) -> None:
    source = torch.empty(shape, dtype=dtype, device="meta")
    own = None if weight is None else torch.empty(shape[1], dtype=weight, device="meta")
    args = (source, own, own, own, own, is_training, 0.1, 1e-5)
    name = "aten.native_batch_norm.default"
    out, *numbers = norm_results.kept_of_batch_norm(name, args, (source, None, None))
    assert out is source
    assert [(one.numel(), one.dtype) for one in numbers] == [(kept, torch.float32)] * 2
    assert norm_results.kept_of_batch_norm("aten.relu.default", args, source) is source
