"""The three standard streams, where one of them is closed: ``2>&-`` in a shell, ``pythonw``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from vramplan.errors import UsageError
from vramplan.quick_typing import TextIO


def open_streams() -> None:
    """Put something where a standard stream is closed, so that every other writer is right.

    What goes to a closed stderr goes nowhere; writing to a closed stdout fails, as it must, when
    it is flushed. Descriptors are taken too: a file that is opened next would get the number of
    stdout, and what a library prints would end in it. `sys.stdin` stays None.
    """
    if sys.stdin is None:
        _take(0, os.O_RDONLY)
    if sys.stdout is None:
        _take(1, os.O_RDONLY)  # nothing can be written to what is open for reading
        sys.stdout = _writer(1)
    if sys.stderr is None:
        _take(2, os.O_WRONLY)
        sys.stderr = _writer(2)


def _take(number: int, flags: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        found = os.open(os.devnull, flags)
        if found != number:
            os.dup2(found, number)
            os.close(found)
        os.set_inheritable(number, True)  # noqa: FBT003  # the one parameter it has


def _writer(number: int) -> TextIO:
    return os.fdopen(number, "w", encoding="utf-8", errors="replace", closefd=False)


def write_stdout(text: str) -> bool:
    """Write to stdout now; a reader that has gone away (``| head``) is no error.

    Returns whether it is still there. Raises UsageError where stdout cannot be written, such as a
    full disk.
    """
    if not text.isascii():
        from vramplan.report.text import for_encoding

        text = for_encoding(text, sys.stdout.encoding)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)  # Python would try, and fail, once more at its exit
        return False
    except OSError as problem:
        silence(sys.stdout)
        raise UsageError(f"standard output cannot be written: {problem.strerror}") from problem
    return True


class _Line:
    """The line of a terminal that shows progress: whether it stands there now."""

    stands = False


LINE = _Line()


def tell(text: str) -> None:
    """Write to stderr at once; where nobody listens any more, nothing happens."""
    if LINE.stands:
        LINE.stands = False
        text = f"\r\x1b[2K{text}"
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def is_watched() -> bool:
    """Return whether stderr is a terminal."""
    try:
        return sys.stderr.isatty()
    except ValueError:  # a program has closed it
        return False


def silence(stream: TextIO) -> None:
    """Send a stream that cannot be written to nowhere, so that Python's exit stays quiet."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
