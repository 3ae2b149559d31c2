"""Plays a smaller card: holds the rest of a larger one until its stdin ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from vramplan.runner.channel import Channel

#: the driver hands memory out in pages of this
STEP_BYTES = 2 << 20
_LARGEST_BYTES = 1 << 30

Piece = TypeVar("Piece")


def fill(
    leave_bytes: int, free_bytes: Callable[[], int], take: Callable[[int], Piece]
) -> list[Piece]:
    """Take pieces until `free_bytes` is within a step of `leave_bytes`, and return them.

    `take` allocates so many bytes on the device and raises RuntimeError where they are not there in
    one piece. What is free is read again after every piece: the driver's tables grow as well.
    """
    held: list[Piece] = []
    size = _LARGEST_BYTES
    while (rest := free_bytes() - leave_bytes) >= STEP_BYTES and size >= STEP_BYTES:
        size = min(size, rest // STEP_BYTES * STEP_BYTES)
        try:
            held.append(take(size))
        except RuntimeError:
            size //= 2
    return held


def hold(free_bytes: Callable[[], int]) -> None:
    """Hear how many bytes to leave, fill the device's rest, say what is free then, and hold it.

    The device is touched when that is heard and not before, so that the process can be started
    early. Returns never: the channel ends the process when the parent lets go. torch's caching
    allocator would take pieces below 10 MiB in segments of 20 MiB and leave too little, so it is
    off: every tensor is a cudaMalloc of its own (c10/cuda/CUDACachingAllocator.cpp,
    forceUncachedAllocator).
    """
    os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # read at the first allocation
    import torch

    channel = Channel()
    leave_bytes = int(channel.hear())
    device = torch.device("cuda", 0)
    torch.empty(1, device=device)  # the context, before what is free is looked at

    def take(size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, device=device)

    pieces = fill(leave_bytes, free_bytes, take)
    channel.say("held", pieces=len(pieces), free_bytes=free_bytes())
    while True:
        with suppress(KeyboardInterrupt):
            channel.hear()
