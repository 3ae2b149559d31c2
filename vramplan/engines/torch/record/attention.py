"""Which attention kernel a CUDA device would run, and what that kernel allocates.

On the CPU and on `meta`, `scaled_dot_product_attention` decomposes into matrix products; a CUDA
device picks a fused kernel. Each fused operator's own shape function gives the strides and the
log-sum-exp tensor CUDA would make. Rules: pytorch,
aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (2.14).

Torch's own compositions that look whether Python watches (plain attention, linear layers) are told
here what they do where nobody does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from vramplan.engines.torch.attention_kernel import KERNELS
from vramplan.quick_dataclass import dataclass

_HALF = (torch.float16, torch.bfloat16)

Value = Any

#: whether a composition is running that adds to its product in place
_ADDS_IN_PLACE: ContextVar[bool] = ContextVar("whether sums are in place", default=False)


def as_on_card(func: Value, name: str) -> tuple[Value, str]:
    """Return the operator that a card runs in the place of one that a recording device is told of.

    Plain attention adds the mask to its scores in place, and a linear layer its bias to the product
    of what is not contiguous; but to a copy of them where a mode or a tensor of Python's looks on:
    ATen/native/transformers/attention.cpp, Linear.cpp, isTensorSubclassLike.
    """
    if name == "aten.add.Tensor" and _ADDS_IN_PLACE.get():
        in_place = torch.ops.aten.add_.Tensor
        return in_place, str(in_place)
    return func, name


def in_place(func: Callable[..., Value], *args: Value, **kwargs: Value) -> Value:
    """Return what a composition returns, whose sums are in place."""
    before = _ADDS_IN_PLACE.set(True)
    try:
        return func(*args, **kwargs)
    finally:
        _ADDS_IN_PLACE.reset(before)


def without_sums(name: str, args: tuple[Value, ...], out: Value) -> Value:
    """Return an attention's results without the log-sum-exp that a card makes for training alone.

    cuDNN's shape function gives it always. ATen/native/transformers/cuda/attention.cu,
    _cudnn_attention_forward, compute_logsumexp.
    """
    if not name.startswith("aten._scaled_dot_product_cudnn_attention.") or args[4]:
        return out
    return out[0], out[1].new_empty(0), *out[2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What torch's choice of a kernel looks at, beside the architecture."""

    head: int
    value_head: int
    is_half: bool
    is_masked: bool = False
    is_causal: bool = False
    is_trained: bool = False  # something of it wants a gradient
    queries: int = 1
    keys: int = 1
    is_of_run: bool = True  # in the dtype of the run, for which the architecture prefers a kernel
    is_strided: bool = False  # neighbours along heads are apart, in one operand at least
    has_strided_mask: bool = False  # or along keys, in the mask


def choose_kernel(best: str, asked: Asked) -> str:
    """Return cudnn, flash, efficient or math for these operands.

    `best` is what the architecture prefers: `flash` (8.x, 12.x), `cudnn` (9.x, 10.x), `efficient`
    (before 8.0) or `math` (asked for, or bf16 before 8.0). Head sizes above 256 have no flash
    kernel, and flash masks what is to come only where queries and keys are equally many; cuDNN
    takes multiples of 8 up to 256, and for training none between 128 and 256; the memory-efficient
    kernel takes any aligned head size. None of them takes operands or a mask that are transposed or
    expanded along their last side. Operands of another dtype than the run's, as those of a VAE
    in fp32 beside bf16, have it before 8.0 too. A test holds this against what torch 2.14.1 chose
    on cards of seven architectures that were not there, but for one thing: on 10.x a query of one
    token has no cuDNN kernel, and gets the next one.
    """
    head, half = asked.head, asked.is_half
    if best == "math" and asked.is_of_run:
        return "math"
    if asked.has_strided_mask or (asked.is_strided and head > 1):
        return "math"
    same_head = head == asked.value_head
    has_cudnn = head <= 128 or (
        same_head and (head == 256 or (head < 256 and not asked.is_trained))
    )
    if best == "cudnn" and half and head % 8 == 0 and has_cudnn:
        return "cudnn"
    is_square = not asked.is_causal or asked.queries == asked.keys
    has_flash = same_head and head <= 256 and is_square and not asked.is_masked
    if best in ("cudnn", "flash") and half and has_flash:
        return "flash"
    aligned = 8 if half else 4
    if head % aligned == 0 and asked.value_head % aligned == 0:
        return "efficient"
    return "math"


#: what a mode hears of the layers in `multi_head_attention_forward` is that function alone; the one
#: sum of its own, of two masks, is out of place, and small
_WITH_LINEAR_LAYERS = (functional.linear, functional.multi_head_attention_forward)


class Attention(TorchFunctionMode):
    """Runs the operator a CUDA device would run in place of `scaled_dot_product_attention`.

    `best` is what the architecture prefers for the run's `dtype`; `chose` hears for which others
    the same kernel would have been chosen.
    """

    def __init__(
        self,
        best: str,
        dtype: torch.dtype | None = None,
        chose: Callable[[frozenset[str]], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self.best = best
        self._dtype = dtype
        self._chose = chose

    def __torch_function__(
        self,
        func: Callable[..., Value],
        types: Value,
        args: tuple[Value, ...] = (),
        kwargs: dict[str, Value] | None = None,
    ) -> Value:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func in _WITH_LINEAR_LAYERS:
            return in_place(func, *args, **kwargs)
        if func is torch.Tensor.__setitem__ and isinstance(args[2], (bool, int, float)):
            # x[i] = 0 makes a tensor of the number: of a CUDA tensor's on the CPU, of a meta
            # tensor's on `meta` (torch/csrc/autograd/python_variable_indexing.cpp)
            args = (*args[:2], torch.tensor(args[2], dtype=args[0].dtype))
        return func(*args, **kwargs)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Value:
        grad = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
        asked = Asked(
            head=query.shape[-1],
            value_head=value.shape[-1],
            is_half=query.dtype in _HALF,
            is_masked=attn_mask is not None,
            is_causal=is_causal,
            is_trained=grad,
            queries=query.shape[-2],
            keys=key.shape[-2],
            is_of_run=self._dtype in (None, query.dtype),
            is_strided=any(operand.stride(-1) != 1 for operand in (query, key, value)),
            has_strided_mask=attn_mask is not None and attn_mask.stride(-1) != 1,
        )
        is_of_heads = query.dim() == key.dim() == value.dim() == 4
        kernel = choose_kernel(self.best, asked) if is_of_heads else "math"  # fused ones want heads
        if is_of_heads:
            self._chose(frozenset(k for k in KERNELS if choose_kernel(k, asked) == kernel))
        ops = torch.ops.aten
        if kernel == "flash":
            return ops._scaled_dot_product_flash_attention(
                query, key, value, dropout_p, is_causal, False, scale=scale
            )[0]
        bias = _additive(attn_mask, query)
        if kernel == "math":
            return in_place(
                ops._scaled_dot_product_attention_math,
                *(query, key, value, bias, dropout_p, is_causal),
                scale=scale,
                enable_gqa=enable_gqa,
            )[0]
        if bias is not None:  # left out: its copy with longer rows, where those are not aligned
            bias = bias.expand(*query.shape[:-1], key.shape[-2])
        if kernel == "cudnn":
            return ops._scaled_dot_product_cudnn_attention(
                query, key, value, bias, grad, dropout_p, is_causal, False, scale=scale
            )[0]
        return ops._scaled_dot_product_efficient_attention(
            query, key, value, bias, grad, dropout_p, is_causal, scale=scale
        )[0]


def _additive(mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor | None:
    """Return a mask that is added to the scores; a boolean one becomes one of the query's dtype.

    ATen/native/transformers/attention.cpp, convert_boolean_attn_mask.
    """
    if mask is None or mask.dtype != torch.bool:
        return mask
    options: Value = {"dtype": query.dtype, "device": query.device}
    shut = torch.full((), float("-inf"), **options)
    return torch.where(mask, torch.full((), 0.0, **options), shut)
