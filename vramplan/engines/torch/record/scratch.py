"""What CUDA kernels take beside their results: temporaries inside one operator, unseen on `meta`.

The shape functions that run on `meta` know an operator's results only. What its CUDA implementation
allocates besides, and gives back before it returns, is listed here, operator by operator, as
pytorch's source has it. Left out are temporaries that never reach a MiB (scans' and reductions'
buffers), cuDNN's own scratch (its size is not in the source), split-key buffers of one-token
queries and masks copied for the sake of their alignment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from vramplan.engines.torch.record.layouts import BY_CHANNELS, is_by_channels

Value = Any
Arguments = tuple[Value, ...]
#: bytes of temporaries that are held together; the next group comes when they are gone
Groups = tuple[tuple[int, ...], ...]

#: the memory-efficient kernels for heads of up to 64 take tiles of so many queries and channels
_TILE = 64


def temporaries(operator: str, arguments: Arguments, result: Value) -> Groups:
    """Return the bytes of the temporaries of `operator`, in the order in which it takes them."""
    for name, rule in _RULES.items():
        if operator.startswith(name):
            return rule(arguments, result)
    return ()


def copied_first(operator: str, arguments: Arguments) -> int:
    """Return the bytes of the copy that `operator` makes before its results, and keeps as long.

    A layer norm copies what is not contiguous, a convolution and an adaptive pool what is laid out
    neither by rows nor by channels: ATen/native/cuda/layer_norm_kernel.cu, layer_norm_cuda;
    Convolution.cpp, _convolution; cuda/AdaptiveAveragePooling.cu, adaptive_avg_pool2d_out_cuda.
    """
    if operator.startswith("aten.native_layer_norm."):
        return _copy_bytes(arguments[0])
    if operator.startswith(CONVOLUTIONS):
        source, weight = arguments[:2]
        if source.shape[1] < _FEW_CHANNELS:
            return 0
        return _copy_bytes(source, is_by_channels(source) or is_by_channels(weight))
    if operator.startswith("aten._adaptive_avg_pool2d.") and not is_by_channels(arguments[0]):
        return _copy_bytes(arguments[0])
    return 0


CONVOLUTIONS = ("aten.convolution.", "aten._convolution.")
#: tiles of an image or its latents and parts of a video are copied or not by where they lie: next
#: to what comes of them that is little, and it is left out
_FEW_CHANNELS = 8


def _copy_bytes(tensor: Value, by_channels: bool = False) -> int:
    """Return the bytes of a tensor that is copied to lay it out; 0 where it lies so."""
    layout = BY_CHANNELS[tensor.dim()] if by_channels else torch.contiguous_format
    is_so = tensor.is_contiguous(memory_format=layout)
    return 0 if is_so else tensor.numel() * tensor.element_size()


def kept_bytes(operator: str, arguments: Arguments, size_bytes: int) -> int:
    """Return the bytes of the storage that a result of `size_bytes` keeps.

    A loss that is reduced to a number is made at its operands' size and then made smaller, which
    frees nothing. ATen/native/Loss.cpp, TORCH_META_FUNC(mse_loss), TORCH_META_FUNC(smooth_l1_loss).
    """
    if not operator.startswith(_SHRUNK) or not (arguments[2] if len(arguments) > 2 else 1):
        return size_bytes
    one, other = ([1] * (9 - x.dim()) + list(x.shape) for x in arguments[:2])
    elements: int = math.prod(map(max, one, other))  # of both, spread to one shape
    each: int = arguments[0].element_size()
    return max(size_bytes, elements * each)


_SHRUNK = ("aten.mse_loss.default", "aten.smooth_l1_loss.default")


def _masked_scatter(arguments: Arguments, result: Value) -> Groups:
    """A running count of the mask at the result's size, and the mask spread out to it.

    ATen/native/cuda/IndexKernel.cpp, masked_scatter__cuda; IndexKernel.cu,
    launch_masked_scatter_kernel.
    """
    counts = result.numel() * torch.int64.itemsize
    is_whole = arguments[1].shape == result.shape
    return ((counts,) if is_whole else (counts, result.numel()),)


def _mse_loss(arguments: Arguments, _: Value) -> Groups:
    """The differences, before they are reduced. ATen/native/Loss.cpp, mse_loss_out."""
    reduction = arguments[2] if len(arguments) > 2 else 1
    return ((arguments[0].numel() * arguments[0].element_size(),),) if reduction else ()


def _safe_softmax(arguments: Arguments, _: Value) -> Groups:
    """Which scores are minus infinity, and which rows are nothing else, a byte each.

    As torch 2.14.1 allocates on CUDA; ATen/native/SoftMax.cpp, _safe_softmax.
    """
    scores, dim = arguments[:2]
    return ((scores.numel(), scores.numel() // scores.shape[dim]),)


def _laid_by_rows(arguments: Arguments, _: Value) -> Groups:
    """A copy of what is not contiguous.

    ATen/native/cuda/SoftMax.cu, host_softmax; AveragePool3d.cu, UpSampleNearest1d.cu,
    ReflectionPad.cu. A group norm makes it beside its results from torch 2.14 on; before that torch
    makes it first, in an operator of its own.
    """
    copied = _copy_bytes(arguments[0])
    return ((copied,),) if copied else ()


def _laid_as_it_is(arguments: Arguments, _: Value) -> Groups:
    """A copy of what is laid out neither by rows nor by channels.

    ATen/native/cuda/AveragePool2d.cu, DilatedMaxPool2d.cu.
    """
    copied = _copy_bytes(arguments[0], is_by_channels(arguments[0]))
    return ((copied,),) if copied else ()


def _nearest(arguments: Arguments, result: Value) -> Groups:
    """Copies by rows, of the result too; images of four channels and more may lie by channels.

    ATen/native/cuda/UpSampleNearest2d.cu, UpSampleNearest3d.cu.
    """
    source = arguments[0]
    if source.dim() == 4 and source.shape[1] >= 4 and is_by_channels(source):
        return _laid_as_it_is(arguments, result)
    copies = tuple(size for size in (_copy_bytes(result), _copy_bytes(source)) if size)
    return (copies,) if copies else ()


def _bilinear(arguments: Arguments, result: Value) -> Groups:
    """A copy of what is by channels but has gaps. ATen/native/cuda/UpSampleBilinear2d.cu."""
    return _laid_as_it_is(arguments, result) if is_by_channels(arguments[0]) else ()


def _softmax_backward(arguments: Arguments, _: Value) -> Groups:
    """The gradient times the softmax. ATen/native/cuda/SoftMax.cu, softmax_backward_cuda_out."""
    return ((arguments[1].numel() * arguments[1].element_size(),),)


def _flash_backward(arguments: Arguments, _: Value) -> Groups:
    """The softmax's derivative, and the query's gradient summed in fp32.

    ATen/native/transformers/cuda/flash_attn/flash_api.cpp, mha_bwd.
    """
    batch, heads, queries, head = arguments[1].shape
    rows = batch * heads * _rounded(queries, 128) * torch.float32.itemsize
    return ((rows, rows * _rounded(head, 32 if head <= 128 else 64)),)


def _efficient_forward(arguments: Arguments, _: Value) -> Groups:
    """The output summed in fp32, for half-precision heads that one tile of 128 keys does not hold.

    ATen/native/transformers/cuda/attention.cu, _efficient_attention_forward;
    mem_eff_attention/kernel_forward.h, kNeedsOutputAccumulatorBuffer.
    """
    query, value = arguments[0], arguments[2]
    head = value.shape[-1]
    if query.dtype == torch.float32 or head <= 128:
        return ()
    batch, heads, queries, _ = query.shape
    return ((batch * heads * queries * head * torch.float32.itemsize,),)


def _efficient_backward(arguments: Arguments, _: Value) -> Groups:
    """The softmax's derivative, and tiles of the query's gradient summed in fp32.

    ATen/native/transformers/cuda/attention_backward.cu, _efficient_attention_backward;
    mem_eff_attention/kernel_backward.h, Params::workspace_elements_gq. fp32 kernels leave the
    derivative to torch. Assumption: heads above 64 take tiles of the same size (some of their
    kernels take larger ones).
    """
    batch, heads, queries, head = arguments[1].shape
    rows = batch * heads * queries * torch.float32.itemsize
    tiles = batch * heads * -(-queries // _TILE) * -(-head // _TILE)
    workspace = tiles * (16 + _TILE * _TILE * torch.float32.itemsize)
    if arguments[1].dtype != torch.float32:
        return ((rows, workspace),)
    product = arguments[0].numel() * torch.float32.itemsize
    return (product, rows), (rows, workspace)


def _rounded(count: int, step: int) -> int:
    return -(-count // step) * step


_RULES: dict[str, Callable[[Arguments, Value], Groups]] = {
    "aten._scaled_dot_product_efficient_attention.default": _efficient_forward,
    "aten.masked_scatter.": _masked_scatter,
    "aten.mse_loss.": _mse_loss,
    "aten.smooth_l1_loss.": _mse_loss,
    "aten._safe_softmax.": _safe_softmax,
    "aten._softmax.": _laid_by_rows,
    "aten._log_softmax.": _laid_by_rows,
    "aten.native_group_norm.": _laid_by_rows,
    "aten.avg_pool2d.": _laid_as_it_is,
    "aten.max_pool2d_with_indices.": _laid_as_it_is,
    "aten.avg_pool3d.": _laid_by_rows,
    "aten.reflection_pad1d.": _laid_by_rows,
    "aten.reflection_pad2d.": _laid_by_rows,
    "aten.upsample_nearest1d.": _laid_by_rows,
    "aten._upsample_nearest_exact1d.": _laid_by_rows,
    "aten.upsample_nearest2d.": _nearest,
    "aten._upsample_nearest_exact2d.": _nearest,
    "aten.upsample_nearest3d.": _nearest,
    "aten._upsample_nearest_exact3d.": _nearest,
    "aten.upsample_bilinear2d.": _bilinear,
    "aten._softmax_backward_data.": _softmax_backward,
    "aten._scaled_dot_product_flash_attention_backward.": _flash_backward,
    "aten._scaled_dot_product_efficient_attention_backward.": _efficient_backward,
}
