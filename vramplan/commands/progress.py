"""What is shown while long work goes on: one line that changes on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vramplan.commands.output import note
from vramplan.commands.streams import is_watched, tell

#: hears what is being done
Show = Callable[[str], None]

#: work that takes longer than this is shown on a terminal
_PATIENCE_S = 1.0


@contextmanager
def progress() -> Iterator[Show]:
    """Give what shows the step at hand: on a terminal, from the second second on, on one line."""
    begun = time.monotonic()
    is_shown = False

    def show(step: str) -> None:
        nonlocal is_shown
        if is_watched() and time.monotonic() - begun > _PATIENCE_S:
            _rewrite(f"trying {step}")
            is_shown = True

    try:
        yield show
    finally:
        if is_shown:
            _rewrite("")


@contextmanager
def showing_progress() -> Iterator[Show]:
    """Give what shows a step, each once; the line of a terminal goes away in the end."""
    last = [""]

    def show(text: str) -> None:
        if text == last[0]:
            return
        last[0] = text
        if is_watched():
            _rewrite(text)
        else:
            note(text)

    try:
        yield show
    finally:
        if last[0] and is_watched():
            _rewrite("")


@contextmanager
def showing_kinds(verb: str) -> Iterator[Show]:
    """Give what shows the steps of hundreds of runs: in a log, each kind of run gets one line."""
    shown: set[str] = set()

    def show(step: str) -> None:
        kind = step.partition("  run ")[0]
        if is_watched():
            _rewrite(step)
        elif kind not in shown:
            note(f"{verb}: {kind}")
        shown.add(kind)

    try:
        yield show
    finally:
        if shown and is_watched():
            _rewrite("")


def _rewrite(text: str) -> None:
    """Write over the line of a terminal."""
    from vramplan.report.text import clean, for_encoding

    tell(f"\r\x1b[2K{for_encoding(clean(text, 79), sys.stderr.encoding)}")
