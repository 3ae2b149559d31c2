"""The same work on all cores: processes that take tasks and give their results back in order.

Each is a fresh interpreter with a pipe at both ends, so nothing of the caller's program is run
again, nothing is inherited, and a worker whose parent has gone ends by itself. Tasks and results
are pickled, between processes of ours alone.
"""

from __future__ import annotations

import pickle
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO, Generic, TypeVar, cast

from vramplan.errors import VramplanError
from vramplan.runner.channel import child_environment, python_command

Task = TypeVar("Task")
Result = TypeVar("Result")

#: makes the function that a worker calls for each task; called once in each worker
Start = Callable[[], Callable[[Task], Result]]

#: tasks that are out for each worker, so that none waits while the first of them takes its time
_AHEAD = 16
_LAST_WORDS = 4_000

#: place of the worker, and the result or what went wrong; None where the worker has ended
_Said = tuple[int, "tuple[bool, object] | None"]


def map_in_processes(
    start: Start[Task, Result], tasks: Iterable[Task], jobs: int
) -> Iterator[Result]:
    """Yield the result of each task, in their order, computed by `jobs` processes.

    `start` is picklable and makes the function; what that raises is raised here. Raises
    VramplanError where a worker ends before its work does. A bounded number of tasks is out at a
    time; leaving the iterator ends the workers.
    """
    team = _Team(start, jobs)
    try:
        yield from team.results(tasks)
    finally:
        team.stop()


class _Team(Generic[Task, Result]):
    def __init__(self, start: Start[Task, Result], jobs: int) -> None:
        self._said: queue.SimpleQueue[_Said] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        words = pickle.dumps(start)
        try:
            for place in range(jobs):
                self._workers.append(_Worker(place, words, self._said))
        except OSError as problem:
            self.stop()
            said = f"no process could be started: {problem.strerror}"
            raise VramplanError(said, hint="--jobs 1 needs none") from problem

    def results(self, tasks: Iterable[Task]) -> Iterator[Result]:
        waiting = iter(enumerate(tasks))
        at_work: dict[int, int] = {}  # worker -> number of its task
        done: dict[int, Result] = {}
        idle = [worker.place for worker in self._workers]
        following, is_all_out = 0, False
        while True:
            while idle and not is_all_out and self._is_near(at_work, done, following):
                number, task = next(waiting, (None, None))
                if number is None:
                    is_all_out = True
                    break
                place = idle.pop()
                at_work[place] = number
                self._workers[place].send(task)
            if not at_work:
                return
            place, result = self._hear()
            done[at_work.pop(place)] = result
            idle.append(place)
            while following in done:
                yield done.pop(following)
                following += 1

    def _is_near(self, at_work: dict[int, int], done: dict[int, Result], following: int) -> bool:
        """Return whether another task may go out: results that wait for a slow one are bounded."""
        most = max((*at_work.values(), *done), default=following)
        return most - following < _AHEAD * len(self._workers)

    def _hear(self) -> tuple[int, Result]:
        place, said = self._said.get()
        if said is None:
            how = self._workers[place].how_it_ended()
            raise VramplanError(
                f"a process of the sweep {how}", hint="fewer --jobs take less memory"
            )
        is_result, value = said
        if not is_result:
            raise cast("Exception", value)
        return place, cast("Result", value)

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()


class _Worker:
    """The parent's end of one process."""

    def __init__(self, place: int, start: bytes, said: queue.SimpleQueue[_Said]) -> None:
        self.place = place
        self._errors = TemporaryFile()  # noqa: SIM115  # lives as long as the process does
        try:
            self._process = subprocess.Popen(
                python_command("vramplan.runner.pool_worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=child_environment({}),
                start_new_session=True,  # a Ctrl-C is the parent's
            )
        except OSError:
            self._errors.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._listener = self._listen(self._process.stdout, said)
        self._write(start)

    def _listen(self, stdout: IO[bytes], said: queue.SimpleQueue[_Said]) -> threading.Thread:
        def listen() -> None:
            with stdout, suppress(EOFError, OSError, pickle.UnpicklingError):
                while True:
                    said.put((self.place, pickle.load(stdout)))  # noqa: S301  # our own process
            said.put((self.place, None))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        return thread

    def send(self, task: object) -> None:
        self._write(pickle.dumps(task))

    def _write(self, words: bytes) -> None:
        with suppress(OSError):  # it has gone: the listener says so
            self._stdin.write(words)
            self._stdin.flush()

    def how_it_ended(self) -> str:
        code = self._process.wait()
        if code < 0:
            with suppress(ValueError):
                return f"was killed by {signal.Signals(-code).name}"
        self._errors.seek(max(0, self._errors.seek(0, 2) - _LAST_WORDS))
        lines = self._errors.read().decode("utf-8", errors="replace").split("\n")
        last = [line.strip() for line in lines if line.strip()]
        return f"ended with exit code {code}" + (f": {last[-1][:300]}" if last else "")

    def stop(self) -> None:
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._listener.join()
        with suppress(OSError):
            self._stdin.close()
        self._errors.close()
