"""What a CUDA device would run where `meta` would run something else."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

import torch

from tools.docs.page import ROOT
from vramplan.engines.torch.attention_kernel import attention_kernel
from vramplan.engines.torch.record.attention import Asked, Attention, choose_kernel
from vramplan.engines.torch.record.device import Device, weights_of
from vramplan.engines.torch.record.layouts import META
from vramplan.engines.torch.record.stream import Alloc, Stream


def operators(work) -> list[str]:
    """Return the operators that allocate while `work` runs on the device that is not there."""
    stream = Stream("", {})
    with Device(stream, weights_of([])), Attention("flash"):
        work()
    return [event.operator for event in stream.events if isinstance(event, Alloc)]


def heads(tokens: int, head: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.zeros(2, 4, tokens, head, dtype=dtype, device=META)


def test_the_kernel_is_the_one_that_torch_chose_on_cards_that_were_not_there():
    """As `torch._fused_sdp_choice` answered: 17 head sizes of each row, two lengths.

    8.0 and 12.0 answered as 8.9 did.
    """
    said = json.loads((ROOT / "tests/data/attention_choices.json").read_text(encoding="utf-8"))
    assert len(said["rows"]) == 144
    wrong = []
    for capability, dtype, trained, masked, causal, queries, keys, chosen in said["rows"]:
        best = attention_kernel(capability, "sdpa", dtype)
        if capability == "10.0" and queries == 1 and best == "cudnn":
            best = "flash"  # cuDNN has no kernel there for a query of one token
        for kernel, sizes in chosen.items():
            for head in sizes:
                asked = Asked(
                    head=head,
                    value_head=head,
                    is_half=dtype != "fp32",
                    is_masked=masked,
                    is_causal=causal,
                    is_trained=trained,
                    queries=queries,
                    keys=keys,
                )
                if choose_kernel(best, asked) != kernel:
                    wrong.append((capability, asked, kernel))
    assert wrong == []


@pytest.mark.parametrize(("best", "head"), [("efficient", 63), ("flash", 63), ("math", 64)])
def test_what_no_fused_kernel_takes_is_worked_out_plainly(best, head):
    asked = Asked(head=head, value_head=head, is_half=True, is_masked=True)
    assert choose_kernel(best, asked) == "math"


@pytest.mark.parametrize("strided", ["query", "key", "value", "mask"])
@pytest.mark.parametrize("best", ["cudnn", "flash", "efficient"])
def test_what_is_transposed_along_its_last_side_is_worked_out_plainly(best, strided):
    """As torch 2.14.1 chose on a T4, an RTX 4090, an H100 and a B200 that were not there."""
    given = {name: heads(64, 32) for name in ("query", "key", "value")}
    given["attn_mask"] = torch.zeros(1, 1, 64, 64, dtype=torch.float16, device=META)
    name = "attn_mask" if strided == "mask" else strided
    chosen = []
    with Attention(best, chose=chosen.append):
        torch.nn.functional.scaled_dot_product_attention(**given)
        given[name] = given[name].mT.contiguous().mT
        torch.nn.functional.scaled_dot_product_attention(**given)
        wide = torch.zeros(1, 1, 64, 1, dtype=torch.float16, device=META)
        given |= {name: heads(64, 32) for name in ("query", "key", "value")}
        given["attn_mask"] = wide.expand(1, 1, 64, 64)
        torch.nn.functional.scaled_dot_product_attention(**given)
    assert ["math" in one and best in one for one in chosen] == [False, True, True]


def test_heads_of_one_number_may_lie_anywhere():
    asked = Asked(head=1, value_head=1, is_half=True, is_strided=True)
    assert choose_kernel("flash", asked) == choose_kernel("cudnn", asked) == "flash"


def test_attention_without_heads_is_worked_out_plainly():
    """Fused kernels want four dimensions: sdp_utils_cpp.h, check_tensor_shapes."""

    def work() -> None:
        query = torch.zeros(2, 100, 64, dtype=torch.float16, device=META)
        out = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        assert out.shape == (2, 100, 64)

    assert any("bmm" in one for one in operators(work))


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
