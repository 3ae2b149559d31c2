"""Processes with the engine in them that start at once: forks of one that has loaded its library.

The accuracy tests ask the engine a thousand times, each in a process of its own, and half of what
such a process takes is Python's start, the modules and the engine's library. Here one process does
that once; for each question it makes a copy of itself, which runs a program as ``python -m`` does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from vramplan.engines.ggml import engine_process

#: what is loaded before it is asked, and may be run
PROGRAMS = (
    "vramplan.engines.ggml.witness.dry_run",
    "vramplan.engines.ggml.witness.record_graph",
)
MAKES = str(Path(__file__).with_name("engine_makes.py"))

#: that the engine may take to make a model
_SECONDS = 120

_SERVER = f"""
import ctypes, importlib.util, json, os, runpy, socket, sys
for name in {PROGRAMS!r}:
    __import__(name)
from vramplan.engines.ggml.witness import dry_run, unread
from vramplan.engines.ggml.witness.llama_library import open_library
from pathlib import Path
folder = Path(importlib.util.find_spec("xllamacpp").submodule_search_locations[0])
unread.leave_data_unread(Path(open_library(folder)._name))  # which a copy need not do again
unread.leave_data_unread = dry_run.leave_data_unread = lambda _: None
asked = socket.socket(fileno=int(sys.argv[1]))
while True:
    head, streams, _, _ = socket.recv_fds(asked, 8, 2)
    if not head:
        os._exit(0)
    left, raw = int.from_bytes(head, "little"), b""
    while len(raw) < left:
        raw += asked.recv(left - len(raw))
    pid = os.fork()
    if pid == 0:
        asked.close()
        os.setsid()
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
            os.close(stream)
        folder, program, *words = json.loads(raw)
        os.chdir(folder)
        sys.argv = [program, *words]
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        os._exit(0)
    for stream in streams:
        os.close(stream)
    asked.sendall(pid.to_bytes(8, "little"))
    _, status = os.waitpid(pid, 0)
    asked.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "little", signed=True))
"""

_lock = threading.Lock()
_servers: list[tuple[socket.socket, subprocess.Popen[bytes]]] = []


def _server() -> socket.socket:
    """Return the way to the process that is copied; it ends with this one at the latest."""
    if not _servers:
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={
                "PATH": "",
                "GGML_NO_BACKTRACE": "1",
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
        )
        theirs.close()
        _servers.append((ours, process))
    return _servers[0][0]


def end() -> None:
    """Let the process that is copied end, if there is one."""
    while _servers:
        ours, process = _servers.pop()
        ours.close()
        process.wait()


class Forked:
    """A copy that runs a program: as much of `subprocess.Popen` as is asked of one."""

    def __init__(self, words: Sequence[str], stdout: int, stderr: int | IO[bytes]) -> None:
        raw = json.dumps([str(Path.cwd()), *words]).encode()
        self.returncode: int | None = None
        self.stdout, out = _stream(stdout)
        self.stderr, err = _stream(stderr)
        self._server = _server()
        socket.send_fds(self._server, [len(raw).to_bytes(8, "little")], [out, err])
        self._server.sendall(raw)
        os.close(out)
        os.close(err)
        self.pid = int.from_bytes(self._told(), "little")

    def _told(self) -> bytes:
        found = b""
        while len(found) < 8:
            part = self._server.recv(8 - len(found))
            assert part, "the process that is copied is gone"
            found += part
        return found

    def kill(self) -> None:
        """End it."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Return its exit code once it is over; below 0 it is a signal's number."""
        if self.returncode is None:
            self.returncode = int.from_bytes(self._told(), "little", signed=True)
        return self.returncode

    def __enter__(self) -> Self:
        _lock.acquire()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _problem: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        try:
            for stream in (self.stdout, self.stderr):
                if stream is not None:
                    stream.close()
            self.wait()
        finally:
            _lock.release()


def _stream(wanted: int | IO[bytes]) -> tuple[IO[bytes] | None, int]:
    """Return what is read here, and the copy's end of it."""
    if wanted == subprocess.PIPE:
        read, write = os.pipe()
        return os.fdopen(read, "rb"), write
    if wanted == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    assert not isinstance(wanted, int)
    return None, os.dup(wanted.fileno())


started_alone = engine_process.start


def start(
    arguments: Sequence[str], *, stdout: int, stderr: int | IO[bytes]
) -> subprocess.Popen[bytes] | Forked:
    """Do as `engine_process.start`, at once where the program is one of ours."""
    if arguments[0] == "-m" and arguments[1] in PROGRAMS:
        return Forked(arguments[1:], stdout, stderr)
    return started_alone(arguments, stdout=stdout, stderr=stderr)


def make(*words: str) -> None:
    """Let the engine make a model (`engine_makes`), whatever comes of it."""
    nothing = subprocess.DEVNULL
    with Forked([MAKES, *words], nothing, nothing) as engine:
        timer = threading.Timer(_SECONDS, engine.kill)
        timer.start()
        engine.wait()
        timer.cancel()
