"""Where a command's result goes: stdout or a file, in the format that was asked for."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from vramplan.errors import UsageError
from vramplan.report.look import FILE_WIDTH, Look

#: what a file's suffix says about its format
SUFFIXES = {
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".json": "json",
    ".txt": "table",
}

#: makes the result's text; takes whether colour is wanted and how wide a line may be
Writer = Callable[[bool, int], str]

#: makes the result's text as it is to look
Render = Callable[[Look], str]


def choose_format(args: Namespace) -> str:
    """Return the format of ``--format``, or of the suffix of ``-o``, or the command's default.

    Raises UsageError for a suffix whose format the command does not have.
    """
    if args.format:
        return str(args.format)
    suffix = Path(args.output).suffix.lower() if args.output else ""
    chosen = SUFFIXES.get(suffix, str(args.default_format))
    if chosen not in args.formats:
        hint = "formats: " + ", ".join(args.formats)
        raise UsageError(f"{args.output}: {args.command} has no {chosen}", hint=hint)
    return chosen


def check_output(args: Namespace) -> None:
    """Raise UsageError where the result could not be written, before much is done to have one."""
    choose_format(args)
    if not args.output or args.output == "-":
        return
    path = Path(args.output).resolve()
    folder = path.parent
    if path.is_dir():
        raise UsageError(f"{path}: cannot be written: it is a folder")
    if not folder.is_dir():
        raise UsageError(f"{path}: cannot be written: there is no folder {folder}")
    if not path.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: cannot be written: {folder} is not yours to write to")


def show(args: Namespace, render: Render) -> None:
    """Write a result as it is asked for, to a file or to stdout: `render` makes its text."""
    chosen = choose_format(args)

    def writer(colour: bool, width: int) -> str:
        look = Look(format=chosen, command=args.command, colour=colour, width=width)
        return render(look)

    write_result(args, {chosen: writer})


def write_result(args: Namespace, writers: Mapping[str, Writer]) -> None:
    """Write the result with the one of `writers` that is asked for, to a file or to stdout."""
    writer = writers[choose_format(args)]
    if args.output and args.output != "-":
        path = Path(args.output)
        write_file(path, writer(False, FILE_WIDTH))  # noqa: FBT003  # Writer's two parameters
        note(f"wrote {path}")
        return
    write_stdout(writer(*_terminal(sys.stdout)))


def _terminal(stream: TextIO) -> tuple[bool, int]:
    """Return whether colour is wanted on `stream`, and its width."""
    if not stream.isatty():
        return False, FILE_WIDTH
    import shutil

    from vramplan.report.colour import wants_colour

    return wants_colour(stream, os.environ), shutil.get_terminal_size((FILE_WIDTH, 24)).columns


def write_stdout(text: str) -> None:
    """Write to stdout now; a reader that has gone away (``| head``) is no error.

    Raises UsageError where stdout cannot be written, such as a full disk.
    """
    if not text.isascii():
        from vramplan.report.text import for_encoding

        text = for_encoding(text, sys.stdout.encoding)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
    except OSError as problem:
        _abandon_stdout()
        raise UsageError(f"standard output cannot be written: {problem.strerror}") from problem


def _abandon_stdout() -> None:
    """Send what is still buffered nowhere: Python would try, and fail, once more at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_file(path: Path, text: str) -> None:
    """Write `text` to `path` beside it first, so that it is never there by half.

    What is not a plain file (a pipe, /dev/null) is written to as it is. Raises UsageError.
    """
    path = path.resolve()  # a link stays a link
    if path.exists() and not path.is_file():
        beside = path
    else:
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # "x": a file or a link that somebody else has put there is not followed
        with beside.open("w" if beside == path else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        if beside != path:
            beside.replace(path)
    except OSError as problem:
        raise UsageError(f"{path}: cannot be written: {problem.strerror}") from problem
    finally:
        if beside != path:
            beside.unlink(missing_ok=True)


def remark(text: str) -> None:
    """Tell how a question was understood: a remark of `ask`, as a note."""
    note(f"note: {text}")


def note(text: str) -> None:
    """Tell the person at the terminal something that is not the result: one line on stderr."""
    from vramplan.report.text import clean, for_encoding

    with suppress(OSError):  # nobody listens to stderr any more, and the result is elsewhere
        print(for_encoding(clean(text), sys.stderr.encoding), file=sys.stderr)
