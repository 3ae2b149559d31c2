"""The two ends of the pipes between a measurement and whoever asked for it: lines of JSON.

The child's stdout carries the lines alone; what libraries print goes to stderr. The child ends when
its stdin does, so that nothing outlives a parent that was killed.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

Message = dict[str, Any]

#: exit code of a child whose parent has gone
ORPHANED = 4

_LAST_WORDS = 4_000


class Channel:
    """The child's end."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._words.put(line)
        os._exit(ORPHANED)

    def say(self, kind: str, **said: Any) -> None:
        """Tell the parent something."""
        self._out.write(json.dumps({"say": kind, **said}) + "\n")
        self._out.flush()

    def hear(self) -> str:
        """Wait for the parent's next line and return it."""
        return self._words.get().rstrip("\n")

    def tell_end(self, turn: str, phase: str, component: str) -> None:
        """Tell that a phase has ended, and wait until the parent has looked at the card."""
        self.say("phase_end", turn=turn, phase=phase, component=component)
        self.hear()


class Child:
    """The parent's end: a process in a session of its own, so that a Ctrl-C is the parent's."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._errors = TemporaryFile()  # noqa: SIM115  # lives as long as the child does
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=dict(environment),
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError:
            self._errors.close()
            raise
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        assert self._process.stdout is not None
        threading.Thread(target=self._pump, args=(self._process.stdout,), daemon=True).start()

    def _pump(self, lines: IO[str]) -> None:
        with suppress(ValueError):  # closed while it was read: the child was stopped
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def send(self, line: str) -> None:
        """Say a line to the child; one that has gone is found out by `hear`."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def hear(self, seconds: float) -> Message | None:
        """Return the next message, or None where the child has ended.

        Raises TimeoutError where nothing was said for so long.
        """
        try:
            line = self._lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            self._process.wait()
            return None
        try:
            said = json.loads(line)
        except ValueError:  # cut off in the middle of a line
            return {"say": "noise"}
        return said if isinstance(said, dict) and "say" in said else {"say": "noise"}

    def how_it_ended(self) -> str:
        """Return the exit in words, and the last that was printed."""
        code = self._process.poll()
        if code is not None and code < 0:
            with suppress(ValueError):
                name = signal.Signals(-code).name
                return f"killed by {name}" + self._last_line()
        return f"ended with exit code {code}" + self._last_line()

    def _last_line(self) -> str:
        lines = [line for line in self.last_words().splitlines() if line.strip()]
        return f": {lines[-1].strip()[:300]}" if lines else ""

    def last_words(self) -> str:
        """Return the end of what the child printed."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _LAST_WORDS))
        return self._errors.read().decode("utf-8", errors="replace")

    def stop(self) -> None:
        """End the child, now, and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._errors.close()


def python_command(module: str) -> list[str]:
    """Return the command that runs a module of ours under this interpreter."""
    return [sys.executable, "-m", module]


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with `more`, and with the very vramplan that runs."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}
