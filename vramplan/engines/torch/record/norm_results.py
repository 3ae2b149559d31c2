"""What operators give on `meta` that torch computes there out of dozens of others, remembered.

torch has no function for the shapes of a group or layer norm: on `meta` it runs the parts of one in
Python, hundreds of checks each, and a VAE or UNet has dozens of norms at every step. What comes out
depends on shapes, strides and types alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from vramplan.engines.torch.record.layouts import META

#: results are new tensors, and nothing that is given is written to
_IN_PARTS = ("aten.native_group_norm.default", "aten.native_layer_norm.default")
_MOST_KNOWN = 4096
#: images of a batch that cuDNN normalises
_MOST_OF_CUDNN = 65535

#: shape, stride and type of each result
_Results = tuple[tuple[tuple[int, ...], tuple[int, ...], torch.dtype], ...]
_known: dict[object, _Results] = {}


def results_of(
    func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Return what an operator gives of tensors on `meta`, computed or as it was before."""
    if name not in _IN_PARTS or kwargs:
        return func(*args, **kwargs)
    key = name, tuple(map(_described, args))
    known = _known.get(key)
    if known is None:
        found = func(*args)
        known = tuple((tuple(one.shape), one.stride(), one.dtype) for one in found)
        if all(map(_is_whole, found)):
            _known[key] = known
            while len(_known) > _MOST_KNOWN:
                del _known[next(iter(_known))]
        return found
    return tuple(
        torch.empty_strided(shape, stride, dtype=dtype, device=META)
        for shape, stride, dtype in known
    )


def kept_of_batch_norm(name: str, args: tuple[Any, ...], out: Any) -> Any:
    """Return a batch norm's results with the numbers that CUDA keeps of its channels.

    cuDNN keeps none where nothing is trained, torch's own kernel one of each kind in fp32.
    ATen/native/Normalization.cpp, _batch_norm_impl_index; cudnn/BatchNorm.cpp; cuda/
    Normalization.cu, batch_norm_cuda.
    """
    if not name.startswith("aten.native_batch_norm."):
        return out
    source, weight, bias = args[:3]
    types = {one.dtype for one in (source, weight, bias) if one is not None}
    is_cudnn = (
        None not in (weight, bias)
        and torch.bfloat16 not in types
        and (source.dtype != torch.float16 or weight.dtype == torch.float32)
        and source.dim() >= 3
        and source.shape[0] <= _MOST_OF_CUDNN
    )
    wide = torch.float32 if source.dtype in (torch.float16, torch.bfloat16) else source.dtype
    kept = 0 if is_cudnn and not args[5] else source.shape[1]
    return out[0], *(out[0].new_empty(kept, dtype=wide) for _ in range(2))


def _described(value: Any) -> object:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.stride(), value.dtype, value.device.type
    return tuple(value) if isinstance(value, list) else value


def _is_whole(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is all of its storage, so that one of its shape takes as much."""
    return (
        tensor.storage_offset() == 0
        and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    )
