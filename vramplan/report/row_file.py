"""A file that grows row by row, can be taken up again, and has one writer at a time.

While it is not complete, ``FILE.sweep`` stands beside it: it says which sweep the rows are of, and
its lock keeps a second one out. A process that is killed leaves whole rows behind, and perhaps a
piece of one, which goes when the sweep is taken up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from vramplan.errors import UsageError

_BLOCK = 1 << 20
#: more than this is no file of ours
_LARGEST_NOTE = 4096


class RowFile:
    """The rows of one sweep on a disk. A context manager; `finish` when all of them are there."""

    def __init__(self, path: Path, key: str, head: bytes, named: Path | None = None) -> None:
        """Lock `path` for the sweep that `key` tells from others, and find the rows it has.

        `named` is what messages call the file. Raises UsageError where another process writes to
        it, where what it has is another sweep's, and where it cannot be written.
        """
        self._path, self._key, self._head = path, key, head
        self._named = named or path
        self._beside = _beside(path)
        self._file: IO[bytes] | None = None
        try:
            self._lock: IO[bytes] | None = _locked(self._beside)
        except OSError as problem:
            raise self._refused(problem) from problem
        if self._lock is None:
            hint = "let it end, or write to another file"
            raise UsageError(f"{self._named}: another sweep writes to it", hint=hint)
        try:
            self._file = self._open()
        except OSError as problem:
            self._close()
            raise self._refused(problem) from problem
        except UsageError:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def take_up(self, start_of: Callable[[int], bytes], most: int) -> int:
        """Return how many whole rows are there, and cut off what is not one.

        `start_of` says what a row begins with: the last one is held against it, as `most` is
        against their number. Raises UsageError for rows that are another sweep's.
        """
        assert self._file is not None
        rows, end, last = 0, 0, b""
        self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            end += len(line)
            rows += 1
            last = line
        if self._head:
            if rows:
                rows -= 1
            else:
                self._file.seek(0)
                self._file.truncate()
                self._file.write(self._head)
                self._file.flush()
                return 0
        if rows > most or (rows and not last.startswith(start_of(rows - 1))):
            raise self._foreign()
        try:
            self._file.truncate(end)
            self._file.seek(end)
        except OSError as problem:
            raise self._refused(problem) from problem
        return rows

    def add(self, rows: bytes) -> None:
        """Write whole rows at the end, at once. Raises UsageError."""
        assert self._file is not None
        try:
            self._file.write(rows)
            self._file.flush()
        except OSError as problem:
            raise self._refused(problem) from problem

    def read(self) -> IO[bytes]:
        """Return the rows from their beginning."""
        assert self._file is not None
        self._file.seek(0)
        return self._file

    def finish(self, *, keeps_rows: bool = True) -> None:
        """Say that the rows are complete; the file beside them goes, and they too unless kept."""
        with suppress(OSError):
            if not keeps_rows:
                self._path.unlink()
            self._beside.unlink()

    def _open(self) -> IO[bytes]:
        """Return the file of the rows, empty unless it is this sweep's own."""
        assert self._lock is not None
        said = self._lock.read(_LARGEST_NOTE)
        key = _key_of(said) if said else None
        if said and key is None:
            raise UsageError(f"{self._beside}: is no sweep's", hint="write to another file")
        is_taken_up = bool(said) and self._path.is_file()
        if is_taken_up and key != self._key:
            raise self._foreign()
        file = self._path.open("r+b" if is_taken_up else "w+b")
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(json.dumps({"sweep": self._key}).encode() + b"\n")
        self._lock.flush()
        return file

    def _foreign(self) -> UsageError:
        hint = f"write to another file, or delete {self._beside} to begin anew"
        return UsageError(f"{self._named}: has the rows of another sweep, not complete", hint=hint)

    def _refused(self, problem: OSError) -> UsageError:
        return UsageError(f"{self._named}: cannot be written: {problem.strerror}")

    def _close(self) -> None:
        for file in (self._file, self._lock):
            if file is not None:
                with suppress(OSError):  # what could not be written has been said
                    file.close()
        self._file = self._lock = None


def unfinished(path: Path) -> bool:
    """Return whether a sweep has begun to write to `path` and is not through."""
    return _beside(path).is_file()


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sweep")


def _key_of(said: bytes) -> object:
    try:
        found = json.loads(said)
    except ValueError:
        return None
    return found.get("sweep") if isinstance(found, dict) else None


def _locked(path: Path) -> IO[bytes] | None:
    """Return the file at `path`, ours alone until it is closed; None where it is another's.

    Whoever ends a sweep deletes the file, so what was locked may no longer be what stands there.
    """
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags, 0o666), "r+b")
        if not _lock(file):
            file.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _lock(file: IO[bytes]) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return _lock_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_on_windows(file: IO[bytes]) -> bool:
    import msvcrt

    try:
        # a byte far behind what is read and written
        file.seek(_BLOCK)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # Windows
    except OSError:
        return False
    finally:
        file.seek(0)
    return True
