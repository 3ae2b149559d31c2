"""How CUDA lays a result out in memory, where the shape functions on `meta` do it otherwise.

By the layout of its operands a convolution is planned, and operators copy or do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

META = torch.device("meta")

# torch's operator objects and nested arguments have no useful static type
Operator = Any
Value = Any


def laid_out(func: Operator, out: Value, args: Sequence[Value]) -> Value:
    """Return the result of an operator that makes it, on `meta`, as CUDA would lay it out."""
    name = str(func)
    operands = next((n for kind, n in _LAID_OUT.items() if name.startswith(kind)), 0)
    if operands:
        return _laid_by_channels(out, args[:operands])
    return _laid_alike(out, args) if torch.Tag.pointwise in func.tags else out


def _laid_alike(out: Value, operands: Iterable[Value]) -> Value:
    """Return a pointwise result with its operands' strides, where those are all the same.

    ATen/TensorIterator.cpp, fast_set_up. Some shape functions on `meta` give a batch of one another
    stride than its operands have, by which later operators choose a layout.
    """
    tensors = [one for one in operands if isinstance(one, torch.Tensor) and one.dim()]
    if not isinstance(out, torch.Tensor) or not tensors:
        return out
    strides = tensors[0].stride()
    is_alike = all(one.shape == out.shape and one.stride() == strides for one in tensors)
    if not is_alike or out.stride() == strides or not _is_dense(tensors[0]):
        return out
    return torch.empty_strided(out.shape, strides, dtype=out.dtype, device=META)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's elements lie side by side, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= max(1, size)
    return True


def _laid_by_channels(out: torch.Tensor, operands: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return a result as CUDA lays it out: by channels where an operand is so, else by rows.

    ATen/native/ConvUtils.h, cudnn_conv_suggest_memory_format; UpSampleNearest2d.cpp. The shape
    functions on `meta` lay a convolution's result out by rows, and take some batches of one for
    laid out by channels.
    """
    if out.dim() not in _BY_CHANNELS:
        return out
    by_channels = any(is_by_channels(one) for one in operands)
    layout = _BY_CHANNELS[out.dim()] if by_channels else torch.contiguous_format
    return torch.empty_like(out, memory_format=layout)


def has_filter_copy(source: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether a convolution copies its filter, to lay it out by channels as its input is.

    ATen/native/cudnn/ConvShared.cpp, cudnn_convolution_forward_out.
    """
    if not is_by_channels(source):
        return False
    return not weight.is_contiguous(memory_format=_BY_CHANNELS[weight.dim()])


def is_by_channels(tensor: torch.Tensor) -> bool:
    """Return whether torch takes a tensor for laid out by channels.

    c10/core/MemoryFormat.h, is_channels_last_strides_2d_s4 and 3d_s5. (Python's own copy of this
    in torch._prims_common does not look at the stride of a batch of one.)
    """
    sizes, strides = tensor.shape, tensor.stride()
    if tensor.dim() not in _BY_CHANNELS or strides[1] == 0:
        return False
    least = 0
    for side in (1, *range(tensor.dim() - 1, 1, -1), 0):
        if sizes[side] == 0 or strides[side] < least or (side == 0 and least == strides[1]):
            return False
        least = strides[side] * max(1, sizes[side])
    return True


#: dimensions of a tensor -> its layout by channels
_BY_CHANNELS = {4: torch.channels_last, 5: torch.channels_last_3d}
#: operators whose results CUDA lays out by channels if their input, or a convolution's weight, is
_LAID_OUT = {"aten.convolution.": 2, "aten.upsample_nearest": 1}
