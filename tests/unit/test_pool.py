"""Work on several processes: in order, bounded, and with an end for every worker."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice

import pytest

from vramplan.errors import UsageError, VramplanError
from vramplan.runner.pool import map_in_processes
from vramplan.units import parse_size


def started(function: Callable[[str], object]) -> Callable[[], Callable[[str], object]]:
    return partial(partial, function)


def test_results_come_in_the_order_of_the_tasks() -> None:
    slow_first = [0.2, 0.0, 0.1, 0.0, 0.0]
    tasks = [f"{n}MiB" for n in range(200)]
    assert list(map_in_processes(started(parse_size), tasks, 3)) == [n << 20 for n in range(200)]
    assert list(map_in_processes(partial(partial, time.sleep), slow_first, 2)) == [None] * 5


def test_tasks_are_taken_only_as_far_as_results_are() -> None:
    taken = []

    def tasks() -> Iterator[str]:
        for number in count():
            taken.append(number)
            yield "1MiB"

    results = map_in_processes(started(parse_size), tasks(), 2)
    assert list(islice(results, 10)) == [1 << 20] * 10
    results.close()  # type: ignore[attr-defined]  # a generator is what it is
    assert len(taken) < 100


def test_what_a_task_raises_is_raised_here_with_its_hint() -> None:
    with pytest.raises(UsageError, match="not a size: 'x'") as caught:
        list(map_in_processes(started(parse_size), ["1MiB", "x"], 2))
    assert caught.value.hint


def test_a_mistake_in_a_worker_is_named_in_one_line() -> None:
    with pytest.raises(VramplanError, match="ended with exit code 1: TypeError"):
        list(map_in_processes(partial(partial, time.sleep), ["x"], 1))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_a_worker_that_is_killed_is_named() -> None:
    kill = partial(partial, signal.raise_signal)
    with pytest.raises(VramplanError, match="was killed by SIGKILL") as caught:
        list(map_in_processes(kill, [signal.SIGKILL], 1))
    assert caught.value.hint == "fewer --jobs take less memory"
