"""Samples a card from a thread of its own, for peaks that nobody announces."""

from __future__ import annotations

import statistics
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import pairwise
from types import TracebackType
from typing import Self

#: used bytes of the device, and of the process that is watched where they are known
Sample = tuple[int, int | None]

#: five hours at 5 ms take half of it
_MOST = 8_000_000


class Sampler:
    """A context manager that calls `look` every `period_s` until it is left.

    What `look` raises ends the sampling and is kept in `problem`: a thread has nobody to tell.
    """

    def __init__(self, look: Callable[[], Sample], period_s: float) -> None:
        self._look = look
        self._wanted_s = period_s
        self._times: list[float] = []
        self._device: list[int] = []
        self._process: list[int | None] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.problem: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._stop.is_set() and len(self._times) < _MOST:
                device, process = self._look()
                self._device.append(device)
                self._process.append(process)
                self._times.append(time.monotonic())  # last: readers go by it
                due = max(due + self._wanted_s, self._times[-1])
                self._stop.wait(max(0.0, due - time.monotonic()))
        except Exception as problem:  # noqa: BLE001  # whatever it was, the run goes on without
            self.problem = problem

    @property
    def period_s(self) -> float | None:
        """The time between two samples as it really was, in the middle; None below two samples."""
        times = self._times[:]
        if len(times) < 2:
            return None
        return statistics.median(b - a for a, b in pairwise(times))

    def device_peak(self, began_s: float, ended_s: float) -> int | None:
        """Return the most that was used of the device in between, or None without a sample."""
        first, last = self._between(began_s, ended_s)
        return max(self._device[first:last], default=None)

    def process_peak(self, began_s: float, ended_s: float) -> int | None:
        """Return the most that the process held in between, or None where that is not known."""
        first, last = self._between(began_s, ended_s)
        return max((one for one in self._process[first:last] if one is not None), default=None)

    def _between(self, began_s: float, ended_s: float) -> tuple[int, int]:
        return bisect_left(self._times, began_s), bisect_right(self._times, ended_s)
