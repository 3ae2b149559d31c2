"""The file that a result is written to: never there by half, never replaced unasked."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vramplan.errors import UsageError


class _Made:
    """What this process has written last: a run is kept at once, and again with its estimate."""

    path: Path | None = None


def check_file(path: Path, *, replaces: bool) -> None:
    """Raise UsageError where `path` could not be written, or is there and is not to be replaced.

    An empty file holds nothing that could be lost: ``mktemp`` makes one.
    """
    why = _refusal(path)
    if why is not None:
        raise UsageError(f"{path}: cannot be written: {why}")
    if not replaces and _holds_something(_behind_links(path)):
        raise _is_there(path)


def write_file(path: Path, content: str | bytes, *, replaces: bool = False) -> None:
    """Write text or bytes to `path`, which is never there by half. Raises UsageError."""
    data = content.encode("utf-8") if isinstance(content, str) else content

    def write(beside: Path) -> None:
        is_new = beside != _behind_links(path)
        # "x": a file or a link that somebody else has put there is not followed
        with beside.open("xb" if is_new else "wb") as file:
            file.write(data)

    write_through(path, write, replaces=replaces)


def write_through(path: Path, write: Callable[[Path], None], *, replaces: bool = False) -> None:
    """Have `write` make a file beside `path` and put it in its place, so that it is never half.

    It is on the disk before it takes its place: a full one leaves the old file whole. What is not a
    plain file (a pipe, /dev/null) is written to as it is. Raises UsageError, also where a file is
    there that this process has not made, unless it `replaces` it.
    """
    check_file(path, replaces=replaces)
    named, path = path, _behind_links(path)
    if path.exists() and not path.is_file():
        beside = path
    else:  # of a name as long as the system takes there is no longer one
        beside = path.with_name(f".vramplan-{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        write(beside)
        if beside != path:
            _settle(beside, path)
            _put(beside, path, is_ours=replaces or not _holds_something(path))
            _Made.path = path
    except FileExistsError as problem:  # it was not there when this was checked
        raise _is_there(named) from problem
    except OSError as problem:
        raise UsageError(f"{named}: cannot be written: {problem.strerror}") from problem
    finally:
        if beside != path:
            beside.unlink(missing_ok=True)


def _settle(beside: Path, path: Path) -> None:
    """Bring what was written to the disk, with the permissions of the file that it replaces."""
    with beside.open("rb+") as file:
        os.fsync(file.fileno())
    if path.exists():
        beside.chmod(stat.S_IMODE(path.stat().st_mode))


def _put(beside: Path, path: Path, *, is_ours: bool) -> None:
    """Give `beside` the name `path`; raises FileExistsError for what somebody else put there."""
    if is_ours and path.exists():
        beside.replace(path)
    else:
        try:
            os.link(beside, path)  # unlike a rename, it fails where there is a file by now
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            beside.replace(path)
    with suppress(OSError):  # a folder that cannot be opened for this, as on Windows
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _holds_something(path: Path) -> bool:
    """True where `path` is a file with something in it that this process has not written."""
    return path != _Made.path and path.is_file() and path.stat().st_size > 0


def _is_there(path: Path) -> UsageError:
    return UsageError(f"{path}: is there already", hint="--force replaces it")


def _refusal(path: Path) -> str | None:
    """Return why nothing can be written to `path`, or None."""
    if "\0" in str(path):
        return "no file's name has a NUL"
    if any("\ud800" <= letter < "\udc80" for letter in str(path)):
        return "no file's name has half a character"
    real = _behind_links(path)
    folder = real.parent
    try:
        if real.is_symlink():
            return "its links lead in a circle"
        if real.is_dir():
            return "it is a folder"
        if not folder.is_dir():
            return f"there is no folder {folder}"
        if real.exists() and not os.access(real, os.W_OK):
            return "it is not yours to write to"
        if real.exists() and not real.is_file():  # a device or a pipe is written to as it is
            return None
        if real.exists() and not real.stat().st_mode & 0o222:  # root may, and does not either
            return "it is read-only"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"{folder} is not yours to write to"
    except OSError as problem:  # a name that is too long
        return problem.strerror
    return None


def _behind_links(path: Path) -> Path:
    """Return where `path` leads, so that a link stays one; a circle of links leads to itself."""
    return Path(os.path.realpath(path))
