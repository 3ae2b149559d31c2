"""Whether models without a tape are recorded on the spot, which takes up to minutes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: set to ``off``, nothing is recorded: weights are counted and the rest is assumed
SWITCH = "VRAMPLAN_RECORD"
_OFF = "off"


def is_off() -> bool:
    """Return whether nothing is recorded."""
    return os.environ.get(SWITCH, "").lower() == _OFF


@contextmanager
def switched_off(*, is_wanted: bool = True) -> Iterator[None]:
    """Record nothing meanwhile, in the processes that are started too; or do as before."""
    before = os.environ.get(SWITCH)
    if is_wanted:
        os.environ[SWITCH] = _OFF
    try:
        yield
    finally:
        if is_wanted and before is None:
            del os.environ[SWITCH]
        elif is_wanted and before is not None:
            os.environ[SWITCH] = before
