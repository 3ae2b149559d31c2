"""Files as strangers give them: what is opened for reading is a file, and opening it never waits.

A pipe without a writer would hold its reader for ever, and a device has no end.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from vramplan.quick_typing import BinaryIO

#: what a pipe's writer may take until its first byte, and between two
_PATIENCE_S = 30.0
_PIECE = 1 << 16

#: opened without it, a pipe waits for its writer; Windows has neither
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)


def open_file(path: Path) -> BinaryIO:
    """Open the plain file at `path`, or what a link there leads to, for reading.

    Raises OSError where it is not there or not readable, and for a folder, a pipe or a device.
    """
    file = _open(path)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "not a file, but a pipe or a device", str(path))


def read_some(path: Path, most: int) -> bytes:
    """Return at most `most` bytes of a file, a device, or a pipe (``<(nvidia-smi)`` in a shell).

    Raises OSError where it is not readable, TimeoutError for a pipe that nobody writes to.
    """
    with _open(path) as file:
        if not stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            return file.read(most)
        return _read_pipe(file, most)


def _open(path: Path) -> BinaryIO:
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "no file's name has a NUL", str(path))
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # half a character, which JSON and YAML may spell
        raise OSError(errno.EINVAL, "no file's name has half a character", str(path)) from None
    descriptor = os.open(path, os.O_RDONLY | _AT_ONCE | _BINARY)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if _AT_ONCE:
        os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


def _read_pipe(file: BinaryIO, most: int) -> bytes:
    import select  # only for a pipe

    data = b""
    while len(data) < most:
        ready, _, _ = select.select([file], [], [], _PATIENCE_S)
        if not ready:
            raise TimeoutError(errno.ETIMEDOUT, f"nothing came in {_PATIENCE_S:g} seconds")
        piece = os.read(file.fileno(), min(_PIECE, most - len(data)))
        if not piece:
            break
        data += piece
    return data
