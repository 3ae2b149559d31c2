"""What a user hands to a command: a file's bytes, or what comes on stdin, of a bounded length."""

from __future__ import annotations

import sys
from pathlib import Path

from vramplan.errors import UsageError
from vramplan.opened_file import read_some


def read_pasted(name: str, most: int) -> bytes:
    """Return the first `most` bytes of the file `name`, or of stdin for ``-``.

    Raises UsageError where it cannot be read.
    """
    try:
        return _read_stdin(most) if name == "-" else read_some(Path(name), most)
    except OSError as problem:
        raise UsageError(f"{name}: cannot be read: {problem.strerror}") from problem


def _read_stdin(most: int) -> bytes:
    if sys.stdin is None:
        raise UsageError("-: standard input is closed")
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:  # a stream of text that a program has put there
        return sys.stdin.read(most).encode("utf-8", errors="replace")
    data: bytes = stream.read(most)
    return data
