"""What happens when somebody ends a measurement or a recording from outside."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

#: how `kill`, `timeout`, a service manager and a terminal that is closed end a program
_ENDS = ("SIGTERM", "SIGHUP")


@contextmanager
def ending_tidily() -> Iterator[None]:
    """End on SIGTERM and SIGHUP as on Ctrl-C, so that what was started is stopped.

    Python dies of them at once by default, and a server of ours would keep the card's memory. A
    signal that is ignored (`nohup`) stays so; outside the main thread nothing is changed.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _ENDS:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
