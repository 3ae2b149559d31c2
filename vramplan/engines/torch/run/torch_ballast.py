"""The memory that plays a smaller card, taken through torch."""

from __future__ import annotations

import os
from collections.abc import Callable

from vramplan.runner.ballast import hold
from vramplan.runner.channel import Channel


def hold_rest(free_bytes: Callable[[], int]) -> None:
    """Hold what a larger card has beyond a smaller one, until the parent lets go.

    torch's caching allocator would take pieces below 10 MiB in segments of 20 MiB and leave too
    little, so it is off: every tensor is a cudaMalloc of its own
    (c10/cuda/CUDACachingAllocator.cpp, forceUncachedAllocator).
    """
    os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # read at the first allocation
    import torch

    def open_device() -> Callable[[int], torch.Tensor]:
        device = torch.device("cuda", 0)
        torch.empty(1, device=device)  # the context, before what is free is looked at
        return lambda size: torch.empty(size, dtype=torch.uint8, device=device)

    hold(Channel(), free_bytes, open_device)
