"""Python's garbage collector, kept from walking the tape again and again while it is replayed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Hold the cyclic garbage collector for as long as a replay runs.

    A replay makes hundreds of thousands of blocks and keeps most of them to its end, so that
    collections find nothing; they take a third of its time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
