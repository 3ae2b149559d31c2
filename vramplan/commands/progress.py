"""What is shown while long work goes on: one line that changes on a terminal, lines in a log.

Work over a second shows what it does, how much of how much is done, the time it took and about the
time that is left; in a pipe that is a line every ten seconds. ``--quiet`` shows nothing. A library
for this costs more to import than `check` takes; a thread by `_thread` costs nothing.
"""

from __future__ import annotations

import _thread
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vramplan.commands.output import note
from vramplan.commands.streams import is_watched
from vramplan.commands.terminal_line import rewrite

#: work that takes longer than this is shown
_PATIENCE_S = 1.0
#: how often a line of a terminal is drawn anew, and how often a log gets one
_REDRAW_S, _LOG_S = 0.25, 10.0


class Progress:
    """Hears what is being done and how far it is; is called as ``show(step, done, total)``.

    `total` 0 stands for work of unknown length.
    """

    def __init__(self, verb: str, patience_s: float, kind: Callable[[str], str | None]) -> None:
        self._verb = verb
        self._kind = kind
        self._told: set[str] = set()
        self._step, self._done, self._total = "", 0, 0
        self._first: int | None = None  # what was done before we began
        self._begun_s = self._advanced_s = time.monotonic()
        self._patience_s = patience_s
        self._last_s = self._begun_s + min(patience_s, 0.0)
        self._is_watched = is_watched()
        self._end, self._ended = _thread.allocate_lock(), _thread.allocate_lock()
        self._end.acquire()
        self._ended.acquire()
        _thread.start_new_thread(self._tick, ())

    def __call__(self, step: str, done: int = 0, total: int = 0) -> None:
        """Say what is done now."""
        if self._first is None or done < self._done:  # other work begins
            self._first, self._begun_s = done, time.monotonic()
            self._advanced_s = self._begun_s
        elif done > self._done:
            self._advanced_s = time.monotonic()
        self._step, self._done, self._total = step, done, total
        if self._is_watched:
            self._draw()
            return
        kind = self._kind(step)
        if kind is not None and kind not in self._told:
            self._told = {kind} if kind == step else self._told | {kind}
            self._last_s = time.monotonic()
            note(f"{self._verb}: {kind}" if self._verb else kind)

    def stop(self) -> None:
        """Stop showing; the line of a terminal goes away."""
        self._end.release()
        self._ended.acquire()
        if self._is_watched:
            rewrite("")

    def _tick(self) -> None:
        period_s = _REDRAW_S if self._is_watched else _LOG_S
        while not self._end.acquire(timeout=period_s):
            if self._is_watched:
                self._draw()
            elif self._step and time.monotonic() - self._last_s >= _LOG_S * 0.9:
                note(self._line())
        self._ended.release()

    def _draw(self) -> None:
        now = time.monotonic()
        is_due = now - self._last_s >= _REDRAW_S or self._patience_s == 0
        if self._step and is_due and now - self._begun_s >= self._patience_s:
            self._last_s = now
            rewrite(self._line(with_bar=True))

    def _line(self, *, with_bar: bool = False) -> str:
        from vramplan.report.progress_line import draw, tell

        now, first = time.monotonic(), self._first or 0
        taken_s, since_s = now - self._begun_s, now - self._advanced_s
        at = self._done, self._total, first, taken_s if taken_s >= _PATIENCE_S else 0.0, since_s
        if with_bar:
            return draw(self._step, *at)
        return tell(f"{self._verb}: {self._step}" if self._verb else self._step, *at)


def _no_kind(_step: str) -> None:
    return None


def _run_kind(step: str) -> str:
    return step.partition("  run ")[0]


@contextmanager
def progress(args: Namespace, verb: str = "") -> Iterator[Callable[..., None]]:
    """Give what shows the step at hand once the work takes more than a second."""
    with _shown(args, verb, _PATIENCE_S, _no_kind) as show:
        yield show


@contextmanager
def progress_of_steps(args: Namespace) -> Iterator[Callable[..., None]]:
    """Give what shows a step from its beginning on; in a log each has a line, once in a row."""
    with _shown(args, "", 0.0, str) as show:
        yield show


@contextmanager
def progress_of_runs(args: Namespace, verb: str) -> Iterator[Callable[..., None]]:
    """Give what shows the steps of hundreds of runs: in a log, each kind of run gets one line."""
    with _shown(args, verb, 0.0, _run_kind) as show:
        yield show


@contextmanager
def _shown(
    args: Namespace, verb: str, patience_s: float, kind: Callable[[str], str | None]
) -> Iterator[Callable[..., None]]:
    if args.quiet:
        yield _unheard
        return
    shown = Progress(verb, patience_s, kind)
    try:
        yield shown
    finally:
        shown.stop()


def _unheard(_step: str, _done: int = 0, _total: int = 0) -> None:
    return
