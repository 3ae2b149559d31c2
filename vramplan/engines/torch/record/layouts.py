"""How CUDA lays a result out in memory, where the shape functions on `meta` do it otherwise.

By the layout of its operands a convolution is planned, and operators copy or do not.
"""

from __future__ import annotations

import functools
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
    if name.startswith(_BY_ROWS):
        return _laid(out, _strides_in(tuple(out.shape), torch.contiguous_format))
    if torch.Tag.pointwise in func.tags or name.startswith(_UNTAGGED):
        return out if name.startswith(_COPIES) else _laid_alike(func, out, args)
    return out


def _laid_alike(func: Operator, out: Value, operands: Sequence[Value]) -> Value:
    """Return a pointwise result laid out by operands of its shape, where these alone decide.

    Some shape functions on `meta` do otherwise where a side is one, and by the strides of a batch
    of one, too, later operators choose a layout.
    """
    tensors = [one for one in operands if isinstance(one, torch.Tensor) and one.dim()]
    if not isinstance(out, torch.Tensor) or not tensors:
        return out
    if any(one.shape != out.shape for one in tensors):
        return out
    strides = (_strides_of_one if _meets_number(func, operands) else _strides_of_alike)(tensors)
    return out if strides is None else _laid(out, strides)


def _laid(out: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    if out.stride() == strides:
        return out
    return torch.empty_strided(out.shape, strides, dtype=out.dtype, device=META)


def _meets_number(func: Operator, operands: Sequence[Value]) -> bool:
    """Return whether an operand is one number, which is another shape than the others have."""
    if any(isinstance(one, torch.Tensor) and not one.dim() for one in operands):
        return True
    if func._overloadname.startswith("Scalar"):
        return not str(func).startswith("aten.lerp.")  # its weight is no operand
    return any(
        isinstance(one, (int, float, complex)) and isinstance(argument.type, torch.TensorType)
        for argument, one in zip(func._schema.arguments, operands, strict=False)
    )


def _strides_of_one(tensors: Sequence[torch.Tensor]) -> tuple[int, ...] | None:
    """Return the strides of what is made of one tensor and numbers; None where there are more.

    ATen/TensorIterator.cpp, reorder_dimensions. Of a tensor of no dimension `meta` makes the same.
    """
    if len(tensors) != 1:
        return None
    return _strides_with_number(tuple(tensors[0].shape), tensors[0].stride())


@functools.lru_cache(maxsize=4096)
def _strides_with_number(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    alike = torch.empty_strided(shape, strides, device=META)
    return tuple(torch.ops.aten.mul.Tensor(alike, torch.empty((), device=META)).stride())


def _strides_of_alike(tensors: Sequence[torch.Tensor]) -> tuple[int, ...] | None:
    """Return the strides of what is made of tensors of one shape; None where it depends on more.

    ATen/TensorIterator.cpp, compute_fast_setup_type, in its order: where a side is one, a tensor
    may be laid out by rows and by channels at once.
    """
    shape, strides = tensors[0].shape, tensors[0].stride()
    for layout in (torch.contiguous_format, torch.channels_last)[: 2 if len(shape) == 4 else 1]:
        if all(one.is_contiguous(memory_format=layout) for one in tensors):
            return _strides_in(tuple(shape), layout)
    is_alike = all(one.stride() == strides for one in tensors)
    return tuple(strides) if is_alike and _is_dense(tensors[0]) else None


@functools.lru_cache(maxsize=4096)
def _strides_in(shape: tuple[int, ...], layout: torch.memory_format) -> tuple[int, ...]:
    return tuple(torch.empty(shape, device=META, memory_format=layout).stride())


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
    if out.dim() not in BY_CHANNELS:
        return out
    by_channels = any(is_by_channels(one) for one in operands)
    layout = BY_CHANNELS[out.dim()] if by_channels else torch.contiguous_format
    return torch.empty_like(out, memory_format=layout)


def has_filter_copy(source: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether a convolution copies its filter, to lay it out by channels as its input is.

    ATen/native/cudnn/ConvShared.cpp, cudnn_convolution_forward_out.
    """
    if not is_by_channels(source):
        return False
    return not weight.is_contiguous(memory_format=BY_CHANNELS[weight.dim()])


def is_by_channels(tensor: torch.Tensor) -> bool:
    """Return whether torch takes a tensor for laid out by channels.

    c10/core/MemoryFormat.h, is_channels_last_strides_2d_s4 and 3d_s5. (Python's own copy of this
    in torch._prims_common does not look at the stride of a batch of one.)
    """
    sizes, strides = tensor.shape, tensor.stride()
    if tensor.dim() not in BY_CHANNELS or strides[1] == 0:
        return False
    least = 0
    for side in (1, *range(tensor.dim() - 1, 1, -1), 0):
        if sizes[side] == 0 or strides[side] < least or (side == 0 and least == strides[1]):
            return False
        least = strides[side] * max(1, sizes[side])
    return True


#: dimensions of a tensor -> its layout by channels
BY_CHANNELS = {4: torch.channels_last, 5: torch.channels_last_3d}
#: pointwise operators whose results are laid out by rows, whatever their operands are:
#: ATen/native/TensorAdvancedIndexing.cpp, masked_fill; Pow.cpp, TORCH_META_FUNC2(pow, Scalar)
_BY_ROWS = ("aten.masked_fill.", "aten.pow.Scalar")
#: what is called pointwise and is not, and what is and is not called so
_COPIES = ("aten.clone.",)
_UNTAGGED = ("aten.hardswish.",)
#: operators whose results CUDA lays out by channels if their input, or a convolution's weight, is
_LAID_OUT = {"aten.convolution.": 2, "aten.upsample_nearest": 1}
