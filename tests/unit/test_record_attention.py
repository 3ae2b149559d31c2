"""What a CUDA device would run where `meta` would run something else."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from vramplan.engines.torch.record.attention import Attention, choose_kernel
from vramplan.engines.torch.record.device import META, Device, weights_of
from vramplan.engines.torch.record.stream import Alloc, Stream


def operators(work) -> list[str]:
    """Return the operators that allocate while `work` runs on the device that is not there."""
    stream = Stream("", {})
    with Device(stream, weights_of([])), Attention("flash"):
        work()
    return [event.operator for event in stream.events if isinstance(event, Alloc)]


def heads(tokens: int, head: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.zeros(2, 4, tokens, head, dtype=dtype, device=META)


@pytest.mark.parametrize(
    ("best", "head", "dtype", "is_masked", "kernel"),
    [
        ("flash", 64, torch.float16, False, "flash"),
        ("flash", 64, torch.float16, True, "efficient"),  # flash takes no mask
        ("flash", 512, torch.float16, False, "efficient"),  # nor heads above 256
        ("flash", 64, torch.float32, False, "efficient"),  # nor fp32
        ("cudnn", 64, torch.float16, True, "cudnn"),
        ("cudnn", 160, torch.float16, False, "flash"),
        ("efficient", 64, torch.float16, False, "efficient"),
        ("efficient", 63, torch.float16, False, "math"),
        ("math", 64, torch.float16, False, "math"),
    ],
)
def test_the_best_kernel_that_takes_the_operands_is_chosen(best, head, dtype, is_masked, kernel):
    query = heads(8, head, dtype)
    mask = torch.zeros(8, 8, device=META) if is_masked else None
    assert choose_kernel(best, query, query, mask) == kernel


def test_attention_runs_the_kernels_own_operator():
    def work() -> None:
        query = heads(100, 64)
        torch.nn.functional.scaled_dot_product_attention(query, query, query)

    assert operators(work)[-1] == "aten._scaled_dot_product_flash_attention.default"


def test_a_number_put_into_a_tensor_takes_nothing_on_the_device():
    """CUDA makes the number's tensor on the CPU, `meta` would make it on `meta`."""

    def work() -> None:
        mask = torch.ones(100, 100, device=META)
        mask[:, :50] = 0
        mask[0] = 0.5

    assert operators(work) == ["aten.ones.default"]
