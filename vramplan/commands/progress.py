"""What is shown while long work goes on: the step at hand, on one line of a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: work that takes longer than this is shown on a terminal
_PATIENCE_S = 1.0


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give what shows the step at hand: on a terminal, from the second second on, on one line."""
    begun = time.monotonic()
    is_shown = False

    def show(step: str) -> None:
        nonlocal is_shown
        if sys.stderr.isatty() and time.monotonic() - begun > _PATIENCE_S:
            from vramplan.report.text import clean, for_encoding

            line = for_encoding(clean(f"trying {step}", 79), sys.stderr.encoding)
            sys.stderr.write(f"\r\x1b[2K{line}")
            sys.stderr.flush()
            is_shown = True

    try:
        yield show
    finally:
        if is_shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
