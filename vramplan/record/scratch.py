"""What CUDA kernels take beside their results: temporaries inside one operator, unseen on `meta`.

The shape functions that run on `meta` know an operator's results only. What its CUDA implementation
allocates besides, and gives back before it returns, is listed here, operator by operator, as pytorch
2.13's source has it. Left out are temporaries that never reach a MiB (scans' and reductions' buffers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Value = Any
Arguments = tuple[Value, ...]


def temporaries(operator: str, arguments: Arguments, result: Value) -> tuple[int, ...]:
    """Return the bytes of each temporary of `operator`, in the order in which it takes them."""
    for name, rule in _RULES.items():
        if operator.startswith(name):
            return rule(arguments, result)
    return ()


def _masked_scatter(arguments: Arguments, result: Value) -> tuple[int, ...]:
    """A running count of the mask at the result's size, and the mask spread out to it.

    aten/src/ATen/native/cuda/IndexKernel.cpp, masked_scatter__cuda; IndexKernel.cu,
    launch_masked_scatter_kernel.
    """
    counts = result.numel() * torch.int64.itemsize
    mask = arguments[1]
    return (counts,) if mask.shape == result.shape else (counts, result.numel())


_RULES: dict[str, Callable[[Arguments, Value], tuple[int, ...]]] = {
    "aten.masked_scatter.": _masked_scatter,
}
