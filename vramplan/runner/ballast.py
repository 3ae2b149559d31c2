"""Plays a smaller card: holds the rest of a larger one until its stdin ends."""

from __future__ import annotations

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


def hold(
    channel: Channel,
    free_bytes: Callable[[], int],
    open_device: Callable[[], Callable[[int], object]],
) -> None:
    """Hear how many bytes to leave, fill the device's rest, say what is free then, and hold it.

    The device is opened when that is heard and not before, so that the process can be started
    early; `open_device` returns what takes so many bytes of it. Returns never: the channel ends the
    process when the parent lets go.
    """
    leave_bytes = int(channel.hear())
    pieces = fill(leave_bytes, free_bytes, open_device())
    channel.say("held", pieces=len(pieces), free_bytes=free_bytes())
    while True:
        with suppress(KeyboardInterrupt):
            channel.hear()
